"""Grids: how an array is cut. Chunks are tuples of extents, one tuple an axis, as in dask.

    normalize("auto", (10_000, 64), float64)   ->  ((2500, 2500, 2500, 2500), (64,))
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from nums_core import config
from nums_core._util import format_bytes
from nums_core.errors import GridError, UnknownSizeError

Chunks = tuple[tuple[Any, ...], ...]  # ints, or NaN where the size depends on data


def normalize(chunks: Any, shape: tuple[int, ...], dtype: Any, previous: Chunks | None = None) -> Chunks:
    """Chunks as a tuple of tuples.

    Parameters
    ----------
    chunks : "auto", int, bytes text ("32MiB"), tuple or dict
        An int is the extent on every axis; -1 means one block along that axis, and so does None, unless there are
        `previous` chunks, which it keeps; "auto" lets the axis be cut so that a block is about `config.block_bytes`; a tuple
        of ints gives the extents themselves; a dict sets some axes.
    shape : tuple of int
    dtype : dtype
    previous : chunks, optional
        What axes a dict leaves out keep; "auto" if not given.

    Raises
    ------
    GridError
        Chunks of the wrong length or sum, with the way to write them.
    """
    ndim = len(shape)
    if not ndim:
        return ()
    if isinstance(chunks, dict):
        base = list(previous) if previous is not None else ["auto"] * ndim
        for axis, c in chunks.items():
            if not -ndim <= axis < ndim:
                raise GridError(f"chunks name axis {axis} of an array of shape {shape}; axes are 0 to {ndim - 1}")
            base[axis] = c
        chunks = tuple(base)
    limit = config.get().block_bytes
    if isinstance(chunks, str) and chunks != "auto":
        limit, chunks = config.parse_bytes(chunks), "auto"
    if chunks is None or isinstance(chunks, (int, float, str, np.integer)):
        chunks = (chunks,) * ndim
    if ndim == 1 and len(chunks) > 1 and all(isinstance(c, (int, np.integer)) for c in chunks):
        chunks = (tuple(chunks),)
    if not len(chunks) and not any(shape):
        chunks = shape
    if len(chunks) != ndim:
        raise GridError(f"chunks {chunks!r} have {len(chunks)} entries for an array of {ndim} dimensions, shape "
                        f"{shape}; give one entry an axis, -1 for an uncut one, or 'auto'")
    if previous is not None:
        chunks = tuple(p if c is None else c for c, p in zip(chunks, previous, strict=True))
    cut: list[tuple[int, ...] | None] = [None if c == "auto" else _axis(c, n, shape)
                                         for c, n in zip(chunks, shape, strict=True)]
    if None in cut:
        auto_limit = next((config.parse_bytes(c) for c in chunks if isinstance(c, str) and c != "auto"), limit)
        _fill_auto(cut, shape, np.dtype(dtype).itemsize, auto_limit)
    return tuple(c for c in cut if c is not None)


def _axis(c: Any, n: Any, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    if isinstance(c, str):
        return None
    if c is None or (isinstance(c, (int, float, np.integer)) and c == -1):
        return (n,)
    if isinstance(c, (int, float, np.integer)):
        if c < 0 or (c == 0 and n > 0) or c != int(c):
            raise GridError(f"a chunk of {c} does not cut an axis of {n} elements; give a positive extent, or -1 "
                            "for an uncut axis")
        return uniform(int(n), max(int(c), 1))
    sizes = tuple(int(s) if s == s else s for s in c)
    if any(s < 0 for s in sizes) or (sum(sizes) != n and n == n):
        raise GridError(f"chunks {sizes} add up to {sum(sizes)}, not to the {n} elements of that axis of shape "
                        f"{shape}; they must add up to it, or give one extent for all")
    return sizes


@lru_cache(maxsize=1024)
def uniform(n: int, size: int) -> tuple[int, ...]:
    """`n` elements in chunks of `size`, the last one smaller."""
    if n == 0:
        return (0,)
    return (size,) * (n // size) + ((n % size,) if n % size else ())


def _fill_auto(cut: list[tuple[int, ...] | None], shape: tuple[int, ...], itemsize: int, limit: int) -> None:
    """Halve the longest block edge among the free axes until a block is small enough: square blocks for square arrays,
    whole rows for tall and whole columns for wide ones, never slivers."""
    fixed = math.prod(max(c) for c in cut if c is not None)
    edges = {i: max(int(n), 1) for i, (c, n) in enumerate(zip(cut, shape, strict=True)) if c is None}
    while edges and fixed * math.prod(edges.values()) * max(itemsize, 1) > limit:
        axis = max(edges, key=lambda i: (edges[i], -i))
        if edges[axis] == 1:
            break
        edges[axis] = -(-edges[axis] // 2)
    for i, edge in edges.items():
        cut[i] = uniform(int(shape[i]), edge)


def known(chunks: Chunks) -> bool:
    """Whether all extents are known."""
    return not any(c != c for sizes in chunks for c in sizes)


def require_known(chunks: Chunks, what: str) -> None:
    if not known(chunks):
        raise UnknownSizeError(f"{what} needs sizes that depend on data not yet computed; call "
                               ".compute_chunk_sizes() on the array first")


def grid_of(chunks: Chunks) -> tuple[int, ...]:
    """Number of blocks along each axis."""
    return tuple(map(len, chunks))


def offsets(sizes: Sequence[int]) -> list[int]:
    """Where each chunk of an axis begins."""
    return [0, *itertools.accumulate(sizes)][:-1]


def block_elements(chunks: Chunks) -> np.ndarray:
    """Elements of every block: float64, shape of the grid; unknown extents count as NaN."""
    out = np.ones((), float)
    for sizes in chunks:
        out = np.multiply.outer(out, np.asarray(sizes, float))
    return out


def check_block_bytes(chunks: Chunks, dtype: np.dtype) -> str:
    """Size of the largest block, for messages."""
    return format_bytes(float(np.nanmax(block_elements(chunks), initial=0.0)) * dtype.itemsize)


def overlaps(have: Sequence[int], start: int, step: int, want: Sequence[int]) -> list[tuple[tuple[int, slice, slice], ...]]:
    """For each wanted chunk, the pieces of existing chunks it is made of: (chunk, slice in it, slice in the result).

    The result's element `i` is the source's element `start + i * step`. Cost: the number of pieces.
    """
    begin = np.array([0, *itertools.accumulate(have)], np.int64)
    out, at = [], 0
    for n in want:
        pieces = []
        done = 0
        while done < n:
            pos = start + (at + done) * step
            k = int(np.searchsorted(begin, pos, side="right")) - 1
            lo, hi = int(begin[k]), int(begin[k + 1])
            count = (hi - 1 - pos) // step + 1 if step > 0 else (pos - lo) // -step + 1
            count = min(count, n - done)
            first, last = pos - lo, pos - lo + (count - 1) * step
            stop: int | None = last + (1 if step > 0 else -1)
            if stop is not None and stop < 0:
                stop = None
            pieces.append((k, slice(first, stop, step if step != 1 else None), slice(done, done + count)))
            done += count
        out.append(tuple(pieces))
        at += n
    return out
