"""What a network does, measured and drawn: spectra, calibration, embeddings and plots."""

from gcpzoo.analysis import plots
from gcpzoo.analysis.calibration import fit_temperature
from gcpzoo.analysis.embeddings import Embeddings, embed
from gcpzoo.analysis.retrieval import Retrieval, evaluate_retrieval, nearest
from gcpzoo.analysis.spectrum import (
    SpectrumSummary,
    covariance_eigenvalues,
    covariance_summary,
    head_spectra,
    mean_relative,
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
    "summarize",
]
