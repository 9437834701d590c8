from .batching import Batcher
from .bulk import predict_files
from .engine import Engine
from .http import create_app
from .images import find_images
from .page import build_page, opened, serve_page
from .predictor import Answer, ClassScore, Predictor
from .viewer import Viewer

__all__ = [
    "Answer",
    "Batcher",
    "ClassScore",
    "Engine",
    "Predictor",
    "Viewer",
    "build_page",
    "create_app",
    "find_images",
    "opened",
    "predict_files",
    "serve_page",
]
