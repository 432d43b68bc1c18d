"""Arrays in files: .npy, stacks of .npy, text, and anything one can assign to. (zarr and HDF5: `stores`.)

Reading is lazy: a task reads its block while the plan runs. Writing goes block by block as blocks are made, so that neither
way needs the whole array in memory. A file stands under its name only when it is complete; until then it has another.
"""

from __future__ import annotations

import contextlib
import importlib
import operator
import os
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from nums_core.array.array import Array, asarray, from_array, known_expr
from nums_core.errors import MissingBackendError, ShapeError
from nums_core.expr import build
from nums_core.expr.grid import offsets
from nums_core.expr.node import Expr
from nums_core.expr.opaque import Opaque


def backend(name: str) -> Any:
    """An optional package, or an error with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingBackendError(f"this needs the package {name!r}, which is not installed: pip install {name}") from error


@contextlib.contextmanager
def renamed_when_done(path: str) -> Iterator[str]:
    """A name beside `path` to write to. It takes its place at the end, or goes away if there is an error."""
    import shutil
    import uuid

    partial = f"{path}.{uuid.uuid4().hex[:8]}.partial"
    try:
        yield partial
        if os.path.isdir(partial) and os.path.isdir(path):  # a folder cannot take the place of another
            before = f"{partial}.before"
            os.rename(path, before)
            os.rename(partial, path)
            shutil.rmtree(before)
        else:
            os.replace(partial, path)
    except BaseException:
        if os.path.isdir(partial):
            shutil.rmtree(partial, ignore_errors=True)
        elif os.path.exists(partial):
            os.remove(partial)
        raise


# -- store: anything with item assignment -----------------------------------------------------------------------------

Place = slice | tuple[int, ...]  # where an axis of a source goes: a range of the target, or the positions one by one


class Writer:
    """Assigns one block to its place in a target. The task's result is one flag a block.

    Parameters
    ----------
    target : object with `__setitem__`
    begins : for each axis of the source, where every block begins
    places : for each axis of the target, where the source's elements go
    lock : object with `acquire` and `release`, optional
        Held while writing, for targets that two threads may not write to at once.
    """

    def __init__(self, target: Any, begins: tuple[tuple[int, ...], ...], places: tuple[Place, ...], lock: Any = None) -> None:
        self.target, self.begins, self.places, self.lock = target, begins, places, lock

    def __call__(self, block: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
        at = tuple(_part(p, b[i], n) for p, b, i, n in zip(self.places, self.begins, block_id, block.shape, strict=True))
        if self.lock is not None:
            self.lock.acquire()
        try:
            self.target[at if at else ...] = block
        finally:
            if self.lock is not None:
                self.lock.release()
        return np.ones((1,) * block.ndim, bool)

    def __reduce__(self) -> Any:
        return Writer, (self.target, self.begins, self.places, None)  # a lock is this process's


def _part(place: Place, begin: int, n: int) -> Any:
    """Where `n` elements from `begin` go."""
    if isinstance(place, tuple):
        return list(place[begin:begin + n])
    step = place.step or 1
    first = (place.start or 0) + begin * step
    stop = first + n * step
    return slice(first, stop if stop >= 0 else None, step if step != 1 else None)


def store(sources: Any, targets: Any, lock: Any = True, regions: Any = None, compute: bool = True,
          return_stored: bool = False, load_stored: Any = None, **kwargs: Any) -> Any:
    """Write arrays into array-like targets, block by block, all in one run.

    Parameters
    ----------
    sources : Array or sequence of them
    targets : object with `__setitem__`, or as many of them
        A memmap, a zarr array, an HDF5 dataset, a NumPy array.
    lock : bool, or object with `acquire` and `release`
        True: one write at a time to each target. False: as many as there are threads.
    regions : tuple of slices (and at most one list of positions), or as many of them
        Where in the targets to write.
    compute : bool
        False: give an Array whose computation does the writing.
    return_stored : bool
        Give Arrays that read from the targets.

    Raises
    ------
    ShapeError
        A source does not fit its target or region.
    """
    arrays = list(sources) if isinstance(sources, (list, tuple)) else [sources]
    places = list(targets) if isinstance(targets, (list, tuple)) else [targets]
    if len(arrays) != len(places):
        raise ValueError(f"Different number of sources [{len(arrays)}] and targets [{len(places)}]; give one target for "
                         "each source")
    if not all(isinstance(x, Array) for x in arrays):
        raise ValueError("All sources must be Arrays; wrap them with asarray()")
    boxes = [regions] * len(arrays) if regions is None or _is_region(regions) else list(regions)
    if len(boxes) != len(arrays):
        raise ValueError(f"Different number of sources [{len(arrays)}] and targets [{len(places)}] than regions "
                         f"[{len(boxes)}]; give one region for each source")
    exprs = [known_expr(x) for x in arrays]
    writes = [_write(e, t, box, lock) for e, t, box in zip(exprs, places, boxes, strict=True)]
    if compute:
        _run(exprs, places, writes)
        if not return_stored:
            return None
    if return_stored:
        made = [_stored(t, box, e) for t, box, e in zip(places, boxes, exprs, strict=True)]
        return tuple(made) if isinstance(sources, (list, tuple)) else made[0]
    return writes[0] if len(writes) == 1 else tuple(writes)


def _is_region(regions: Any) -> bool:
    return isinstance(regions, slice) or (isinstance(regions, tuple) and not any(
        r is None or isinstance(r, tuple) for r in regions))


def _write(e: Expr, target: Any, region: Any, lock: Any) -> Array:
    """The array of flags whose computation writes `e`."""
    places = _places(e, target, region)
    begins = tuple(map(tuple, map(offsets, e.chunks)))
    held = threading.Lock() if lock is True else (lock or None)
    labels = tuple(range(e.ndim))
    chunks = tuple((1,) * len(c) for c in e.chunks)
    return Array(build.blockmap(Opaque(Writer(target, begins, places, held)), [e], [labels], labels, e.grid, bool, chunks,
                                info=("block_id",), label="store"))


def _places(e: Expr, target: Any, region: Any) -> tuple[Place, ...]:
    shape = getattr(target, "shape", None)
    if region is None:
        if shape is not None and tuple(shape) != e.shape:
            raise ShapeError(f"cannot store an array of shape {e.shape} in a target of shape {tuple(shape)}; make the "
                             "target that shape, or name a part of it with regions=")
        return (slice(0, None),) * e.ndim
    box = list(region if isinstance(region, tuple) else (region,))
    if shape is not None:
        box += [slice(None)] * (len(shape) - len(box))
        box = [slice(*r.indices(n)) if isinstance(r, slice) else r for r, n in zip(box, shape, strict=True)]
    places = tuple(r if isinstance(r, slice) else tuple(int(i) for i in r) for r in box)
    extents = tuple(len(range(r.start or 0, r.stop, r.step or 1)) if isinstance(r, slice) else len(r) for r in places)
    if extents != e.shape:
        raise ShapeError(f"cannot store an array of shape {e.shape} in a region of shape {extents}; they must be equal")
    return places


def _run(exprs: Sequence[Expr], targets: Sequence[Any], writes: Sequence[Array]) -> None:
    """Write from where blocks are made if the targets can be reached there, else block by block from here."""
    from nums_core import session
    from nums_core.array.computing import compute
    from nums_core.runtime.executors.local import LocalExecutor

    if isinstance(session.current().executor, LocalExecutor) or all(map(_reachable, targets)):
        compute(*writes)
        return
    for kept, write in zip(session.keep(exprs), writes, strict=True):
        writer = write.expr.params[0].value
        for at in np.ndindex(*kept.grid):
            writer(np.asarray(Array(kept).blocks[at].compute()), at)


def _reachable(target: Any) -> bool:
    """Whether another process that gets a pickle of the target writes to the same place."""
    return not isinstance(target, np.ndarray) and not type(target).__module__.startswith("h5py")


def _stored(target: Any, region: Any, e: Expr) -> Array:
    x = from_array(target, e.chunks if region is None else "auto")
    return x if region is None else x[region]


class Guarded:
    """A source that is read through a function, or by one thread at a time."""

    def __init__(self, source: Any, lock: Any, getitem: Callable[[Any, Any], Any] | None) -> None:
        self.source, self.getitem = source, getitem or operator.getitem
        self.lock = threading.Lock() if lock is True else (lock or None)
        self.shape, self.dtype = source.shape, source.dtype

    def __getitem__(self, index: Any) -> Any:
        if self.lock is None:
            return self.getitem(self.source, index)
        self.lock.acquire()
        try:
            return np.asarray(self.getitem(self.source, index))
        finally:
            self.lock.release()

    def __reduce__(self) -> Any:
        return Guarded, (self.source, self.lock is not None, self.getitem)  # a lock is this process's


# -- .npy -------------------------------------------------------------------------------------------------------------

class NpyFile:
    """A .npy file as a source: opened by whoever reads a block of it."""

    def __init__(self, path: str) -> None:
        self.path = path
        head = np.load(path, mmap_mode="r", allow_pickle=False)
        self.shape, self.dtype = head.shape, head.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.array(np.load(self.path, mmap_mode="r", allow_pickle=False)[index])


def save(file: Any, arr: Any, allow_pickle: bool = False, **kwargs: Any) -> None:
    """Write an array to a .npy file (`.npy` is added to a name without it), block by block."""
    x = asarray(arr)
    if not isinstance(file, (str, os.PathLike)):
        np.save(file, np.asarray(x.compute()), allow_pickle=allow_pickle)
        return
    path = os.fspath(file)
    path = path if path.endswith(".npy") else path + ".npy"
    with renamed_when_done(path) as partial:
        if not x.size or not x.ndim or x.dtype.hasobject:
            with open(partial, "wb") as f:
                np.save(f, np.asarray(x.compute()), allow_pickle=allow_pickle)
            return
        target = np.lib.format.open_memmap(partial, "w+", x.dtype, x.shape)
        store(x, target, lock=False)
        target.flush()
        del target


def load(file: Any, mmap_mode: Any = None, allow_pickle: bool = False, *, chunks: Any = "auto", **kwargs: Any) -> Any:
    """The array in a .npy file, read block by block when it is needed. Archives (.npz) give NumPy's `NpzFile`."""
    if not isinstance(file, (str, os.PathLike)):
        made = np.load(file, allow_pickle=allow_pickle, **kwargs)
        return from_array(made, chunks) if isinstance(made, np.ndarray) else made
    path = os.fspath(file)
    with open(path, "rb") as f:
        if f.read(6) != b"\x93NUMPY":
            return np.load(path, allow_pickle=allow_pickle, **kwargs)
    return from_array(NpyFile(path), chunks)


