"""Fused programs that end in reductions, on NumPy: one pass over memory, tile by tile.

Several reductions may end one program: each tile is made once and goes through all of them while it is in the cache.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nums_core.ops.program import Program, Reduction
from nums_core.runtime.devices import reducers, scratch
from nums_core.runtime.devices.fused import SMALL, Tiles, flattenable, loop_shape, place, runs_across

# Rows shorter than this are put side by side until they are about twice as long.
NARROW = 512
# Reduced last axes shorter than this are moved to the front of the tile.
SHORT = 32
# Partial states of a result are merged when there are so many.
PENDING = 16

Run = Callable[..., Any]


def compile_reductions(program: Program, reductions: Sequence[Reduction], finish: tuple[Any, ...] | None = None) -> Run:
    """`run(args, blocks, out=None)`: the partial state of the reduction; a tuple of states where there are several.

    With `finish` (the axes to drop, and the dtype) the only reduction is finished at once.
    """
    work = _Work(program, reductions)
    last = reducers.finisher(work.reducers[0], *finish) if finish is not None else None
    plain = all(m == tuple(range(program.ndim)) for m in program.maps)

    zero = (0,) * program.ndim
    one = plain and len(reductions) == 1 and last is None and program.n_inputs == 1
    small, only = work.tiles.direct if one else None, work.reducers[0]

    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> Any:
        if small is not None and args is None and 0 < blocks[0].size <= SMALL and blocks[0].ndim == program.ndim:
            return only.map(small(blocks, None), zero)
        views = blocks if plain and all(b.ndim == program.ndim for b in blocks) else [
            place(b, m) for b, m in zip(blocks, program.maps, strict=True)]
        shape, offsets = loop_shape(views, program.ndim), (0,) * program.ndim
        if args is not None:  # (offset, extent) a loop
            offsets = tuple(o for o, _ in args)
            shape = np.broadcast_shapes(shape, tuple(n for _, n in args))
        states = work.states(views, shape, offsets)
        if last is None:
            return states[0] if len(states) == 1 else tuple(states)
        block = last(states[0])
        if out is None:
            return block
        out[...] = block
        return out
    return run


class _Work:
    """The ways to take a block apart, from the cheapest to the most general."""

    def __init__(self, program: Program, reductions: Sequence[Reduction]) -> None:
        self.tiles = Tiles(program)
        self.bare = not program.instrs
        self.ndim = program.ndim
        self.reducers = [reducers.make(r.name, r.axes, dict(r.kw)) for r in reductions]
        self.tiled = all(r.tiled for r in self.reducers)
        self.flat = all(r.flat and len(r.axes) == program.ndim for r in self.reducers)
        self.tile_elems = self.tiles.tile_elems
        axes = {r.axes for r in self.reducers}
        self.leading = 0  # how many first axes all reductions take, if it is those and no others
        if len(axes) == 1 and all(r.flat for r in self.reducers) and 0 < len(self.reducers[0].axes) < program.ndim:
            (only,) = axes
            self.leading = len(only) if only == tuple(range(len(only))) else 0
        self.linear = [reducers.make(r.name, (0,), dict(r.kw)) for r in reductions] if self.flat or self.leading else []

    def states(self, views: list[np.ndarray], shape: tuple[int, ...], offsets: tuple[int, ...]) -> list[Any]:
        n = math.prod(shape)
        if n <= self.tile_elems or not self.tiled:
            return self.whole(views, shape, offsets)
        contiguous = flattenable(views, shape, n)
        if self.leading and contiguous and math.prod(shape[self.leading:]) < NARROW:
            return self.narrow(views, shape)
        if self.direct(views[0], self.reducers):
            return self.whole(views, shape, offsets)
        if self.flat and contiguous:
            return self.one_axis(views, n)
        return self.boxes(views, shape, offsets, self.reducers)

    def direct(self, x: np.ndarray, using: list[reducers.Reducer]) -> bool:
        """Whether the block needs no tiles: nothing is computed before the reduction, and it reads its operand once."""
        return self.bare and len(using) == 1 and using[0].direct(x) and not _short(x.shape, using)

    def whole(self, views: list[np.ndarray], shape: tuple[int, ...], offsets: tuple[int, ...]) -> list[Any]:
        value = _full(views[0] if self.bare and views else self.tiles.run(views, shape, False, None), shape)
        return [r.map(value, offsets) for r in self.reducers]

    def one_axis(self, views: list[np.ndarray], n: int) -> list[Any]:
        """All axes reduced, contiguous operands: tiles are runs of one long axis."""
        flat, step = [v.reshape(-1) for v in views], self.tile_elems
        pending: list[list[Any]] = [[] for _ in self.reducers]
        for i in range(0, n, step):
            m = min(i + step, n) - i
            cut = [v[i:i + m] if v.size > 1 else v for v in flat]
            value = cut[0] if self.bare else self.tiles.run_flat(cut, m, None)
            value = _full(value, (m,))
            for r, states in zip(self.linear, pending, strict=True):
                _add(r, states, r.map(value, (0,)))
        return [_reshape(r.merge(states), (1,) * self.ndim) for r, states in zip(self.linear, pending, strict=True)]

    def narrow(self, views: list[np.ndarray], shape: tuple[int, ...]) -> list[Any]:
        """Leading axes reduced, short contiguous rows: `fold` rows side by side are one row of as many results, which
        are put together at the end."""
        columns = math.prod(shape[self.leading:])
        rows = math.prod(shape[:self.leading])
        fold = max(1, min(2 * NARROW // max(columns, 1), rows))
        wide = rows // fold
        split = wide * fold * columns
        flat = [v.reshape(-1) for v in views]
        head = [v[:split].reshape(wide, -1) if v.size > 1 else v.reshape(1, 1) for v in flat]
        if self.direct(head[0], self.linear):
            states = [self.linear[0].map(head[0], (0, 0))]
        else:
            states = self.boxes(head, (wide, fold * columns), (0, 0), self.linear)
        states = [r.collapse(_unfold(s, fold, columns, wide)) for r, s in zip(self.linear, states, strict=True)]
        if rows > wide * fold:
            dims = (rows - wide * fold, columns)
            tail = [v[split:].reshape(dims) if v.size > 1 else v.reshape(1, 1) for v in flat]
            value = _full(tail[0] if self.bare else self.tiles.run(tail, dims, True, None), dims)
            states = [r.combine(s, r.map(value, (0, 0))) for r, s in zip(self.linear, states, strict=True)]
        return [_reshape(s, (1,) * self.leading + shape[self.leading:]) for s in states]

    def boxes(self, views: list[np.ndarray], shape: tuple[int, ...], offsets: tuple[int, ...],
              using: list[reducers.Reducer]) -> list[Any]:
        """Any reductions of any operands: tiles are boxes."""
        box = self.box(shape, views, using)
        grids = [_Parts(r, shape, box) for r in using]
        for at in itertools.product(*([slice(i, min(i + b, n)) for i in range(0, n, b)]
                                      for n, b in zip(shape, box, strict=True))):
            dims = tuple(s.stop - s.start for s in at)
            cut = [v[at] if v.shape == shape else v[_within(at, v.shape)] for v in views]
            value = _full(cut[0] if self.bare else self.tiles.run(cut, dims, using is not self.reducers, None), dims)
            value = _short_axis_first(value, using)
            begin = tuple(o + s.start for o, s in zip(offsets, at, strict=True))
            for parts in grids:
                parts.add(at, begin, value)
        return [parts.joined() for parts in grids]

    def box(self, shape: tuple[int, ...], views: list[np.ndarray], using: list[reducers.Reducer]) -> list[int]:
        """Extents of a tile: rows as long as they can be, but several of them where they are added to one another."""
        box, left = [1] * len(shape), self.tile_elems
        last = len(shape) - 1
        across = any(map(runs_across, views))
        for i in reversed(range(len(shape))):
            most = left
            if i == last and (across or any(last not in r.axes for r in using)):
                most = max(64, math.isqrt(left)) if across else max(NARROW, left // 16)
            box[i] = max(1, min(shape[i], most))
            left = max(1, left // box[i])
        return box


class _Parts:
    """The states of one reduction over the boxes of a block, by the box of results they belong to."""

    def __init__(self, reducer: reducers.Reducer, shape: tuple[int, ...], box: list[int]) -> None:
        self.reducer, self.shape, self.box = reducer, shape, box
        self.kept = [i for i in range(len(shape)) if i not in reducer.axes]
        self.pending: dict[tuple[int, ...], list[Any]] = {}

    def add(self, at: tuple[slice, ...], begin: tuple[int, ...], value: np.ndarray) -> None:
        states = self.pending.setdefault(tuple(at[i].start for i in self.kept), [])
        _add(self.reducer, states, self.reducer.map(value, begin))

    def joined(self) -> Any:
        """The states of all boxes side by side along the axes that are kept."""
        merged = {key: self.reducer.merge(states) for key, states in self.pending.items()}
        first = next(iter(merged.values()))
        if len(merged) == 1:
            return first
        if not isinstance(first, tuple):
            return self._side_by_side(merged)
        return tuple(self._side_by_side({key: state[k] for key, state in merged.items()})
                     if isinstance(field, np.ndarray) else field for k, field in enumerate(first))

    def _side_by_side(self, pieces: dict[tuple[int, ...], np.ndarray]) -> np.ndarray:
        dims = [n if i in self.kept else 1 for i, n in enumerate(self.shape)]
        out = np.empty(dims, next(iter(pieces.values())).dtype)
        for key, piece in pieces.items():
            at: list[slice] = [slice(None)] * len(dims)
            for start, i in zip(key, self.kept, strict=True):
                at[i] = slice(start, start + self.box[i])
            out[tuple(at)] = piece
        return out


def _within(at: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """`at` for an operand that is broadcast along some axes."""
    return tuple(s if n > 1 else slice(None) for s, n in zip(at, shape, strict=True))


def _add(reducer: reducers.Reducer, states: list[Any], state: Any) -> None:
    states.append(state)
    if len(states) == PENDING:
        states[:] = [reducer.merge(states)]


def _full(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A value that is broadcast over some loops, at full extent."""
    return value if value.shape == shape else np.broadcast_to(value, shape)


