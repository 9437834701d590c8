"""Data modules: one benchmark, one file. All deliver uint8 images and normalize them on the device."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
