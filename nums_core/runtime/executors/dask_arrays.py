"""dask.array on the other side of the door: blocks of ours as a dask array, and a dask array as a source of blocks."""

from __future__ import annotations

import itertools
import math
import sys
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np

from nums_core.errors import DTypeError, MissingBackendError, UnknownSizeError
from nums_core.runtime.executors.base import Chunks, Executor, Held

try:
    import dask.array
    from dask.highlevelgraph import HighLevelGraph
except ImportError as _error:
    raise MissingBackendError("dask arrays need the package dask, which is not installed here; "
                              "pip install nums-core[dask]") from _error


def of_held(executor: Executor, held: Held, chunks: Chunks, dtype: np.dtype) -> Any:
    """A dask array whose chunks are the blocks of `held`: futures where Dask's workers have them, else NumPy arrays."""
    futures = getattr(held.owner, "futures", None)
    blocks: Sequence[Any] = executor.fetch(held) if futures is None else futures(held)
    name = f"nums-{uuid.uuid4().hex}"
    places = itertools.product(*(range(len(c)) for c in chunks))
    layer = {(name, *at): block for at, block in zip(places, blocks, strict=True)}
    graph = HighLevelGraph.from_collections(name, layer, dependencies=())
    return dask.array.Array(graph, name, chunks=tuple(tuple(map(int, c)) for c in chunks), dtype=dtype)


class DaskSource:
    """Reads a dask array slice by slice, on the thread that asks: each block runs the part of the graph it needs."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape, self.dtype, self.chunks = array.shape, array.dtype, array.chunks

    def __getitem__(self, at: Any) -> np.ndarray:
        return np.asarray(self.array[at].compute(scheduler="synchronous"))


def source_of(array: Any) -> Any:
    """What `from_array` reads a dask array by: the values at once where Dask's workers hold them, else a `DaskSource`.

    Raises
    ------
    DTypeError
        It is no dask array, or one whose chunks are not NumPy arrays.
    UnknownSizeError
    """
    if not isinstance(array, dask.array.Array):
        raise DTypeError(f"from_dask() takes a dask.array.Array, got {type(array).__name__}; a dask dataframe has one, "
                         "df.to_dask_array(lengths=True)")
    if not isinstance(array._meta, np.ndarray):
        raise DTypeError(f"the chunks of this dask array are {type(array._meta).__name__}s; make them NumPy arrays first, "
                         "x.map_blocks(numpy.asarray)")
    if any(math.isnan(c) for sizes in array.chunks for c in sizes):
        raise UnknownSizeError("the chunks of this dask array are not known; call x.compute_chunk_sizes() on it first")
    return np.asarray(array.compute()) if _on_workers(array) else DaskSource(array)


def _on_workers(array: Any) -> bool:
    """Whether its graph holds futures; only their own client can read these."""
    distributed = sys.modules.get("distributed")
    return distributed is not None and bool(distributed.futures_of(array))
