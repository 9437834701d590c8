from . import analysis, blocks, data, errors, experiments, functional, heads, hub, models, training
from .errors import ZooError
from .heads import list_heads
from .hub import list_models, load, publish
from .models import GCPNet, create_model
from .training import ClassificationTask

__version__: str

__all__ = [
    "ClassificationTask",
    "GCPNet",
    "ZooError",
    "analysis",
    "blocks",
    "create_model",
    "data",
    "errors",
    "experiments",
    "functional",
    "heads",
    "hub",
    "list_heads",
    "list_models",
    "load",
    "models",
    "publish",
    "training",
]
