"""Lowering: optimised expressions become a TaskGraph, family by family, with index arithmetic instead of loops over blocks.

`LOWER[op]` lowers one node: it reads the block ids of its operands (an int64 array in the shape of their grid) and
returns its own. A new kind of operation is one more row.
"""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nums_core.expr.cull import cull
from nums_core.expr.grid import block_elements, offsets, overlaps
from nums_core.expr.node import Const, Expr, Source, consumers, postorder
from nums_core.expr.opaque import value_of
from nums_core.ops.elementwise import ELEMENTWISE
from nums_core.ops.program import Program
from nums_core.ops.taskgraph import LEAF, REDUCE, AxisArgs, GraphBuilder, Kernel, TaskGraph


class Lowering:
    """One lowering run: the builder, the sources in slot order, and the ids of what is lowered."""

    def __init__(self, slots: dict[Source, int]) -> None:
        self.builder = GraphBuilder()
        self.slots = slots
        self.ids: dict[int, np.ndarray] = {}
        self.groups: dict[int, list[Expr]] = {}  # reductions that share a pass: see `lowering.reduction`
        self.shared: dict[int, np.ndarray] = {}
        self.deferred: set[int] = set()  # products that leave their sum to their reader: see `_deferred`

    def of(self, node: Expr) -> np.ndarray:
        return self.ids[id(node)]

    def add(self, node: Expr, kernel: Kernel, grid: tuple[int, ...], inputs: np.ndarray, *, elements: Any = None,
            label: str = "", **kw: Any) -> np.ndarray:
        """Add a family for `node`; returns its ids in the shape of `grid`."""
        if elements is None:
            elements = block_elements(node.chunks).reshape(-1)
        if np.isnan(np.sum(elements)):
            elements = self._at_most(node, np.asarray(elements), inputs)
        kw.setdefault("out_bytes", elements * node.dtype.itemsize)
        family = self.builder.add(kernel, grid, inputs, label=label or node.op, line=node.line, **kw)
        return self.builder.ids(family)

    def _at_most(self, node: Expr, elements: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """Elements of blocks whose extents depend on data: no more than the largest of their operands has."""
        if inputs.ndim != 2 or not inputs.shape[1]:
            return np.nan_to_num(elements, nan=1e6 / max(node.dtype.itemsize, 1))
        same = len(node.args) == inputs.shape[1]
        widths = [max(a.dtype.itemsize, 1) for a in node.args] if same else [max(node.dtype.itemsize, 1)]
        most = (self.builder.bytes_of(inputs) / np.array(widths)).max(axis=1)
        return np.where(np.isnan(elements), most, elements)


Rule = Callable[[Lowering, Expr], np.ndarray]


def lower(roots: Sequence[Expr], slots: dict[Source, int]) -> TaskGraph:
    """The task graph of optimised, fused expressions.

    Parameters
    ----------
    roots : sequence of Expr
    slots : dict
        Number of each source among the inputs of the run.
    """
    low = Lowering(slots)
    nodes = list(postorder(roots))
    if sum(n.op == "fused" and n.params[0].reduction is not None for n in nodes) > 1:
        low.groups = importlib.import_module("nums_core.expr.lowering.reduction").share(nodes)
    low.deferred = _deferred(nodes, roots)
    for node in nodes:
        low.ids[id(node)] = _rule(node.op)(low, node)
    outputs = tuple(_whole_family(low, r) for r in roots)
    return cull(low.builder.build(outputs))


def _rule(op: str) -> Rule:
    """The rule of `op`; a dotted name stands in the module of `expr/lowering` that it names."""
    module, _, row = op.rpartition(".")
    if not module:
        return LOWER[row]
    return importlib.import_module(f"nums_core.expr.lowering.{module}").LOWER[row]


def _whole_family(low: Lowering, root: Expr) -> int:
    """The family that is exactly `root`'s blocks; an identity family where its blocks are shared or scattered."""
    ids = low.of(root).reshape(-1)
    for k in range(len(low.builder.families) - 1, -1, -1):
        f = low.builder.families[k]
        if (f.start == (ids[0] if len(ids) else -1) and f.count == len(ids) and f.grid == root.grid and f.role != LEAF
                and (ids == np.arange(f.start, f.stop)).all()):
            return k
    low.add(root, Kernel("identity"), root.grid, ids[:, None], label="output")
    return len(low.builder.families) - 1


def position_args(chunks: Sequence[Sequence[int]]) -> AxisArgs:
    """Each block's (offset, extent) along every axis."""
    return AxisArgs(tuple(tuple(zip(offsets(c), map(int, c), strict=True)) for c in chunks))


# -- leaves and creation ----------------------------------------------------------------------------------------------

def _lower_leaf(low: Lowering, node: Expr) -> np.ndarray:
    source, region = node.params
    slot = low.slots[source]
    none = np.zeros((math.prod(node.grid), 0), np.int64)
    if source.kind == "held":
        return low.add(node, Kernel("held", (slot,)), node.grid, none, role=LEAF, home=source.data.home, label="held")
    args = AxisArgs(tuple(tuple(_source_slice(start, step, at, n) for at, n in zip(offsets(c), c, strict=True))
                          for start, step, c in zip(region.start, region.step, node.chunks, strict=True)))
    if source.kind == "array":
        params = (slot,) if region.shape is None else (slot, region.shape)
        return low.add(node, Kernel("view", params), node.grid, none, role=LEAF, args=args, label="view")
    elements = block_elements(node.chunks).reshape(-1)
    return low.add(node, Kernel("read", (slot,)), node.grid, none, elements=elements, args=args,
                   flop=elements * getattr(source.data, "read_flop", 0.0), label=getattr(source.data, "read_label", "read"))


def _source_slice(start: int, step: int, at: int, n: int) -> slice:
    first = start + at * step
    stop: int | None = first + n * step
    if stop is not None and stop < 0:
        stop = None
    return slice(first, stop, step)


def _lower_create(low: Lowering, node: Expr) -> np.ndarray:
    kernel, params, flop = node.params
    plain = tuple(p.value if isinstance(p, Const) else p for p in params)
    elements = block_elements(node.chunks).reshape(-1)
    return low.add(node, Kernel(kernel, plain), node.grid, np.zeros((math.prod(node.grid), 0), np.int64),
                   elements=elements, flop=elements * flop, args=position_args(node.chunks), label=kernel)


# -- fused groups -----------------------------------------------------------------------------------------------------

def operand_ids(low: Lowering, operands: Sequence[Expr], program: Program, grid: tuple[int, ...]) -> np.ndarray:
    """Block ids each task reads: shape (count, n_inputs)."""
    count = math.prod(grid)
    columns = np.empty((count, program.n_inputs), np.int64)
    for k, (arg, amap) in enumerate(zip(operands, program.maps, strict=True)):
        ids = low.of(arg)
        used = [a for a in amap if a is not None]
        ids = ids.transpose(*used, *(a for a in range(ids.ndim) if a not in used))
        ids = ids.reshape(ids.shape[:len(used)])  # axes that are not looped over have one block
        ids = ids[tuple(slice(None) if a is not None else None for a in amap)]
        columns[:, k] = np.broadcast_to(ids, grid).reshape(-1)
    return columns


def shows_extents(node: Expr, program: Program, chunks: Sequence[Sequence[int]]) -> bool:
    """Whether the operands alone show the full extent of every loop."""
    seen = set()
    for amap in program.maps:
        seen |= {loop for loop, a in enumerate(amap) if a is not None}
    return all(loop in seen or tuple(c) == (1,) for loop, c in enumerate(chunks))


def _lower_fused(low: Lowering, node: Expr) -> np.ndarray:
    program, chunks, _ = node.params
    if program.reduction is not None:
        return importlib.import_module("nums_core.expr.lowering.reduction").lower_reduction(low, node)
    grid = tuple(map(len, chunks))
    inputs = operand_ids(low, node.args, program, grid)
    elements = block_elements(chunks).reshape(-1)
    flop = elements * sum(ELEMENTWISE[i.op].flop for i in program.instrs)
    args = None
    if not shows_extents(node, program, chunks):
        args = AxisArgs(tuple(tuple(map(int, c)) for c in chunks))
    return low.add(node, Kernel("fused", (program,)), grid, inputs, elements=elements, flop=flop, args=args,
                   label=program.label())


def combine(low: Lowering, node: Expr, partial: np.ndarray, axes: Sequence[int], how: tuple[Any, ...],
            finish: tuple[Any, ...] | None, label: str = "") -> np.ndarray:
    """A reduce family over the grid axes `axes` of the ids `partial`; the result has the grid of `node`."""
    kept = [i for i in range(partial.ndim) if i not in axes]
    lines = partial.transpose(*kept, *axes).reshape(math.prod(partial.shape[i] for i in kept), -1)
    state_bytes = np.nan_to_num(block_elements(node.chunks).reshape(-1) * node.dtype.itemsize)
    return low.add(node, Kernel("tree", (how, finish)), node.grid, lines, role=REDUCE, out_bytes=state_bytes,
                   flop=state_bytes / max(node.dtype.itemsize, 1) * max(lines.shape[1] - 1, 0),
                   label=label or f"{how[0]}.tree")


# -- contractions -----------------------------------------------------------------------------------------------------

# A sum is left to the reader where that makes its result so many times smaller than the partial results that it
# spares, and for so small a share of the work.
_SMALLER, _MORE_WORK = 4, 0.25


def _deferred(nodes: Sequence[Expr], roots: Sequence[Expr]) -> set[int]:
    """Products whose cut sums are added up by the one product that reads them.

    In (sum_k X_k C_k) B the partial results X_k C_k have the size of the inner product; (X_k C_k) B has that of the outer
    one. In MTTKRP, `ijk,kr->ijr` and then `ijr,jr->ir`, the first is as large as the tensor, and the second a column of it:
    a tensor cut along k stays where it is, and k - 1 small matrices cross.
    """
    found: set[int] = set()
    uses = consumers(roots) if sum(n.op == "contract" for n in nodes) > 1 else {}
    for node in nodes:
        if node.op == "contract" and len(node.params) == 3:
            found |= {id(a) for a in node.args
                      if a.op == "contract" and uses[id(a)] == 1 and _spares(a, node)}
    return found


def _spares(inner: Expr, outer: Expr) -> bool:
    flop, pieces = _work(inner)
    more = (pieces - 1) * _work(outer)[0]
    return pieces > 1 and _SMALLER * math.prod(outer.shape) <= math.prod(inner.shape) and more <= _MORE_WORK * flop


def _work(node: Expr) -> tuple[float, int]:
    """Multiplications of a product, and blocks along its sums; none where an operand is a program of others."""
    la, lb, lc, *inline = node.params
    if inline:
        return 0.0, 1
    cuts = {x: c for a, labels in zip(node.args, (la, lb), strict=True) for x, c in zip(labels, a.chunks, strict=True)}
    return float(math.prod(sum(c) for c in cuts.values())), math.prod(len(c) for x, c in cuts.items() if x not in lc)


def _lower_contract(low: Lowering, node: Expr) -> np.ndarray:
    la, lb, lc, *inline = node.params
    operands = _contracted(low, node, la, lb, *inline)
    cuts = {x: c for labels, chunks, _ in operands for x, c in zip(labels, chunks, strict=True)}
    summed = [x for x in cuts if x not in lc]
    loops = [*lc, *summed]
    grid = tuple(len(cuts[x]) for x in loops)
    columns = [np.broadcast_to(_expand(ids, labels, loops), grid).reshape(-1)
               for labels, _, inputs in operands for ids in inputs]
    elements = block_elements(tuple(cuts[x] for x in loops)).reshape(-1)
    out_elements = np.broadcast_to(block_elements(node.chunks).reshape(node.grid + (1,) * len(summed)), grid).reshape(-1)
    programs = [tuple((entry[:2] if entry else None) for entry in spec) for spec in inline]
    whole = math.prod(grid[len(lc):]) == 1
    products = low.add(node, Kernel("contract", (la, lb, lc, node.dtype.str, *programs)), node.grid if whole else grid,
                       np.stack(columns, axis=1), elements=out_elements, flop=2 * elements,
                       label=f"contract {la},{lb}->{lc}")
    if whole or id(node) in low.deferred:
        return products
    return combine(low, node, products, range(len(lc), len(loops)), ("sum", (), ()), ((), None), "contract.tree")


def _contracted(low: Lowering, node: Expr, la: str, lb: str,
                inline: Any = None) -> list[tuple[str, Any, list[np.ndarray]]]:
    """Labels, chunks and block ids of each operand: one array of ids, or one for each input of the program that makes
    the operand (see `expr.fuse._contract`). An operand that is the other one again needs none."""
    if inline is None:
        return [_with_open_sums(a, labels, low.of(a), k) for k, (a, labels) in enumerate(zip(node.args, (la, lb), strict=True))]
    out: list[tuple[str, Any, list[np.ndarray]]] = []
    args = list(node.args)
    for labels, entry in zip((la, lb), inline, strict=True):
        program, n, chunks = entry or (None, 0, inline[0][2])
        mine, args = args[:n], args[n:]
        grid = tuple(map(len, chunks))
        ids = [low.of(a) for a in mine] if program is None else [
            column.reshape(grid) for column in operand_ids(low, mine, program, grid).T]
        out.append((labels, chunks, ids))
    return out


def _with_open_sums(a: Expr, labels: str, ids: np.ndarray, k: int) -> tuple[str, Any, list[np.ndarray]]:
    """Labels, chunks and block ids of operand `k`; sums that it left open are further labels, of a block each."""
    extra = ids.shape[a.ndim:]
    fresh = "".join(chr(0xE000 + 256 * k + i) for i in range(len(extra)))
    return labels + fresh, (*a.chunks, *((1,) * n for n in extra)), [ids]


def _expand(ids: np.ndarray, labels: str, loops: Sequence[str]) -> np.ndarray:
    """Ids with one axis a loop."""
    order = [labels.index(x) for x in loops if x in labels]
    return ids.transpose(order)[tuple(slice(None) if x in labels else None for x in loops)]


# -- movement ---------------------------------------------------------------------------------------------------------

def _lower_gather(low: Lowering, node: Expr) -> np.ndarray:
    (x,), (start, step) = node.args, node.params
    ids = low.of(x)
    per_axis = [overlaps(have, s, d, want) if not any(n != n for n in have) else _as_cut(have)
                for have, s, d, want in zip(x.chunks, start, step, node.chunks, strict=True)]
    if all(len(p) <= 1 for axis in per_axis for p in axis) and _whole_blocks(per_axis, x.chunks):
        return ids[np.ix_(*[[p[0][0] for p in axis] for axis in per_axis])] if ids.ndim else ids
    divide = importlib.import_module("nums_core.expr.lowering.divide")
    if divide.reads_much(x, node, per_axis):
        return divide.divided(low, node, per_axis)
    flat, counts = piece_ids(ids, per_axis)
    args = AxisArgs(tuple(tuple((int(n) if n == n else None, p) for n, p in zip(want, axis, strict=True))
                          for want, axis in zip(node.chunks, per_axis, strict=True)))
    return low.add(node, Kernel("gather", (node.dtype,)), node.grid, flat, counts=counts, args=args, label="gather")


def _as_cut(have: Sequence[Any]) -> list[tuple[tuple[int, slice, slice], ...]]:
    """The pieces of an axis whose extents depend on data: its blocks, whole."""
    return [((k, slice(None), slice(None)),) for k in range(len(have))]


def piece_ids(ids: np.ndarray, per_axis: Sequence[Sequence[Sequence[Any]]]) -> tuple[np.ndarray, np.ndarray]:
    """The blocks that each result block is put together from, and how many.

    Parameters
    ----------
    ids : int64 array, shape of the operand's grid
    per_axis : for each axis, for each result chunk, its pieces; a piece begins with the number of the chunk it is from

    Returns
    -------
    flat : int64 array; for each result block in C order, the product of its pieces along the axes, in C order
    counts : int64 array, shape (number of result blocks,)
    """
    grid = tuple(map(len, per_axis))
    if not grid:
        return ids.reshape(-1), np.ones(1, np.int64)
    # Ragged products in bulk: pieces are padded to the longest list of their axis, then the padding is masked out.
    index, valid = [], np.ones((1,) * 2 * len(grid), bool)
    for axis, chunks in enumerate(per_axis):
        width = max((len(p) for p in chunks), default=0)
        table = np.array([[q[0] for q in p] + [-1] * (width - len(p)) for p in chunks],
                         np.int64).reshape(len(chunks), width)
        shape = [1] * 2 * len(grid)
        shape[axis], shape[len(grid) + axis] = table.shape
        index.append(table.reshape(shape))
        valid = valid & (index[-1] >= 0)
    chosen = np.broadcast_to(ids[tuple(index)], valid.shape)[valid]
    return chosen, valid.reshape(math.prod(grid), math.prod(valid.shape[len(grid):])).sum(axis=1)


def _whole_blocks(per_axis: Sequence[Any], have: Sequence[Sequence[int]]) -> bool:
    """Whether every wanted block is an existing one, as it is."""
    return all(len(p) == 1 and p[0][1].step is None and p[0][1] in (slice(None), slice(0, sizes[p[0][0]]))
               for axis, sizes in zip(per_axis, have, strict=True) for p in axis)


def _lower_concat(low: Lowering, node: Expr) -> np.ndarray:
    """No task at all: the blocks of the parts, in order."""
    (axis,) = node.params
    return np.concatenate([low.of(a) for a in node.args if a.shape[axis] != 0], axis=axis) if any(
        a.shape[axis] for a in node.args) else low.of(node.args[0])


# -- functions of the user, tuples ------------------------------------------------------------------------------------

def _lower_map(low: Lowering, node: Expr) -> np.ndarray:
    function, kwargs, labels, out_labels, info, label, flop = node.params
    function = value_of(function)
    grid = node.grid
    columns = []
    for a, names in zip(node.args, labels, strict=True):
        ids = low.of(a)
        order = [names.index(x) for x in out_labels if x in names]
        rest = [i for i in range(ids.ndim) if i not in order]
        ids = ids.transpose(*order, *rest).reshape([ids.shape[i] for i in order])  # summed labels are in one block
        ids = ids[tuple(slice(None) if x in names else None for x in out_labels)]
        columns.append(np.broadcast_to(ids, grid).reshape(-1))
    inputs = np.stack(columns, axis=1) if columns else np.zeros((math.prod(grid), 0), np.int64)
    elements = block_elements(node.chunks).reshape(-1)
    plain = tuple((name, value_of(v)) for name, v in kwargs)
    args = AxisArgs(tuple(tuple(zip(itertools.count(), c)) for c in node.chunks))
    return low.add(node, Kernel("map", (function, plain, node.dtype, _places(node) if info else None, info)), grid,
                   inputs, elements=elements, out_bytes=np.nan_to_num(elements, nan=1e6) * node.dtype.itemsize,
                   flop=unknown_flop(np.nan_to_num(elements)) if flop is None else np.nan_to_num(elements) * flop,
                   args=args, label=label or _name(function))


def unknown_flop(elements: np.ndarray) -> np.ndarray:
    """What a function of the user is taken to cost: long enough on any block that several threads are worth it."""
    return 2e6 + 10.0 * elements


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _places(node: Expr) -> tuple[Any, ...]:
    """What `block_info` says of the operands and the result: (shape, chunks, loop of each axis), the result last."""
    out_labels = node.params[3]
    of_args = [(a.shape, a.chunks, tuple(out_labels.index(x) if x in out_labels and g > 1 else None
                                         for x, g in zip(names, a.grid, strict=True)))
               for a, names in zip(node.args, node.params[2], strict=True)]
    return (*of_args, (node.shape, node.chunks, tuple(range(node.ndim))))


def _lower_pick(low: Lowering, node: Expr) -> np.ndarray:
    whole = node.args[0]
    in_place = {"out_bytes": np.zeros(1)} if whole.op == "state.update" and node.params[0] < whole.params[2] else {}
    return low.add(node, Kernel("pick", node.params), node.grid, low.of(whole).reshape(-1, 1), label="pick", **in_place)


LOWER: dict[str, Rule] = {
    "leaf": _lower_leaf,
    "create": _lower_create,
    "fused": _lower_fused,
    "contract": _lower_contract,
    "gather": _lower_gather,
    "concat": _lower_concat,
    "map": _lower_map,
    "pick": _lower_pick,
}
