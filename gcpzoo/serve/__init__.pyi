from .bulk import predict_files
from .images import find_images
from .predictor import Answer, ClassScore, Predictor

__all__ = ["Answer", "ClassScore", "Predictor", "find_images", "predict_files"]
