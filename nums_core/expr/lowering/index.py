"""Lowering of indexing: one gather for each (result block, owning block), whatever the index.

Ids of an operand are seen as lines of shape (before, owners, after): the grid axes before the indexed ones, those
themselves in C order, and the rest.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from nums_core.expr.grid import block_elements, offsets
from nums_core.expr.index import owners
from nums_core.expr.lower import Lowering, Rule, operand_ids, piece_ids, position_args
from nums_core.expr.node import Expr
from nums_core.ops.taskgraph import AxisArgs, Kernel, ListArgs

# Where a task would read more than so many blocks, or all of them together so many times what there is, elements are
# picked where they lie before they are joined.
MANY_OWNERS = 16
AMPLIFICATION = 4.0


def _lines(ids: np.ndarray, first: int, k: int) -> np.ndarray:
    s = ids.shape
    return ids.reshape(math.prod(s[:first]), math.prod(s[first:first + k]), math.prod(s[first + k:]))


class Pieces(NamedTuple):
    """What each result block takes from each owner: parallel lists, those of one result block together."""

    owner: np.ndarray
    local: list[tuple[np.ndarray, ...]]
    place: list[slice | np.ndarray]
    ranges: list[tuple[int, int]]  # of pieces, a result block


def _pieces(node: Expr, x: Expr, first: int, locs: np.ndarray) -> Pieces:
    cut = np.array(node.chunks[first], np.int64)
    owner, local = owners(x.chunks[first:first + len(locs)], list(locs))
    block = np.repeat(np.arange(len(cut)), cut)
    code = block * math.prod(x.grid[first:first + len(locs)]) + owner
    sorted_already = bool((np.diff(code) >= 0).all())
    order = None if sorted_already else np.argsort(code, kind="stable")
    code = code if order is None else code[order]
    edges = np.flatnonzero(np.diff(code, prepend=-1, append=-2))
    begins = np.cumsum(cut) - cut
    places: list[slice | np.ndarray] = []
    locals_: list[tuple[np.ndarray, ...]] = []
    heads = edges[:-1] if order is None else order[edges[:-1]]
    base = begins[block[heads]]
    for (a, b), at in zip(itertools.pairwise(edges.tolist()), base.tolist(), strict=True):
        which = slice(a, b) if order is None else order[a:b]
        locals_.append(tuple(v[which] for v in local))
        places.append(slice(a - at, b - at) if order is None else which - at)
    ends = np.cumsum(np.bincount(block[heads], minlength=len(cut))).tolist()
    return Pieces(owner[heads], locals_, places, list(itertools.pairwise([0, *ends])))


def _per_block(lines: np.ndarray, pick: np.ndarray, ranges: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Operands of every result block, flat, with their counts: of each line, what `pick` names for that block."""
    n_before, _, n_after = lines.shape
    owned = pick.tolist()
    return piece_ids(lines, [[[(i,)] for i in range(n_before)], [[(o,) for o in owned[a:b]] for a, b in ranges],
                             [[(i,)] for i in range(n_after)]])


def _extents(node: Expr, first: int, pieces: list[Any], width: int = 1) -> AxisArgs:
    """Arguments of a result block: its extents, and its pieces in place of the indexed axis."""
    sizes = [tuple(int(n) if n == n else None for n in c) for c in node.chunks]
    return AxisArgs((*sizes[:first], tuple(pieces), *sizes[first + width:]))


def _points(low: Lowering, node: Expr) -> np.ndarray:
    (x,), (first, frozen) = node.args, node.params
    k = len(frozen.array)
    lines = _lines(low.of(x), first, k)
    p = _pieces(node, x, first, frozen.array)
    read = float(np.nansum(block_elements(x.chunks))) / max(lines.shape[1], 1) * len(p.owner)
    made = float(np.nansum(block_elements(node.chunks)))
    in_memory = x.op == "leaf" and x.params[0].kind == "array"
    many = max((b - a for a, b in p.ranges), default=0) > MANY_OWNERS
    if not in_memory and (many or read > AMPLIFICATION * (made + float(np.nansum(block_elements(x.chunks))))):
        return _join_picked(low, node, first, k, lines, p)
    args = _extents(node, first, [tuple(zip(p.local[a:b], p.place[a:b], strict=True)) for a, b in p.ranges])
    inputs, counts = _per_block(lines, p.owner, p.ranges)
    return low.add(node, Kernel("index.points", (first, k, node.dtype)), node.grid, inputs, counts=counts, args=args,
                   label="take")


