"""`sliding_window_view` and broadcasting under the names that NumPy and dask give them."""

from nums_core.array.manipulation import broadcast_arrays, broadcast_to
from nums_core.array.moving import sliding_window_view

__all__ = ["broadcast_arrays", "broadcast_to", "sliding_window_view"]
