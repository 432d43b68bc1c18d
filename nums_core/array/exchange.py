"""dask.array on both sides: `from_dask(x)` and `x.to_dask()`. An Array itself is no dask collection."""

from __future__ import annotations

from typing import Any

from nums_core import session
from nums_core.array.array import Array, from_array, known_expr


def from_dask(x: Any) -> Array:
    """An array of the values of a dask array, with its chunks.

    Parameters
    ----------
    x : dask.array.Array
        Blocks are read while the plan runs, each by the part of the dask graph that makes it. Where blocks share costly
        work, `x.persist()` first: that work is done for each block again otherwise. The values of an array that is
        persisted on `distributed` workers are fetched at once.

    Raises
    ------
    DTypeError
        Not a dask array, or one of other blocks than NumPy's.
    UnknownSizeError
        Chunks that are not known yet.
    MissingBackendError
        Dask is not installed.
    """
    from nums_core.runtime.executors.dask_arrays import source_of

    return from_array(source_of(x), chunks=x.chunks)


def to_dask(x: Array) -> Any:
    """A dask array with the values and chunks of `x`, which is computed now.

    On Dask the chunks are futures of copies on the workers that hold the blocks; elsewhere they are NumPy arrays in this
    process.
    """
    from nums_core.runtime.executors.dask_arrays import of_held

    (kept,) = session.keep([known_expr(x)])
    return of_held(session.current().executor, kept.params[0].data, kept.chunks, kept.dtype)


__all__ = ["from_dask"]
