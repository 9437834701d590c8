"""gcpzoo: a model zoo for global covariance pooling. Importing it is light: torch is loaded when it is first needed."""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
