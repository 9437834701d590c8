"""Networks: backbone → head → classifier, the preprocessing that belongs to them, and what they cost."""

from gcpzoo.models.backbones import Backbone, create_backbone, list_backbones
from gcpzoo.models.complexity import model_complexity, multiply_adds
from gcpzoo.models.gcpnet import GCPNet, create_model
from gcpzoo.models.preprocessing import Preprocessing

__all__ = [
    "Backbone",
    "GCPNet",
    "Preprocessing",
    "create_backbone",
    "create_model",
    "list_backbones",
    "model_complexity",
    "multiply_adds",
]