def _short(shape: tuple[int, ...], using: list[reducers.Reducer]) -> bool:
    """Whether only the last axis is reduced and it is short: NumPy's inner loops would be, too."""
    return len(shape) > 1 and 1 < shape[-1] < SHORT and all(r.axes == (len(shape) - 1,) for r in using)


def _short_axis_first(value: np.ndarray, using: list[reducers.Reducer]) -> np.ndarray:
    """The tile with a short reduced last axis slowest in memory, so that loops run along the long ones."""
    if not _short(value.shape, using) or value.size < 4096:
        return value
    moved = scratch.empty("moved", (value.shape[-1], *value.shape[:-1]), value.dtype)
    moved = moved.transpose(*range(1, value.ndim), 0)
    np.copyto(moved, value)
    return moved


def _unfold(state: Any, fold: int, columns: int, rows: int) -> Any:
    """Results of a row of `fold` rows, as `fold` states one after the other."""
    def one(field: Any) -> np.ndarray:
        return field.reshape(fold, 1, columns) if isinstance(field, np.ndarray) else np.full(fold, rows)
    return tuple(map(one, state)) if isinstance(state, tuple) else one(state)


def _reshape(state: Any, shape: tuple[int, ...]) -> Any:
    if isinstance(state, tuple):
        return tuple(f.reshape(shape) if isinstance(f, np.ndarray) else f for f in state)
    return state.reshape(shape)


def _map(function: Callable[..., Any], kwargs: tuple[tuple[str, Any], ...]) -> Run:
    """The state that a function of whole blocks gives."""
    kw = dict(kwargs)
    return lambda args, blocks, out=None: function(*blocks, **kw)


KERNELS: dict[str, Callable[..., Run]] = {"map": _map}
