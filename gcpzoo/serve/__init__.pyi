from .predictor import Answer, ClassScore, Predictor, find_images

__all__ = ["Answer", "ClassScore", "Predictor", "find_images"]
