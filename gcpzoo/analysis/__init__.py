"""What a network does, measured and drawn: spectra, calibration, embeddings and plots."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