def _join_picked(low: Lowering, node: Expr, first: int, k: int, lines: np.ndarray, p: Pieces) -> np.ndarray:
    """Two steps: each owner's elements are picked where they lie, in the owners' order, and then joined. An operand
    block may go once its picks are done, and only what is wanted of it moves."""
    n_before, _, n_after = lines.shape
    order = np.argsort(p.owner, kind="stable")
    sizes = np.array([len(v[0]) for v in p.local], float)
    rest = block_elements((*node.chunks[:first], (1,), *node.chunks[first + 1:])).reshape(n_before, 1, n_after)
    elements = (rest * sizes[order][None, :, None]).reshape(-1)
    args = AxisArgs(((None,) * n_before, tuple(p.local[i] for i in order), (None,) * n_after))
    picked = low.add(node, Kernel("index.pick", (first, k)), (n_before, len(order), n_after),
                     lines[:, p.owner[order], :].reshape(-1, 1), elements=elements, args=args, label="take.pick")
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    inputs, counts = _per_block(picked, back, p.ranges)
    return low.add(node, Kernel("index.join", (first, node.dtype)), node.grid, inputs, counts=counts,
                   args=_extents(node, first, [tuple(p.place[a:b]) for a, b in p.ranges]), label="take.join")


def _points_at(low: Lowering, node: Expr) -> np.ndarray:
    x, *where = node.args
    (first,) = node.params
    k, width = len(where), where[0].ndim
    begins = tuple(tuple(offsets(c)) for c in x.chunks[first:first + k])
    sizes = tuple(x.shape[first:first + k])
    lines = _lines(low.of(x), first, k)
    n_before, n_owners, n_after = lines.shape
    index_ids = np.stack([low.of(w).reshape(-1) for w in where], axis=1)
    grid = (n_before, len(index_ids), n_after)
    at = np.broadcast_to(index_ids[None, :, None, :], (*grid, k)).reshape(-1, k)
    in_memory = x.op == "leaf" and x.params[0].kind == "array"
    if in_memory or n_owners == 1:
        sources = np.broadcast_to(lines.transpose(0, 2, 1)[:, None], (*grid, n_owners)).reshape(-1, n_owners)
        return low.add(node, Kernel("index.points_at", (first, sizes, begins)), node.grid,
                       np.concatenate([at, sources], axis=1), label="take")
    wide = (n_before, len(index_ids), n_owners, n_after)
    at = np.broadcast_to(index_ids[None, :, None, None, :], (*wide, k)).reshape(-1, k)
    sources = np.broadcast_to(lines[:, None], wide).reshape(-1, 1)
    boxes = list(itertools.product(*[zip(offsets(c), map(int, c), strict=True) for c in x.chunks[first:first + k]]))
    elements = np.repeat(block_elements(node.chunks).reshape(grid)[:, :, None] / n_owners, n_owners, axis=2)
    args = AxisArgs(((None,) * n_before, (None,) * len(index_ids), tuple(boxes), (None,) * n_after))
    picked = low.add(node, Kernel("index.pick_at", (first, sizes)), wide, np.concatenate([at, sources], axis=1),
                     elements=elements.reshape(-1), args=args, label="take.pick")
    parts = picked.transpose(0, 1, 3, 2).reshape(-1, n_owners)
    at = np.broadcast_to(index_ids[None, :, None, :1], (*grid, 1)).reshape(-1, 1)
    return low.add(node, Kernel("index.join_at", (first, width)), node.grid, np.concatenate([at, parts], axis=1),
                   label="take.join")


def _select(low: Lowering, node: Expr) -> np.ndarray:
    x, *rest = node.args
    first, program, mask_chunks = node.params
    lines = low.of(x)
    if program is None:
        mask_ids, width = low.of(rest[0])[..., None], rest[0].ndim
    else:
        grid = tuple(map(len, mask_chunks))
        mask_ids, width = operand_ids(low, rest, program, grid).reshape(*grid, -1), len(grid)
    mask_ids = mask_ids[(None,) * first + (slice(None),) * width + (None,) * (x.ndim - first - width)]
    columns = np.broadcast_to(mask_ids, (*lines.shape, mask_ids.shape[-1])).reshape(-1, mask_ids.shape[-1])
    elements = block_elements(x.chunks).reshape(-1)  # what there can be at most
    return low.add(node, Kernel("index.select", (first, width, program)), node.grid,
                   np.concatenate([lines.reshape(-1, 1), columns], axis=1), out_bytes=elements * node.dtype.itemsize,
                   flop=2 * elements, label="select")


def _nonzero(low: Lowering, node: Expr) -> np.ndarray:
    (x,) = node.args
    elements = block_elements(x.chunks).reshape(-1)
    return low.add(node, Kernel("index.nonzero"), node.grid, low.of(x).reshape(-1, 1), args=ListArgs(tuple(
        tuple(o for o, _ in at) for at in position_args(x.chunks))), out_bytes=elements * 8.0 * x.ndim, label="nonzero")


def _diagonal(low: Lowering, node: Expr) -> np.ndarray:
    (x,), starts, cut = node.args, node.params, node.chunks[-1]
    at, local = [], []
    for sizes, first in zip(x.chunks[-2:], starts, strict=True):
        places = first + np.array(offsets(cut), np.int64)
        block = np.searchsorted(np.cumsum(sizes), places, side="right")
        at.append(block)
        local.append(places - np.array(offsets(sizes), np.int64)[block])
    pieces = tuple(zip(local[0].tolist(), local[1].tolist(), map(int, cut), strict=True))
    args = AxisArgs((*((None,) * n for n in node.grid[:-1]), pieces))
    ids = low.of(x)[..., at[0], at[1]]
    return low.add(node, Kernel("index.diagonal"), node.grid, ids.reshape(-1, 1), args=args, label="diagonal")


