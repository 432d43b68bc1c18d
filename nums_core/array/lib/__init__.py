"""Where `numpy.lib` and `dask.array.lib` keep their moving windows."""

from nums_core.array.lib import stride_tricks as stride_tricks

__all__ = ["stride_tricks"]
