"""Checkpoints: the zoo's records, loading, publishing on the Hugging Face Hub, and the authors' released weights.

Importing it loads neither torch nor the Hub's client; the functions do.
"""

from gcpzoo.hub.client import search_hub
from gcpzoo.hub.convert import convert
from gcpzoo.hub.load import load, load_task_checkpoint, save_local
from gcpzoo.hub.publish import publish
from gcpzoo.hub.records import Record, get_record, list_models

__all__ = [
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
