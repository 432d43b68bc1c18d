"""Arrays in zarr stores and HDF5 files: read and written block by block."""

from __future__ import annotations

import os
import threading
import uuid
from typing import Any

import numpy as np

from nums_core.array.array import Array, from_array, known_expr
from nums_core.array.io import backend, renamed_when_done, store
from nums_core.errors import CheckpointError
from nums_core.expr import build
from nums_core.expr.grid import offsets
from nums_core.expr.node import Expr

# -- zarr -------------------------------------------------------------------------------------------------------------

def from_zarr(url: Any, component: str | None = None, storage_options: Any = None, chunks: Any = None,
              name: Any = None, inline_array: bool = False, **kwargs: Any) -> Array:
    """The array in a zarr store, read block by block.

    Parameters
    ----------
    url : str, path, store or zarr.Array
    component : str, optional
        Where in the store's hierarchy it lies.
    chunks : see `Array.rechunk`; whole numbers of stored chunks if not given
    """
    zarr = backend("zarr")
    if isinstance(url, zarr.Array):
        found = url
    else:
        given = {"storage_options": storage_options} if storage_options else {}
        found = zarr.open_array(os.fspath(url) if isinstance(url, os.PathLike) else url, path=component, mode="r",
                                **given, **kwargs)
    return from_array(found, "auto" if chunks is None else chunks)


def to_zarr(arr: Any, url: Any, component: str | None = None, storage_options: Any = None, overwrite: bool = False,
            region: Any = None, compute: bool = True, return_stored: bool = False, **kwargs: Any) -> Any:
    """Write an array to a zarr store, a stored chunk for each block.

    Parameters
    ----------
    url : str, path, store or zarr.Array
        A folder gets its name when it is complete.
    overwrite : bool
    region : tuple of slices, optional
        Part of an existing zarr.Array to write to.

    Raises
    ------
    FileExistsError
        The folder exists and `overwrite` is off.
    """
    zarr = backend("zarr")
    e = known_expr(arr)
    if isinstance(url, zarr.Array):
        return store(Array(e), url, lock=not _fits_chunks(e, url), regions=region, compute=compute,
                     return_stored=return_stored)
    if region is not None:
        raise ValueError("Cannot use `region` keyword when url is not a zarr.Array; open the array first, and pass it")
    e = build.rechunk(e, tuple(build.uniform(n, max(c)) for n, c in zip(e.shape, e.chunks, strict=True)))
    options = {"shape": e.shape, "dtype": e.dtype, "chunks": tuple(max(max(c), 1) for c in e.chunks), **kwargs}
    if storage_options:
        options["storage_options"] = storage_options
    path = os.fspath(url) if isinstance(url, (str, os.PathLike)) else None
    if path is None or "://" in path or component or not compute:
        return store(Array(e), zarr.create_array(path or url, name=component, overwrite=overwrite, **options), lock=False,
                     compute=compute, return_stored=return_stored)
    if os.path.exists(path) and not overwrite and not (os.path.isdir(path) and not os.listdir(path)):
        raise FileExistsError(f"{path} exists; pass overwrite=True to replace it")
    with renamed_when_done(path) as partial:
        store(Array(e), zarr.create_array(partial, **options), lock=False)
    return from_zarr(path) if return_stored else None


def _fits_chunks(e: Expr, target: Any) -> bool:
    """Whether no stored chunk is written by two blocks."""
    return all(o % c == 0 for cut, c in zip(e.chunks, target.chunks, strict=True) for o in offsets(cut))


