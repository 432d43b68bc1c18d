"""Fused programs on NumPy: a loop over tiles that stay in the cache, so that a chain of ufuncs reads memory once.

`compile_program` turns a Program into `run(args, blocks, out=None)`. Each tile goes through all instructions in scratch
buffers of the running thread; the last one writes into the result. Buffers are shared between values whose lives do
not overlap (linear scan), and an elementwise instruction may overwrite an operand that dies there.
"""

from __future__ import annotations

import itertools
import math
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nums_core.ops.elementwise import UFUNCS
from nums_core.ops.program import Program
from nums_core.runtime.devices import scratch
from nums_core.runtime.devices.elementwise import CALLS, UNSTRIDED

# Working set of one tile over all its buffers. It fits a share of the last cache, not the L2: a tile's calls must be long
# beside the 50 us that handing the interpreter to a sleeping thread can take (256 KiB made two threads slower than one).
TILE_BYTES = 4 * 2**20
STRIP = 256  # elements of a row of a tile that some operand is read across
_scratch = threading.local()


def _registers(program: Program) -> list[int]:
    """A scratch register for every instruction (-1: the result). A dying operand's register may be reused at once,
    but only for a value of the same width and the same axes, which keeps overwriting in place legal."""
    first = program.n_inputs + len(program.consts)
    last_use: dict[int, int] = {}
    for k, instr in enumerate(program.instrs):
        for a in instr.args:
            last_use[a] = k
    masks = _axis_masks(program)
    free: dict[tuple[int, frozenset[int]], list[int]] = {}
    where: dict[int, int] = {}
    out, count = [], 0
    for k, instr in enumerate(program.instrs):
        kind = (np.dtype(instr.dtype).itemsize, masks[first + k])
        for a in set(instr.args):
            if a >= first and last_use[a] == k and where[a] >= 0:
                old = (np.dtype(program.instrs[a - first].dtype).itemsize, masks[a])
                free.setdefault(old, []).append(where[a])
        if k == len(program.instrs) - 1 and program.reduction is None:
            out.append(-1)
        elif free.get(kind):
            out.append(free[kind].pop())
        else:
            out.append(count)
            count += 1
        where[first + k] = out[-1]
    return out


def _axis_masks(program: Program) -> list[frozenset[int]]:
    """For each value, the loops it really varies along."""
    masks = [frozenset(l for l, a in enumerate(m) if a is not None) for m in program.maps]  # noqa: E741
    masks += [frozenset()] * len(program.consts)
    for instr in program.instrs:
        masks.append(frozenset().union(*(masks[a] for a in instr.args)))
    return masks


def place(block: np.ndarray, amap: tuple[int | None, ...]) -> np.ndarray:
    """A view of `block` with one axis a loop; axes no loop runs along have extent 1 and go."""
    axes = [a for a in amap if a is not None]
    if len(axes) < block.ndim:
        block = block[tuple(slice(None) if a in axes else 0 for a in range(block.ndim))]
        axes = [sorted(axes).index(a) for a in axes]
    if axes != list(range(len(axes))):
        block = block.transpose(axes)
    if len(axes) != len(amap):
        block = block[tuple(None if a is None else slice(None) for a in amap)]
    return block


