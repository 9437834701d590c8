from .bulk import predict_files
from .images import find_images
from .page import build_page, opened, serve_page
from .predictor import Answer, ClassScore, Predictor
from .viewer import Viewer

__all__ = [
    "Answer",
    "ClassScore",
    "Predictor",
    "Viewer",
    "build_page",
    "find_images",
    "opened",
    "predict_files",
    "serve_page",
]
