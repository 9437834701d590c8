from .calibration import fit_temperature
from .drawing import plots
from .embeddings import Embeddings, embed
from .retrieval import Retrieval, evaluate_retrieval, nearest
from .spectrum import (
    SpectrumSummary,
    covariance_eigenvalues,
    covariance_summary,
    head_spectra,
    mean_relative,
    pooled_features,
    summarize,
)

__all__ = [
    "Embeddings",
    "Retrieval",
    "SpectrumSummary",
    "covariance_eigenvalues",
    "covariance_summary",
    "embed",
    "evaluate_retrieval",
    "fit_temperature",
    "head_spectra",
    "mean_relative",
    "nearest",
    "plots",
    "pooled_features",
    "summarize",
]
