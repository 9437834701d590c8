"""Pure tensor mathematics of covariance pooling: batched, differentiable, on torch alone."""

from gcpzoo.functional.covariance import as_matrix, covariance, triangle
from gcpzoo.functional.cross_covariance import cross_covariance, svpn
from gcpzoo.functional.democratic import gamma_democratic
from gcpzoo.functional.distance_covariance import distance_covariance
from gcpzoo.functional.dropcov import adaptive_drop_rate, channel_importance, drop_channels
from gcpzoo.functional.gaussian import homogeneous
from gcpzoo.functional.inverse_covariance import (
    inverse_covariance,
    newton_schulz_inverse,
    sparse_inverse_covariance,
)
from gcpzoo.functional.lyapunov import lyapunov_solve, lyapunov_sqrt, mpa_inv_sqrt, mpa_sqrt, mtp_inv_sqrt, mtp_sqrt
from gcpzoo.functional.minimax import minimax_sqrt
from gcpzoo.functional.newton_schulz import newton_schulz_sqrt
from gcpzoo.functional.parametric_vectorization import parametric_vector
from gcpzoo.functional.power_normalization import maxexp_f
from gcpzoo.functional.released import released_covariance
from gcpzoo.functional.riemannian import log_cholesky
from gcpzoo.functional.roots import ROOTS, square_root
from gcpzoo.functional.sketch import tensor_sketch
from gcpzoo.functional.spectral import matrix_log, matrix_power, spectral_function
from gcpzoo.functional.surrogates import surrogate_sqrt, svd_sqrt
from gcpzoo.functional.threads import share_threads
from gcpzoo.functional.weighting import reweight

__all__ = [
    "ROOTS",
    "adaptive_drop_rate",
    "as_matrix",
    "channel_importance",
    "covariance",
    "cross_covariance",
    "distance_covariance",
    "drop_channels",
    "gamma_democratic",
    "homogeneous",
    "inverse_covariance",
    "log_cholesky",
    "lyapunov_solve",
    "lyapunov_sqrt",
    "matrix_log",
    "matrix_power",
    "maxexp_f",
    "minimax_sqrt",
    "mpa_inv_sqrt",
    "mpa_sqrt",
    "mtp_inv_sqrt",
    "mtp_sqrt",
    "newton_schulz_inverse",
    "newton_schulz_sqrt",
    "parametric_vector",
    "released_covariance",
    "reweight",
    "share_threads",
    "sparse_inverse_covariance",
    "spectral_function",
    "square_root",
    "surrogate_sqrt",
    "svd_sqrt",
    "svpn",
    "tensor_sketch",
    "triangle",
]
