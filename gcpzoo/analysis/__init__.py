"""What a network does, measured and drawn: spectra, calibration and plots."""

from gcpzoo.analysis import plots
from gcpzoo.analysis.calibration import fit_temperature
from gcpzoo.analysis.spectrum import (
    SpectrumSummary,
    covariance_eigenvalues,
    covariance_summary,
    head_spectra,
    mean_relative,
    pooled_features,
    summarize,
)

__all__ = [
    "SpectrumSummary",
    "covariance_eigenvalues",
    "covariance_summary",
    "fit_temperature",
    "head_spectra",
    "mean_relative",
    "plots",
    "pooled_features",
    "summarize",
]