def _tile_box(shape: tuple[int, ...], n_elem: int, crossing: set[int]) -> list[int]:
    """Extents of a tile of about `n_elem` elements: whole rows where all operands run along them. Otherwise strips that
    are wide along the last axis and along each axis that an operand runs along (`crossing`): then every cache line that
    is touched is used up while it is there."""
    box = list(shape)
    if not crossing:
        for axis, n in enumerate(shape):
            box[axis] = max(1, min(n, n_elem // max(math.prod(shape[axis + 1:]), 1)))
        return box
    box = [1] * len(shape)
    last = max(i for i, n in enumerate(shape) if n > 1)
    for axis in (last, *sorted(crossing - {last}), *reversed(range(len(shape)))):
        if box[axis] == 1:
            wide = STRIP if axis == last else max(n_elem // math.prod(box), 32 if axis in crossing else 1)
            box[axis] = min(shape[axis], wide)
    return box


def fastest(view: np.ndarray) -> int | None:
    """The axis along which neighbours in memory lie; None for a single element."""
    strides = [(abs(s), -i) for i, (s, n) in enumerate(zip(view.strides, view.shape, strict=True)) if n > 1 and s]
    return -min(strides)[1] if strides else None


def runs_across(view: np.ndarray) -> bool:
    """Whether neighbours in memory do not lie along the last axis."""
    axis = fastest(view)
    return axis is not None and axis != max(i for i, n in enumerate(view.shape) if n > 1)


def _target(register: int, dims: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Memory for a value: scratch, which cannot hold references to objects."""
    if dtype.hasobject:
        return np.empty(dims, dtype)
    n_bytes = math.prod(dims) * dtype.itemsize
    return scratch.buffer(register, n_bytes)[:n_bytes].view(dtype).reshape(dims)


class Tiles:
    """Runs the instructions of a program on one tile."""

    def __init__(self, program: Program) -> None:
        self.first = program.n_inputs + len(program.consts)
        self.consts = list(program.consts)
        masks = _axis_masks(program)
        registers = _registers(program)
        self.steps = [(CALLS[i.op], i.args, np.dtype(i.dtype), dict(i.kw), registers[k], masks[self.first + k])
                      for k, i in enumerate(program.instrs)]
        widths = [np.dtype(d).itemsize for d in program.dtypes]
        widths += [s[2].itemsize for s in {s[4]: s for s in self.steps}.values()]
        self.tile_elems = max(1024, TILE_BYTES // max(1, sum(widths)))
        self.direct = _direct(program)

    def run_flat(self, cut: list[Any], n: int, out: np.ndarray | None) -> np.ndarray:
        """The same for one-axis tiles; a full tile's buffers are kept as they are by each thread."""
        values: list[Any] = cut + self.consts
        buffers = self._flat_buffers()
        full = n == self.tile_elems
        for (call, args, _, kw, register, _), buffer in zip(self.steps, buffers, strict=True):
            target = out if register < 0 and out is not None else buffer if full else buffer[:n]
            call([values[a] for a in args], target, kw)
            values.append(target)
        return values[-1]

    def _flat_buffers(self) -> list[np.ndarray]:
        try:
            kept = _scratch.flat
        except AttributeError:
            kept = _scratch.flat = weakref.WeakKeyDictionary()
        buffers = kept.get(self)
        if buffers is None:
            buffers = kept[self] = [
                _target(r, (self.tile_elems,), d) for _, _, d, _, r, _ in self.steps]
        return buffers

    def run(self, views: Sequence[np.ndarray], shape: tuple[int, ...], flat: bool,
            out: np.ndarray | None) -> np.ndarray:
        values: list[Any] = [*views, *self.consts]
        for (call, args, _, kw, register, _), target in zip(self.steps, self._targets(shape, flat), strict=True):
            if register < 0 and out is not None:
                target = out
            call([values[a] for a in args], target, kw)
            values.append(target)
        return values[-1]

    def _targets(self, shape: tuple[int, ...], flat: bool) -> list[np.ndarray]:
        """Where each instruction writes, in scratch memory; kept by each thread for the next tile of this shape."""
        try:
            kept = _scratch.shaped
        except AttributeError:
            kept = _scratch.shaped = weakref.WeakKeyDictionary()
        found = kept.get(self)
        if found is None or found[0] != (shape, flat):
            targets = []
            for _, _, dtype, _, register, mask in self.steps:
                dims = shape if flat else tuple(n if l in mask else 1 for l, n in enumerate(shape))  # noqa: E741
                targets.append(_target(register, dims, dtype))
            found = kept[self] = ((shape, flat), targets)
        return found[1]


# Up to this many elements a block is evaluated as one expression, without scratch buffers.
SMALL = 2048


def _direct(program: Program) -> Callable[..., Any] | None:
    """The program as one Python function of its blocks, for small blocks; None where it is not all plain ufuncs.

    Tiny tasks spend their time in Python: straight-line code saves the loop, the lists and the dictionaries."""
    if program.ndim == 0 or not program.instrs or program.instrs[-1].op in UNSTRIDED or any(
            i.kw or i.op not in UFUNCS or UFUNCS[i.op].nout != 1 for i in program.instrs):
        return None
    n = program.n_inputs
    names = [f"b[{k}]" for k in range(n)] + [f"c{k}" for k in range(len(program.consts))]
    scope: dict[str, Any] = {f"c{k}": c for k, c in enumerate(program.consts)}
    lines = []
    for k, instr in enumerate(program.instrs):
        scope[f"f{k}"] = UFUNCS[instr.op]
        operands = ", ".join(names[a] for a in instr.args)
        last = k == len(program.instrs) - 1
        lines.append(f"    return f{k}({operands}, out=out)" if last else f"    v{k} = f{k}({operands})")
        names.append(f"v{k}")
    exec("def direct(b, out):\n" + "\n".join(lines), scope)  # the text above holds nothing but the names made here
    return scope["direct"]


def compile_program(program: Program, finish: tuple[Any, ...] | None = None,
                    empty: Callable[..., np.ndarray] = np.empty) -> Callable[..., Any]:
    """`run(args, blocks, out=None)`: the block the program makes, or the partial state of its reduction (the finished
    block where `finish` is given). Without `out`, blocks are written into `empty(shape, dtype)`."""
    if program.reduction is not None:
        from nums_core.runtime.devices.reduction import compile_reductions

        return compile_reductions(program, [program.reduction], finish)
    if not program.instrs:
        return _compile_copy(program)
    return _compile_map(program, Tiles(program), empty)


def _compile_copy(program: Program) -> Callable[..., Any]:
    amap = program.maps[0]

    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> Any:
        view = place(blocks[0], amap)
        if out is None:
            # Extents that the operand does not show: it is broadcast further.
            return view if args is None else np.broadcast_to(view, np.broadcast_shapes(view.shape, args))
        out[...] = view
        return out
    return run


def loop_shape(views: list[np.ndarray], ndim: int) -> tuple[int, ...]:
    if len(views) == 1:
        return views[0].shape
    return np.broadcast_shapes(*(v.shape for v in views)) if views else (1,) * ndim


def flattenable(views: list[np.ndarray], shape: tuple[int, ...], n: int) -> bool:
    return all(v.size == 1 or (v.size == n and v.flags.c_contiguous) for v in views)


def _boxes(shape: tuple[int, ...], box: list[int]) -> Any:
    return itertools.product(*([slice(i, min(i + b, n)) for i in range(0, n, b)]
                               for n, b in zip(shape, box, strict=True)))


def _cut(view: np.ndarray, at: tuple[slice, ...]) -> np.ndarray:
    return view[tuple(s if n > 1 else slice(None) for s, n in zip(at, view.shape, strict=True))]


def _compile_map(program: Program, tiles: Tiles, empty: Callable[..., np.ndarray]) -> Callable[..., Any]:
    maps, ndim = program.maps, program.ndim
    dtype = np.dtype(program.instrs[-1].dtype)
    plain = all(m == tuple(range(ndim)) for m in maps)

    small = tiles.direct if plain and maps else None

    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        if small is not None and args is None and blocks[0].size <= SMALL and (
                len(blocks) == 1 or max(b.size for b in blocks) <= SMALL) and all(b.ndim == ndim for b in blocks):
            return small(blocks, out)
        views = blocks if plain and all(b.ndim == ndim for b in blocks) else [
            place(b, m) for b, m in zip(blocks, maps, strict=True)]
        shape = loop_shape(views, ndim)
        if args is not None:  # extents that no input shows: the result is broadcast further
            shape = np.broadcast_shapes(shape, args)
        if out is None:
            out = empty(shape, dtype)
        n = out.size
        if n <= tiles.tile_elems:
            if n:
                tiles.run(views, shape, False, out)
            return out
        if out.flags.c_contiguous and flattenable(views, shape, n):
            flat = [v.reshape(-1) for v in views]
            target, step = out.reshape(-1), tiles.tile_elems
            for i in range(0, n, step):
                stop = min(i + step, n)
                cut = [v[i:stop] if v.size > 1 else v for v in flat]
                tiles.run_flat(cut, stop - i, target[i:stop])
            return out
        crossing = {axis for v in views if runs_across(v) and (axis := fastest(v)) is not None}
        box = _tile_box(shape, tiles.tile_elems, crossing)
        whole = [v.shape == shape for v in views]
        for at in _boxes(shape, box):
            target = out[at]
            cut = [v[at] if w else _cut(v, at) for v, w in zip(views, whole, strict=True)]
            tiles.run(cut, target.shape, False, target)
        return out
    return run
