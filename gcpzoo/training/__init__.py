"""Training: the LightningModule, optimizers and schedules, callbacks."""

from gcpzoo.training.callbacks import CovarianceSpectrum, HybridRoot, RunReport, StagedUnfreezing
from gcpzoo.training.task import ClassificationTask

__all__ = ["ClassificationTask", "CovarianceSpectrum", "HybridRoot", "RunReport", "StagedUnfreezing"]
