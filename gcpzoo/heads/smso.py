"""Statistically motivated second-order pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gcpzoo.functional import parametric_vector
from gcpzoo.functional.checks import check_choice, check_count
from gcpzoo.heads.base import SecondOrderHead
from gcpzoo.heads.registry import register


@register("smso")
class ParametricVectorization(SecondOrderHead):
    r"""SMSO: variances of the features along learned directions, in place of the entries of the covariance.

    .. math:: z_j = w_j^\top\Sigma'w_j = \lVert X_c^\top w_j\rVert^2/(M - 1),\qquad v = \gamma\circ z + \beta,
              \qquad \operatorname{sign}(v)\sqrt{2|v| + 10^{-8}}

    Output size p, ``directions``. Parameters: ``directions_weight`` (d, p), Glorot uniform; ``gamma``, 1; ``beta``, 0.

    Args:
        in_features, dim, kwargs: see :class:`~gcpzoo.heads.base.SecondOrderHead`. The reduction's batch normalization
            is the one that the paper puts before the covariance.
        directions: p.
        square_root: ``False`` stops at v.
        form: ``"covariance"`` as above, or ``"convolution"``: a 1×1 convolution with the bias ``directions_bias``,
            square, mean over the positions. It is not centered, and the same only where the channel means are 0.

    When to use: a short vector from many channels, without the covariance matrix, which is never formed.

    The paper regularizes :math:`\gamma` by its square: so does the optimizer's weight decay, unless
    ``decay_norm_and_bias`` is false. Batch normalization and ReLU of the vector, optional there, are not part of the
    head. With one position z is 0. Weights count as they are, 1 for a position that counts once, since their sum takes
    the place of M; the divisor is at least 1.

    Released code: its square root needs a file that was not released.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> head = create_head("smso", in_features=8, directions=3)
    >>> head(torch.ones(2, 8, 7, 7)).shape
    torch.Size([2, 3])

    Source: Yu and Salzmann, "Statistically-motivated Second-order Pooling", ECCV 2018, arXiv 1801.07492.
    """

    RELEASED_NAMES: ClassVar[Mapping[str, str]] = {
        "kernel": "directions_weight",
        "conv_bias": "directions_bias",
        "gamma": "gamma",
        "bias": "beta",
    }

    def __init__(
        self,
        in_features: int,
        dim: int | Sequence[int] | None = None,
        directions: int = 2048,
        square_root: bool = True,
        form: str = "covariance",
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, dim, **kwargs)
        check_count("directions", directions)
        check_choice("square_root", square_root, (True, False))
        check_choice("form", form, ("covariance", "convolution"))
        self.directions, self.square_root, self.form = directions, square_root, form
        with torch.random.fork_rng(devices=[]):
            self.directions_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.group_dim, directions)))
        self.directions_bias = nn.Parameter(torch.zeros(directions)) if form == "convolution" else None
        self.gamma = nn.Parameter(torch.ones(directions))
        self.beta = nn.Parameter(torch.zeros(directions))

    def normalize(self, x: Tensor) -> Tensor:
        return parametric_vector(x, self.directions_weight, self.directions_bias)

    def normalize_weighted(self, x: Tensor, weights: Tensor) -> Tensor:
        return parametric_vector(x, self.directions_weight, self.directions_bias, weights)

    def vectorize(self, a: Tensor) -> Tensor:
        v = self.gamma.to(a.dtype) * a + self.beta.to(a.dtype)
        return v.sign() * (2 * v.abs() + 1e-8).sqrt() if self.square_root else v

    def vector_size(self) -> int:
        return self.directions
