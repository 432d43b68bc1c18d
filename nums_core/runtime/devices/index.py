"""Indexing kernels on NumPy: gathers, selections by mask, and assignment to copies of blocks.

`first` is the first of the axes that an index runs over. Places within a block are int64 vectors, one for each of those
axes; they are in range, so `take` runs in mode "clip", which checks nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nums_core.ops.program import Program
from nums_core.runtime.devices import fused, scratch
from nums_core.runtime.devices.numpy import Run, deliver

# Elements of a tile of a selection: long calls, and the indices found in it stay in the cache (see `fused.TILE_BYTES`).
TILE = 1 << 17
_BOOL = np.dtype(bool)


def _take(block: np.ndarray, local: tuple[np.ndarray, ...], first: int, out: np.ndarray | None = None) -> np.ndarray:
    """Points of one block; their axes become one."""
    if len(local) == 1 and (out is None or out.dtype == block.dtype):
        return block.take(local[0], axis=first, out=out, mode="clip")
    return deliver(block[(slice(None),) * first + local], out)


def _shape_of(args: Any, blocks: Sequence[np.ndarray], first: int, k: int, n: int) -> list[int]:
    """Extents of a result block from its arguments; what they leave open, a source block shows."""
    shape = [n if i == first else e for i, e in enumerate(args)]
    return [blocks[0].shape[i if i < first else i + k - 1] if e is None else e for i, e in enumerate(shape)]


def _points(first: int, k: int, dtype: np.dtype) -> Run:
    """Points of several blocks: `args[first]` has, for each, their places in it and in the result."""
    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        pieces = args[first]
        if len(pieces) == 1 and isinstance(pieces[0][1], slice):
            return _take(blocks[0], pieces[0][0], first, out)
        if out is None:
            n = sum(len(local[0]) for local, _ in pieces)
            out = np.empty(_shape_of(args, blocks, first, k, n), dtype)
        lead = (slice(None),) * first
        for block, (local, place) in zip(blocks, pieces, strict=True):
            target = out[(*lead, place)] if isinstance(place, slice) else None
            if target is not None and target.flags.c_contiguous:
                _take(block, local, first, target)
            else:
                out[(*lead, place)] = _take(block, local, first)
        return out
    return run


def _pick(first: int, k: int) -> Run:
    """Points of one block."""
    return lambda args, blocks, out=None: _take(blocks[0], args[1], first, out)


def _join(first: int, dtype: np.dtype) -> Run:
    """What `pick` took from several blocks, put in place."""
    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        places = args[first]
        if len(places) == 1 and isinstance(places[0], slice):
            return blocks[0] if out is None else deliver(blocks[0], out)
        if out is None:
            n = sum(b.shape[first] for b in blocks)
            out = np.empty(_shape_of(args, blocks, first, 1, n), dtype)
        for block, place in zip(blocks, places, strict=True):
            out[_at(first, place)] = block
        return out
    return run


# -- places that are computed -----------------------------------------------------------------------------------------

def _checked(where: list[np.ndarray], sizes: tuple[int, ...], first: int) -> list[np.ndarray]:
    """Places as flat int64 vectors from 0, or NumPy's IndexError."""
    out = []
    for axis, (w, n) in enumerate(zip(where, sizes, strict=True), first):
        flat = np.asarray(w).reshape(-1).astype(np.int64, copy=False)
        bad = (flat < -n) | (flat >= n)
        if bad.any():
            raise IndexError(f"index {int(flat[bad.argmax()])} is out of bounds for axis {axis} with size {n}")
        out.append(np.where(flat < 0, flat + n, flat))
    return out


def _by_owner(places: list[np.ndarray], begins: tuple[tuple[int, ...], ...]) -> list[tuple[int, Any, Any]]:
    """(owner, its elements among the points, their places in it), for every owner of any."""
    owner: Any = 0
    local = []
    for p, b in zip(places, begins, strict=True):
        block = np.searchsorted(b, p, side="right") - 1
        owner = owner * len(b) + block
        local.append(p - np.asarray(b)[block])
    order = np.argsort(owner, kind="stable")
    found = owner[order]
    edges = np.flatnonzero(np.diff(found, prepend=-1, append=-2)).tolist()
    return [(int(found[a]), order[a:b], tuple(v[order[a:b]] for v in local))
            for a, b in itertools.pairwise(edges)]


