"""Lowering of blocks with halos: each task reads its own block and slices of its neighbours, however many they are.

    halo(x)         one task a block: the block with its surroundings
    map(f, x, ..)   one task a block: surroundings, the user's function, and the surroundings cut off again
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nums_core.expr.grid import block_elements
from nums_core.expr.lower import Lowering, piece_ids, unknown_flop
from nums_core.expr.node import Expr
from nums_core.expr.opaque import value_of
from nums_core.ops.taskgraph import AxisArgs, Kernel


class Window(NamedTuple):
    """What blocks see along one axis.

    Attributes
    ----------
    centres : tuple of int
        Extents of the stretches that the blocks are responsible for, from 0 on.
    before, after : int
        How much further they see.
    kind : "none", "constant", "nearest", "reflect" or "periodic"
        What lies outside the array; with "none" blocks at the ends see less.
    """

    centres: tuple[int, ...]
    before: int
    after: int
    kind: str


def extents(window: Window, n: int) -> tuple[int, ...]:
    """How much each block sees, of an axis of `n` elements."""
    ends = list(itertools.accumulate(window.centres))
    if window.kind != "none":
        return tuple(c + window.before + window.after for c in window.centres)
    return tuple(min(e + window.after, n) - max(e - c - window.before, 0)
                 for e, c in zip(ends, window.centres, strict=True))


def pieces(have: Sequence[int], window: Window) -> list[tuple[tuple[int, slice, slice], ...]]:
    """For each block, what it sees as pieces: (chunk, slice in it, slice in the result). A slice of one element may stand
    for a longer stretch. Stretches that no piece covers are constant."""
    begin = np.array([0, *itertools.accumulate(have)], np.int64)
    n = int(begin[-1])
    out, at = [], 0
    for c in window.centres:
        first, last = at - window.before, at + c + window.after
        low, high = max(-first, 0), max(last - n, 0)
        shift = 0 if window.kind == "none" else low
        row = _run(begin, max(first, 0), min(last, n) - max(first, 0), 1, shift)
        row = _outside(begin, window.kind, low, 0, True) + row + _outside(
            begin, window.kind, high, shift + min(last, n) - max(first, 0), False)
        out.append(tuple(row))
        at += c
    return out


def _outside(begin: np.ndarray, kind: str, count: int, at: int, left: bool) -> list[tuple[int, slice, slice]]:
    """Pieces for `count` elements beyond one end of the array."""
    n = int(begin[-1])
    if not count or kind in ("none", "constant"):
        return []
    if kind == "periodic":
        return _run(begin, n - count if left else 0, count, 1, at)
    if kind == "reflect":
        return _run(begin, count - 1 if left else n - 1, count, -1, at)
    (chunk, where, _), = _run(begin, 0 if left else n - 1, 1, 1, 0)
    return [(chunk, where, slice(at, at + count))]


def _run(begin: np.ndarray, start: int, count: int, step: int, at: int) -> list[tuple[int, slice, slice]]:
    """`count` elements from `start`, forwards or backwards, as pieces of chunks that begin at `begin`."""
    out = []
    while count > 0:
        k = int(np.searchsorted(begin, start, side="right")) - 1
        low, high = int(begin[k]), int(begin[k + 1])
        take = min(count, high - start if step > 0 else start - low + 1)
        first = start - low
        stop: int | None = first + take * step
        out.append((k, slice(first, None if stop is not None and stop < 0 else stop, step), slice(at, at + take)))
        start, count, at = start + take * step, count - take, at + take
    return out


def _lower(low: Lowering, node: Expr) -> np.ndarray:
    function, kwargs, per_arg, values, trims = node.params
    function = value_of(function)
    flats, counts, entries = [], [], []
    for x, windows in zip(node.args, per_arg, strict=True):
        found = [pieces(c, w) for c, w in zip(x.chunks, windows, strict=True)]
        flat, count = piece_ids(low.of(x), found)
        flats.append(flat)
        counts.append(count)
        entries.append([list(zip(extents(w, n), p, _pads(w, n), strict=True))
                        for w, n, p in zip(windows, x.shape, found, strict=True)])
    per_axis: list[Any] = [tuple((tuple(e[axis][i] for e in entries), trims[axis][i] if trims else None)
                                 for i in range(node.grid[axis])) for axis in range(node.args[0].ndim)]
    per_axis += [((),)] * (node.ndim - len(per_axis))  # axes that the function adds are in one block
    elements = block_elements(node.chunks).reshape(-1)
    plain = tuple((name, value_of(v)) for name, v in kwargs)
    kernel = Kernel("overlap.map", (function, plain, values, tuple(x.dtype for x in node.args), node.dtype))
    name = "halo" if function is None else getattr(function, "__name__", "map_overlap")
    return low.add(node, kernel, node.grid, _interleaved(flats, counts), counts=np.sum(counts, axis=0), elements=elements,
                   flop=elements * 0.0 if function is None else unknown_flop(elements), args=AxisArgs(tuple(per_axis)),
                   label=name)


def _pads(window: Window, n: int) -> list[tuple[int, int]]:
    """For each block, how many constant elements lie before and after it."""
    if window.kind != "constant":
        return [(0, 0)] * len(window.centres)
    ends = itertools.accumulate(window.centres)
    return [(max(window.before + c - e, 0), max(e + window.after - n, 0))
            for e, c in zip(ends, window.centres, strict=True)]


def _interleaved(flats: list[np.ndarray], counts: list[np.ndarray]) -> np.ndarray:
    """Ids of several operands, task by task."""
    if len(flats) == 1:
        return flats[0]
    task = np.concatenate([np.repeat(np.arange(len(c)), c) for c in counts])
    return np.concatenate(flats)[np.argsort(task, kind="stable")]


LOWER: dict[str, Callable[[Lowering, Expr], np.ndarray]] = {"map": _lower}
