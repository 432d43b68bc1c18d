"""Reshaping in C order, any shape to any shape, whatever the chunks, with bounded blocks.

Axes are matched in groups of equal size: (a, b, c) -> (a, b * c) keeps `a` and merges the others. Within a group an
array is cut into *runs*: blocks that are contiguous stretches of the group, in order (extent 1 before some axis, any cut
along it, whole axes after it). Reshaping runs to runs of the same sizes only relabels blocks: each is a view.

    x -> gather into runs -> relabel to one flat axis a group -> gather into runs of the result -> relabel
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from nums_core import config
from nums_core.errors import ShapeError
from nums_core.expr.build import full, rechunk
from nums_core.expr.grid import Chunks, block_elements, known, uniform
from nums_core.expr.node import Expr, make


def blocks(x: Expr, shape: tuple[int, ...], chunks: Chunks, in_order: bool = True) -> Expr:
    """Every block of `x`, in C order of its grid, as the block of the result at the same place in C order.

    `in_order` says that the elements then stay in C order, because blocks are runs on both sides."""
    if chunks == x.chunks and shape == x.shape:
        return x
    return make("reshape.blocks", (x,), (in_order,), shape, x.dtype, chunks)


def resolve(size: int, shape: Sequence[int]) -> tuple[int, ...]:
    """`shape` with its -1 worked out, in NumPy's words where it cannot be."""
    shape = tuple(int(n) for n in shape)
    free = [i for i, n in enumerate(shape) if n < 0]
    text = ",".join("newaxis" if n < 0 else str(n) for n in shape) + ("," if len(shape) == 1 else "")
    wrong = f"cannot reshape array of size {size} into shape ({text}); the product of the extents must be {size}"
    if len(free) > 1:
        raise ShapeError("can only specify one unknown dimension; give all extents but one")
    if free:
        rest = math.prod(n for n in shape if n >= 0)
        if rest == 0 or size % rest:
            raise ShapeError(wrong)
        shape = tuple(size // rest if n < 0 else n for n in shape)
    if math.prod(shape) != size:
        raise ShapeError(wrong)
    return shape


def groups(a: Sequence[int], b: Sequence[int]) -> list[tuple[slice, slice]]:
    """The finest matching of consecutive axes of `a` to consecutive axes of `b` with equal products (no zeros)."""
    out: list[tuple[slice, slice]] = []
    i = j = 0
    while i < len(a) and j < len(b):
        i0, j0 = i, j
        p, q = a[i], b[j]
        i, j = i + 1, j + 1
        while p != q:
            if p < q:
                p, i = p * a[i], i + 1
            else:
                q, j = q * b[j], j + 1
        out.append((slice(i0, i), slice(j0, j)))
    if i < len(a) or j < len(b):  # only ones are left
        out.append((slice(i, len(a)), slice(j, len(b))))
    return out


def reshape(x: Expr, shape: tuple[int, ...]) -> Expr:
    """`x` in another shape of the same size (already resolved). Moves data only where runs do not line up."""
    if shape == x.shape:
        return x
    if 0 in shape:
        return full(0, shape, x.dtype, tuple((n,) for n in shape))
    matched = groups(x.shape, shape)
    limits = _limits(x, matched)
    runs: list[tuple[int, ...]] = []
    flat: list[tuple[int, ...]] = []
    for (mine, _), limit in zip(matched, limits, strict=True):
        cut = run_chunks(x.shape[mine], x.chunks[mine], limit)
        runs.extend(cut)
        flat.append(flatten(cut))
    want = [_fitting(shape[theirs], f) for (_, theirs), f in zip(matched, flat, strict=True)]
    sizes = tuple(math.prod(shape[theirs]) for _, theirs in matched)
    out = tuple(itertools.chain.from_iterable(want))
    x = rechunk(x, tuple(runs))
    target = tuple(map(flatten, want))
    if target != tuple(flat):
        x = rechunk(blocks(x, sizes, tuple(flat)), target)
    return blocks(x, shape, out)


def flatten(chunks: Chunks) -> tuple[int, ...]:
    """Extents of the blocks of a run grid along the one axis it merges to."""
    return tuple(map(int, block_elements(chunks).reshape(-1)))


def usual_elements(x: Expr) -> int:
    """Elements of a block of `x` that is cut anew: as large as its largest block, or as small blocks are merged to."""
    largest = math.prod(max(c) for c in x.chunks) if known(x.chunks) else 0
    c = config.get()
    return max(largest, min(c.merge_bytes, c.block_bytes) // max(x.dtype.itemsize, 1), 1)


def _limits(x: Expr, matched: list[tuple[slice, slice]]) -> list[int]:
    """Most elements of a run of each group, so that a block stays about as large as blocks are."""
    kept = [max(x.chunks[a.start]) if _single(a) and _single(b) else 0 for a, b in matched]
    share = int((usual_elements(x) / math.prod(k for k in kept if k)) ** (1 / max(kept.count(0), 1)))
    return [k or max(share, 1) for k in kept]


def _single(axes: slice) -> bool:
    return axes.stop - axes.start == 1


def run_chunks(shape: Sequence[int], chunks: Chunks, limit: int) -> Chunks:
    """The given chunks where they are runs, else runs of at most `limit` elements, cut as they are where that fits."""
    if is_runs(shape, chunks):
        return chunks
    return _cut_runs(shape, limit, chunks)


def _cut_runs(shape: Sequence[int], limit: int, like: Chunks | None = None) -> Chunks:
    axis = next(j for j in range(len(shape)) if math.prod(shape[j + 1:]) <= limit or j == len(shape) - 1)
    inner = math.prod(shape[axis + 1:])
    along = like[axis] if like is not None else ()
    if not limit // 2 < max(along, default=0) * inner <= limit:
        along = uniform(shape[axis], max(1, limit // inner))
    return (*((1,) * n for n in shape[:axis]), along, *((n,) for n in shape[axis + 1:]))


def is_runs(shape: Sequence[int], chunks: Chunks) -> bool:
    """Whether blocks are contiguous stretches in C order: ones, then one axis cut at will, then whole axes."""
    cut = [i for i, c in enumerate(chunks) if len(c) > 1]
    if not cut:
        return True
    return all(all(c == 1 for c in chunks[i]) for i in range(cut[-1]))


def _fitting(shape: tuple[int, ...], flat: tuple[int, ...]) -> Chunks:
    """Run chunks of `shape` whose blocks have the sizes `flat`; where there are none, runs of about those sizes."""
    stops = np.cumsum(flat)
    for axis in range(len(shape)):
        inner = math.prod(shape[axis + 1:])
        period = inner * shape[axis]
        if (np.asarray(flat) % inner).any():
            continue
        if axis == 0:
            return (tuple(n // inner for n in flat), *((n,) for n in shape[1:]))
        ends = np.flatnonzero(stops % period == 0)
        lines = math.prod(shape[:axis])
        if len(ends) == lines and len(flat) % lines == 0:
            table = np.asarray(flat).reshape(lines, -1)
            if (table == table[0]).all() and table[0].sum() == period:
                return (*((1,) * n for n in shape[:axis]), tuple(int(n) // inner for n in table[0]),
                        *((n,) for n in shape[axis + 1:]))
    return _cut_runs(shape, max(flat)) if shape else ()


__all__ = ["blocks", "flatten", "groups", "is_runs", "reshape", "resolve", "run_chunks", "usual_elements"]
