"""Networks: backbone → head → classifier, the preprocessing that belongs to them, and what they cost."""

from gcpzoo.models.backbones import create_backbone, list_backbones
from gcpzoo.models.base import Backbone
from gcpzoo.models.complexity import model_complexity, multiply_adds
from gcpzoo.models.gcpnet import GCPNet, create_model
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.models.stages import FeatureMaps
from gcpzoo.models.surgery import find_modules

__all__ = [
    "Backbone",
    "FeatureMaps",
    "GCPNet",
    "Preprocessing",
    "create_backbone",
    "create_model",
    "find_modules",
    "list_backbones",
    "model_complexity",
    "multiply_adds",
]