class Checkpoint:
    """An array written by `checkpoint`, as a source. `token` tells it from another one written over it."""

    def __init__(self, path: str, token: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.path, self.token, self.shape, self.dtype = path, token, shape, dtype

    def __getitem__(self, index: Any) -> np.ndarray:
        self._check()
        block = np.asarray(backend("zarr").open_array(self.path, mode="r")[index])
        self._check()  # it may have been replaced meanwhile
        return block

    def _check(self) -> None:
        try:
            token = backend("zarr").open_array(self.path, mode="r").attrs.get(TOKEN)
        except FileNotFoundError:
            token = None
        if token != self.token:
            raise CheckpointError(
                f"blocks of a persisted array were lost with a worker, and {self.path} "
                f"{'holds another array' if os.path.exists(self.path) else 'is not there'} now; keep a checkpoint as long as "
                "the array that it was made of is used, and put it where every worker can read it")


TOKEN = "nums_core.checkpoint"


def checkpoint(x: Any, path: Any, overwrite: bool = False) -> Array:
    """The same array persisted, with a copy in a zarr store that takes the place of its history.

    Where a worker of a cluster dies, lost blocks are read from the store instead of being computed again from what the array
    was made of, and that is forgotten. So a long loop should write a checkpoint now and then.

    Parameters
    ----------
    x : Array
        Computed and persisted unless it is already.
    path : str or path
        A folder that every worker can read. It gets its name when it is complete.
    overwrite : bool
        Whether to replace what is there.

    Returns
    -------
    Array, of the same shape, dtype and chunks

    Raises
    ------
    FileExistsError
        The folder exists and `overwrite` is off.
    """
    from nums_core import session

    backend("zarr")
    path = os.path.abspath(os.fspath(path))
    if os.path.exists(path) and not overwrite:
        raise FileExistsError(f"{path} exists; pass overwrite=True to replace it")
    e = known_expr(x)
    kept = x if e.op == "leaf" and e.params[0].kind == "held" else x.persist()
    token = uuid.uuid4().hex
    to_zarr(kept, path, overwrite=overwrite, attributes={TOKEN: token})
    session.stored(kept.expr, Checkpoint(path, token, kept.shape, kept.dtype))
    return kept


# -- HDF5 -------------------------------------------------------------------------------------------------------------

_hdf5 = threading.RLock()  # one call of the HDF5 library at a time


class Hdf5Dataset:
    """A dataset of an HDF5 file as a source: the file is opened by whoever reads a block of it."""

    def __init__(self, path: str, name: str) -> None:
        self.path, self.name = path, name
        with _hdf5, backend("h5py").File(path, "r") as f:
            d = f[name]
            self.shape, self.dtype, self.chunks = tuple(d.shape), np.dtype(d.dtype), d.chunks

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        with _hdf5, backend("h5py").File(self.path, "r") as f:
            return f[self.name][index]


def from_hdf5(filename: Any, dataset: str, chunks: Any = "auto") -> Array:
    """A dataset of an HDF5 file, read block by block."""
    backend("h5py")
    return from_array(Hdf5Dataset(os.fspath(filename), dataset), chunks)


def to_hdf5(filename: Any, *args: Any, chunks: Any = True, **kwargs: Any) -> None:
    """Write arrays to datasets of an HDF5 file: `to_hdf5("f.h5", "/x", x)` or `to_hdf5("f.h5", {"/x": x, "/y": y})`.

    Parameters
    ----------
    chunks : tuple, True or None
        Stored chunks; True takes the array's blocks where they are alike, None stores without chunks.
    **kwargs
        Of h5py's `create_dataset`, such as compression.
    """
    h5py = backend("h5py")
    if len(args) == 1 and isinstance(args[0], dict):
        data = args[0]
    elif len(args) == 2 and isinstance(args[0], str):
        data = {args[0]: args[1]}
    else:
        raise ValueError("Please provide {'/path': array} dictionary, or a path and an array, as in to_hdf5(f, '/x', x)")
    exprs = {name: known_expr(x) for name, x in data.items()}
    with h5py.File(os.fspath(filename), "a") as f:
        targets = [f.require_dataset(name, shape=e.shape, dtype=e.dtype, chunks=_stored_chunks(e, chunks), **kwargs)
                   for name, e in exprs.items()]
        store([Array(e) for e in exprs.values()], targets, lock=_hdf5)


def _stored_chunks(e: Expr, chunks: Any) -> Any:
    if chunks is not True:
        return chunks
    alike = all(len(set(c[:-1])) <= 1 and c[-1] <= c[0] for c in e.chunks)
    return tuple(c[0] for c in e.chunks) if alike and e.ndim and all(c[0] for c in e.chunks) else True


__all__ = ["checkpoint", "from_hdf5", "from_zarr", "to_hdf5", "to_zarr"]
