"""Weights of other programs into our format: one small file a source, a table of renames plus what is special.

Importing it loads no torch: the command line takes the names of the sources from here.
"""

import lazy_loader

SOURCES = ("differentiable_svd", "dropcov", "fast_mpn_cov", "gcp_optimization", "gsop", "pytorchcv")
TRIANGLES = ("auto", "upper", "lower")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["SOURCES", "TRIANGLES"]
