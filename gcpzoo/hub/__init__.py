"""Checkpoints: the zoo's records, loading, publishing on the Hugging Face Hub, and the authors' released weights.

Importing it loads neither torch nor the Hub's client; the names of ``__init__.pyi`` are imported on first use. Only
``convert`` is bound here, because a package has the same name.
"""

import lazy_loader

from gcpzoo.hub.convert.file import convert as convert

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
