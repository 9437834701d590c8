from .best_epoch import BestEpoch
from .checkpoints import RunCheckpoints
from .covariance_spectrum import CovarianceSpectrum
from .distillation import Distillation, DistillationConfig
from .finite_guard import FiniteGuard
from .gradual_unfreezing import GradualUnfreezing
from .hybrid_root import HybridRoot
from .optimizers import OptimizerConfig
from .predictions import TestPredictions
from .run_report import RunReport
from .schedules import ScheduleConfig
from .staged_unfreezing import StagedUnfreezing
from .task import ClassificationTask

__all__ = [
    "BestEpoch",
    "ClassificationTask",
    "CovarianceSpectrum",
    "Distillation",
    "DistillationConfig",
    "FiniteGuard",
    "GradualUnfreezing",
    "HybridRoot",
    "OptimizerConfig",
    "RunCheckpoints",
    "RunReport",
    "ScheduleConfig",
    "StagedUnfreezing",
    "TestPredictions",
]