def savez(file: Any, *args: Any, **kwds: Any) -> None:
    """Several arrays in one .npz archive; they are computed in one run, into memory."""
    _savez(np.savez, file, args, kwds)


def savez_compressed(file: Any, *args: Any, **kwds: Any) -> None:
    """Several arrays in one compressed .npz archive; they are computed in one run, into memory."""
    _savez(np.savez_compressed, file, args, kwds)


def _savez(write: Callable[..., None], file: Any, args: tuple[Any, ...], kwds: dict[str, Any]) -> None:
    from nums_core.array.computing import compute

    values, named = compute(list(args), kwds)
    write(file, *values, **named)


def savetxt(fname: Any, X: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N803
    """An array of one or two dimensions as text."""
    np.savetxt(fname, np.asarray(asarray(X).compute()), *args, **kwargs)


def loadtxt(fname: Any, *args: Any, chunks: Any = "auto", **kwargs: Any) -> Any:
    """An array from text; read at once, since lines have no fixed length."""
    return _read(np.loadtxt(fname, *args, **kwargs), chunks)


def genfromtxt(fname: Any, *args: Any, chunks: Any = "auto", **kwargs: Any) -> Any:
    """An array from text with missing values; read at once."""
    return _read(np.genfromtxt(fname, *args, **kwargs), chunks)


def fromfile(file: Any, dtype: Any = float, count: int = -1, sep: str = "", offset: int = 0, *,
             chunks: Any = "auto", **kwargs: Any) -> Any:
    """An array from raw bytes. A named binary file is mapped and read block by block."""
    if sep or not isinstance(file, (str, os.PathLike)):
        return from_array(np.fromfile(file, dtype, count, sep, offset), chunks)
    size = (os.path.getsize(file) - offset) // np.dtype(dtype).itemsize
    n = size if count < 0 else min(count, size)
    return from_array(np.memmap(file, dtype, "r", offset, (n,)) if n else np.empty(0, dtype), chunks)


def _read(values: Any, chunks: Any) -> Any:
    return [from_array(v, chunks) for v in values] if isinstance(values, list) else from_array(values, chunks)


# -- stacks of .npy, in dask's layout ---------------------------------------------------------------------------------

def to_npy_stack(dirname: str, x: Any, axis: int = 0) -> None:
    """A folder with one .npy file for each block along `axis`, and a file `info` that says how they lie."""
    e = known_expr(x)
    (axis,) = build.normalize_axes(axis, e.ndim)
    e = build.uncut(e, [i for i in range(e.ndim) if i != axis])
    with renamed_when_done(os.fspath(dirname).rstrip("/")) as partial:
        os.makedirs(partial)
        labels = tuple(range(e.ndim))
        write = build.blockmap(Opaque(_StackWriter(partial, axis)), [e], [labels], labels, e.grid, bool,
                               tuple((1,) * n for n in e.grid), info=("block_id",), label="to_npy_stack")
        Array(write).compute()
        with open(os.path.join(partial, "info"), "wb") as f:
            pickle.dump({"chunks": e.chunks, "dtype": e.dtype, "axis": axis}, f)


class _StackWriter:
    def __init__(self, dirname: str, axis: int) -> None:
        self.dirname, self.axis = dirname, axis

    def __call__(self, block: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
        np.save(os.path.join(self.dirname, f"{block_id[self.axis]}.npy"), block)
        return np.ones((1,) * block.ndim, bool)


def from_npy_stack(dirname: str, mmap_mode: str | None = "r") -> Array:
    """The array in a folder written by `to_npy_stack`, here or by dask; a file is read when its block is needed."""
    with open(os.path.join(dirname, "info"), "rb") as f:
        info = _PlainUnpickler(f).load()
    chunks, dtype, axis = tuple(map(tuple, info["chunks"])), np.dtype(info["dtype"]), info["axis"]
    labels = tuple(range(len(chunks)))
    return Array(build.blockmap(Opaque(_StackReader(os.fspath(dirname), axis, mmap_mode)), (), (), labels,
                                tuple(sum(c) for c in chunks), dtype, chunks, info=("block_id",), label="from_npy_stack"))


class _StackReader:
    def __init__(self, dirname: str, axis: int, mmap_mode: str | None) -> None:
        self.dirname, self.axis, self.mmap_mode = dirname, axis, mmap_mode

    def __call__(self, block_id: tuple[int, ...]) -> np.ndarray:
        return np.load(os.path.join(self.dirname, f"{block_id[self.axis]}.npy"), mmap_mode=self.mmap_mode)  # type: ignore[arg-type]


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, tuples and NumPy's dtypes and scalars, and refuses to import anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in ("dtype", "scalar", "ndarray", "_reconstruct"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"this file asks for {module}.{name}, which a stack's info has no use for; it may not "
                                     "be one, or not be safe")


__all__ = ["from_npy_stack", "fromfile", "genfromtxt", "load", "loadtxt", "save", "savetxt", "savez", "savez_compressed",
           "store", "to_npy_stack"]