# -- assignment -------------------------------------------------------------------------------------------------------

def _hits(sizes: tuple[int, ...], start: int, step: int, n: int) -> list[tuple[int, slice, bool]]:
    """For each chunk that the slice reaches: its number, the slice in it, and whether that is all of it."""
    out = []
    for b, (begin, size) in enumerate(zip(offsets(sizes), sizes, strict=True)):
        i = min(max(-(-(begin - start) // step), 0), n)
        j = min(max(-(-(begin + size - start) // step), 0), n)
        if j > i:
            at = start + i * step - begin
            out.append((b, slice(at, start + (j - 1) * step - begin + 1, step), j - i == size))
    return out


def _put_region(low: Lowering, node: Expr) -> np.ndarray:
    x, value = node.args
    start, step = node.params
    hits = [_hits(*h) for h in zip(x.chunks, start, step, value.shape, strict=True)]
    ids, values = low.of(x).copy(), low.of(value).reshape(tuple(map(len, hits)))
    reached = np.ix_(*[[b for b, _, _ in h] for h in hits]) if hits else ()
    whole = np.ones((), bool)
    for h in hits:
        whole = np.logical_and.outer(whole, [full for _, _, full in h])
    before, made = ids[reached], np.array(values)
    part = np.flatnonzero(~whole)
    if len(part):
        slices = list(itertools.product(*[[s for _, s, _ in h] for h in hits]))
        elements = block_elements(node.chunks)[reached].reshape(-1)[part]
        made.reshape(-1)[part] = low.add(
            node, Kernel("index.put"), (len(part),), np.stack([before.reshape(-1)[part], values.reshape(-1)[part]], 1),
            elements=elements, args=ListArgs(tuple(slices[i] for i in part.tolist())), label="assign")
    ids[reached] = made
    return ids


def _put_points(low: Lowering, node: Expr) -> np.ndarray:
    x, value = node.args
    first, frozen = node.params
    k = len(frozen.array)
    owner, local = owners(x.chunks[first:first + k], list(frozen.array))
    ids = low.of(x).copy()
    lines, values = _lines(ids, first, k), _lines(low.of(value), first, 1)
    edges = np.flatnonzero(np.diff(owner, prepend=-1, append=-2))
    reached = owner[edges[:-1]]
    args = [(slice(None),) * first + tuple(v[a:b] for v in local) for a, b in itertools.pairwise(edges.tolist())]
    n_before, _, n_after = lines.shape
    elements = _lines(block_elements(x.chunks), first, k)[:, reached].reshape(-1)
    made = low.add(node, Kernel("index.put"), (n_before, len(reached), n_after),
                   np.stack([lines[:, reached].reshape(-1), values.reshape(-1)], axis=1), elements=elements,
                   args=ListArgs(tuple(a for _ in range(n_before) for a in args for _ in range(n_after))),
                   label="assign")
    lines = lines.copy()
    lines[:, reached] = made
    return lines.reshape(node.grid)


def _put_points_at(low: Lowering, node: Expr) -> np.ndarray:
    """One family a block of the index, in order, so that the last of equal places wins; memory stays bounded."""
    x, value, *where = node.args
    (first,) = node.params
    k, width = len(where), where[0].ndim
    ids = _lines(low.of(x), first, k)
    values = _lines(low.of(value), first, width)
    index_ids = np.stack([low.of(w).reshape(-1) for w in where], axis=1)
    sizes = tuple(x.shape[first:first + k])
    boxes = tuple(itertools.product(*[zip(offsets(c), map(int, c), strict=True) for c in x.chunks[first:first + k]]))
    args = AxisArgs(((None,) * ids.shape[0], boxes, (None,) * ids.shape[2]))
    for j, at in enumerate(index_ids):
        columns = [ids.reshape(-1), np.broadcast_to(values[:, j:j + 1], ids.shape).reshape(-1)]
        columns += [np.full(ids.size, i) for i in at]
        ids = low.add(node, Kernel("index.put_at", (first, sizes)), ids.shape, np.stack(columns, axis=1),
                      elements=block_elements(x.chunks).reshape(-1), args=args, label="assign")
    return ids.reshape(node.grid)


def _put_mask(low: Lowering, node: Expr) -> np.ndarray:
    x, mask, value = node.args
    (first,) = node.params
    ids, width = low.of(x), mask.ndim
    masks = low.of(mask)[(None,) * first + (slice(None),) * width + (None,) * (x.ndim - first - width)]
    columns = [ids.reshape(-1), np.broadcast_to(masks, ids.shape).reshape(-1), low.of(value).reshape(-1)]
    return low.add(node, Kernel("index.put_mask", (first,)), node.grid, np.stack(columns, axis=1), label="assign")


LOWER: dict[str, Rule] = {
    "points": _points,
    "points_at": _points_at,
    "select": _select,
    "nonzero": _nonzero,
    "diagonal": _diagonal,
    "put_region": _put_region,
    "put_points": _put_points,
    "put_points_at": _put_points_at,
    "put_mask": _put_mask,
}
