from .client import search_hub
from .convert import convert
from .files import save_local
from .load import load, load_task_checkpoint
from .publish import Published, publish
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
