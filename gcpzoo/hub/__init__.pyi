from .client import search_hub
from .convert import convert
from .files import save_local
from .loading import load, load_task_checkpoint
from .publishing import Published, publish
from .records import Record, get_record, list_models

__all__ = [
    "Published",
    "Record",
    "convert",
    "get_record",
    "list_models",
    "load",
    "load_task_checkpoint",
    "publish",
    "save_local",
    "search_hub",
]
