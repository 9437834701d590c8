"""What a network does, measured and drawn: spectra and plots."""

from gcpzoo.analysis import plots
from gcpzoo.analysis.spectrum import (
    SpectrumSummary,
    covariance_eigenvalues,
    covariance_summary,
    head_spectra,
    mean_relative,
    summarize,
)

__all__ = [
    "SpectrumSummary",
    "covariance_eigenvalues",
    "covariance_summary",
    "head_spectra",
    "mean_relative",
    "plots",
    "summarize",
]
