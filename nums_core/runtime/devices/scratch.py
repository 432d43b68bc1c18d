"""Scratch memory of the running thread: buffers that are used again by every tile and every task."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

_local = threading.local()


def buffer(key: Any, nbytes: int) -> np.ndarray:
    """At least `nbytes` bytes that belong to this thread; what stood under `key` is overwritten. uint8, one axis."""
    try:
        buffers = _local.buffers
    except AttributeError:
        buffers, _local.arrays = _local.__dict__.setdefault("buffers", {}), {}
    found = buffers.get(key)
    if found is None or found.nbytes < nbytes:
        found = buffers[key] = np.empty(max(nbytes, 4096), np.uint8)
        _local.arrays.clear()  # they may lie in the buffer that went
    return found


def empty(key: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array over scratch memory, in C order. Tiles mostly have the same shape: the array itself is kept."""
    try:
        return _local.arrays[key, shape, dtype]
    except (AttributeError, KeyError):
        pass
    nbytes = math.prod(shape) * dtype.itemsize
    made = buffer(key, nbytes)[:nbytes].view(dtype).reshape(shape)
    if len(_local.arrays) > 64:
        _local.arrays.clear()
    _local.arrays[key, shape, dtype] = made
    return made


def empty_like(x: np.ndarray, key: Any, dtype: np.dtype) -> np.ndarray:
    """An array over scratch memory, its axes in memory in the order of those of `x`."""
    strides = x.strides
    if x.flags.c_contiguous or (min(strides) >= 0 and list(strides) == sorted(strides, reverse=True)):
        return empty(key, x.shape, dtype)
    order = sorted(range(x.ndim), key=lambda i: -abs(x.strides[i]))
    back = sorted(range(x.ndim), key=order.__getitem__)
    return empty(key, tuple(x.shape[i] for i in order), dtype).transpose(back)