def _points_at(first: int, sizes: tuple[int, ...], begins: tuple[tuple[int, ...], ...]) -> Run:
    """Points of all blocks of some axes, at computed places: operands are those places, then the blocks."""
    k = len(sizes)

    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        where, sources = blocks[:k], blocks[k:]
        places = _checked(where, sizes, first)
        shape = (*sources[0].shape[:first], *np.shape(where[0]), *sources[0].shape[first + k:])
        if len(sources) == 1:
            return deliver(_take(sources[0], tuple(places), first).reshape(shape), out)
        made = np.empty((*shape[:first], len(places[0]), *sources[0].shape[first + k:]), sources[0].dtype)
        for owner, which, local in _by_owner(places, begins):
            made[_at(first, which)] = _take(sources[owner], local, first)
        return deliver(made.reshape(shape), out)
    return run


def _inside(places: list[np.ndarray], box: tuple[tuple[int, int], ...]) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Which points lie in a block given by (offset, extent) of its axes, and where in it."""
    inside = np.ones(len(places[0]), bool)
    for p, (offset, n) in zip(places, box, strict=True):
        inside &= (p >= offset) & (p < offset + n)
    which = inside.nonzero()[0]
    return which, tuple(p[which] - offset for p, (offset, _) in zip(places, box, strict=True))


def _pick_at(first: int, sizes: tuple[int, ...]) -> Run:
    """Of one block, the points that lie in it, with their numbers among all points."""
    k = len(sizes)

    def run(args: Any, blocks: list[np.ndarray], out: Any = None) -> Any:
        which, local = _inside(_checked(blocks[:k], sizes, first), args[2])
        return which, _take(blocks[k], local, first)
    return run


def _join_at(first: int, width: int) -> Run:
    """What `pick_at` took from all blocks, put in place; the first operand is the index, for its shape."""
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        index, parts = blocks[0], blocks[1:]
        rest = parts[0][1].shape
        made = np.empty((*rest[:first], index.size, *rest[first + 1:]), parts[0][1].dtype)
        for which, values in parts:
            made[_at(first, which)] = values
        return deliver(made.reshape(*rest[:first], *index.shape, *rest[first + 1:]), out)
    return run


# -- masks ------------------------------------------------------------------------------------------------------------

def _select(first: int, width: int, program: Program | None) -> Run:
    """Elements of the first operand where a mask is true: the second one, or what `program` makes of the others."""
    tiles = None if program is None else fused.Tiles(program)
    whole_mask = None if program is None else fused.compile_program(program)

    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        data, *rest = blocks
        shape = data.shape[first:first + width]
        straight = first == 0 and width == data.ndim and data.flags.c_contiguous
        if tiles is None or whole_mask is None or program is None:
            (mask,) = rest
            if straight and mask.flags.c_contiguous:
                flat = mask.reshape(-1)
                return _compress(data.reshape(-1), lambda a, b: flat[a:b], out)
        else:
            views = [fused.place(b, m) for b, m in zip(rest, program.maps, strict=True)]
            if straight and fused.flattenable(views, shape, data.size):
                return _compress(data.reshape(-1), _masker(tiles, [v.reshape(-1) for v in views]), out,
                                 min(TILE, tiles.tile_elems))
            mask = whole_mask(shape, rest, np.empty(shape, bool))
        lines = data.reshape(*data.shape[:first], -1, *data.shape[first + width:]) if width > 1 else data
        return deliver(lines.take(mask.reshape(-1).nonzero()[0], axis=first, mode="clip"), out)
    return run


def _masker(tiles: fused.Tiles, flat: list[np.ndarray]) -> Callable[[int, int], np.ndarray]:
    """The mask of a stretch of elements, in scratch memory."""
    def mask(a: int, b: int) -> np.ndarray:
        target = scratch.empty("mask", (b - a,), _BOOL)
        return tiles.run_flat([v[a:b] if v.size > 1 else v for v in flat], b - a, target)
    return mask


def _compress(data: np.ndarray, mask: Callable[[int, int], np.ndarray], out: np.ndarray | None,
              step: int = TILE) -> np.ndarray:
    """Tile by tile: the mask, the places where it is true, and a take: one pass over memory, and three times as fast
    as indexing by a mask, which branches at every element."""
    n = len(data)
    made = np.empty(n, data.dtype) if out is None else out
    end = 0
    for a in range(0, n, step):
        b = min(a + step, n)
        chosen = mask(a, b)
        count = int(np.count_nonzero(chosen))
        if count == b - a:
            made[end:end + count] = data[a:b]
        elif count:
            data[a:b].take(chosen.nonzero()[0], out=made[end:end + count], mode="clip")
        end += count
    if out is None:
        made.resize(end, refcheck=False)  # in place: gives the rest of the memory back
    return made


def _nonzero() -> Run:
    """The tuple of the places of true elements along each axis; `args` is where the block begins."""
    def run(args: tuple[int, ...], blocks: list[np.ndarray], out: Any = None) -> tuple[np.ndarray, ...]:
        return tuple(place + begin if begin else place for place, begin in zip(blocks[0].nonzero(), args, strict=True))
    return run


def _diagonal() -> Run:
    """A stretch of the diagonal of each matrix in the last two axes."""
    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        row, column, n = args[-1]
        line = blocks[0][..., row:row + n, column:column + n].diagonal(0, -2, -1)
        return line.copy() if out is None else deliver(line, out)
    return run


def _triangle(n: int, k: int, m: int, lower: bool, column: bool) -> Run:
    """Row or column indices of a triangle of an (n, m) matrix: made from nothing but their position."""
    rows = np.arange(n, dtype=np.int64)
    first = np.zeros(n, np.int64) if lower else np.clip(rows + k, 0, m)
    counts = np.clip(rows + k + 1, 0, m) if lower else m - first
    ends = np.cumsum(counts)

    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        (offset, size), = args
        place = np.arange(offset, offset + size)
        row = np.searchsorted(ends, place, side="right")
        return deliver(place - (ends - counts - first)[row] if column else row, out)
    return run


# -- assignment -------------------------------------------------------------------------------------------------------

def _at(first: int, *index: Any) -> tuple[Any, ...]:
    """`index` on the axes from `first` on."""
    return (*(slice(None),) * first, *index)


def _copied(block: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    return block.copy() if out is None else deliver(block, out)


def _put() -> Run:
    """A copy of the first block with the second one in the place `args`, any index."""
    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        made = _copied(blocks[0], out)
        made[args] = blocks[1]
        return made
    return run


def _put_at(first: int, sizes: tuple[int, ...]) -> Run:
    """A copy of the first block with those of the second one's elements that belong into it, at computed places."""
    k = len(sizes)

    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        block, values, *where = blocks
        which, local = _inside(_checked(where, sizes, first), args[1])
        if not len(which):
            return deliver(block, out)
        made = _copied(block, out)
        flat = values.reshape(*values.shape[:first], -1, *values.shape[first + values.ndim - block.ndim + k:])
        made[_at(first, *local)] = flat.take(which, axis=first)
        return made
    return run


def _put_mask(first: int) -> Run:
    """A copy of the first block with the third one's elements where the second one is true."""
    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        made = _copied(blocks[0], out)
        made[_at(first, blocks[1])] = blocks[2]
        return made
    return run


KERNELS: dict[str, Callable[..., Run]] = {
    "points": _points,
    "pick": _pick,
    "join": _join,
    "points_at": _points_at,
    "pick_at": _pick_at,
    "join_at": _join_at,
    "select": _select,
    "nonzero": _nonzero,
    "diagonal": _diagonal,
    "triangle": _triangle,
    "put": _put,
    "put_at": _put_at,
    "put_mask": _put_mask,
}
