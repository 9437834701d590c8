from .batching import Batcher
from .bulk import predict_files
from .engine import Engine
from .http import create_app
from .images import find_images
from .predictor import Answer, ClassScore, Predictor

__all__ = ["Answer", "Batcher", "ClassScore", "Engine", "Predictor", "create_app", "find_images", "predict_files"]
