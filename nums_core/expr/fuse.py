"""Fusion groups: elementwise operations, axis maps and one reduction at the end become one Program over one loop nest.

A producer is inlined into its consumer when nobody else reads it, or when it costs nothing (axis maps, constants). The
group's operands are what is left: leaves, contractions, gathers, and values with several readers. Deciding is linear in
the nodes; nothing is recomputed except what is free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nums_core.expr.grid import known
from nums_core.expr.node import Expr, consumers, make, postorder, with_args
from nums_core.ops.program import AxisMap, Instr, Program, Reduction

MAX_INSTRS = 48
_GROWS, _ROWS = 4, 64  # how much larger than its inputs, and rows an instruction, for an operand to be made again
FUSIBLE = ("ewise", "axes")


def fuse(roots: Sequence[Expr]) -> list[Expr]:
    """The same expressions with every fusible group replaced by one `fused` node."""
    uses = consumers(roots)
    inlined = _inlined(roots, uses)
    done: dict[int, Expr] = {}
    for node in postorder(roots):
        if id(node) in inlined:
            continue
        if node.op in ("ewise", "axes", "reduce"):
            done[id(node)] = _Group(node, inlined, done).build()
        elif node.op == "contract":
            done[id(node)] = _contract(node, inlined, done, uses)
        elif node.op == "index.select" and id(node.args[1]) in inlined:
            done[id(node)] = _select(node, inlined, done)
        else:
            done[id(node)] = with_args(node, [done[id(a)] for a in node.args])
    return [done[id(r)] for r in roots]


def _is_scalar_fill(node: Expr) -> bool:
    return node.op == "create" and node.params[0] == "full"


def _inlined(roots: Sequence[Expr], uses: dict[int, int]) -> set[int]:
    """Nodes that live only inside their consumers' programs."""
    fusible_reader: dict[int, bool] = {id(r): False for r in roots}
    size: dict[int, int] = {}
    out: set[int] = set()
    order = list(postorder(roots))
    for node in order:
        ok = node.op in ("ewise", "axes", "reduce")
        for a in node.args:
            relabels = node.op == "contract" and a.op == "axes" and _pure(a)
            fusible_reader[id(a)] = fusible_reader.get(id(a), True) and (ok or relabels or _is_mask(node, a))
    for node in order:
        out.update(id(a) for a in node.args if _is_mask(node, a) and uses[id(a)] == 1)
        if node.op not in ("ewise", "axes", "reduce", "contract"):
            continue
        total = 1 if node.op == "ewise" else 0
        for a in node.args:
            free = a.op == "axes" or _is_scalar_fill(a)
            if not fusible_reader[id(a)] or not (a.op in FUSIBLE or _is_scalar_fill(a)):
                continue
            if node.op == "contract" and a.op != "axes":
                continue
            if (free or uses[id(a)] == 1) and total + size.get(id(a), 0) <= MAX_INSTRS:
                out.add(id(a))
                total += size.get(id(a), 0)
        size[id(node)] = total
    # A node counts as inlined only if *every* reader could take it; one that could not makes it an operand.
    for node in order:
        for a in node.args:
            if node.op == "contract":
                while id(a) in out and a.op == "axes" and _pure(a):
                    a = a.args[0]
                out.discard(id(a))  # what a contraction reads through its relabelled axes is an operand of its own
    return out


def _is_mask(node: Expr, a: Expr) -> bool:
    """Whether `a` is the mask of a selection, to be made tile by tile as the selection goes."""
    return node.op == "index.select" and a.op == "ewise" and a is node.args[1] and a is not node.args[0]


def _select(node: Expr, inlined: set[int], done: dict[int, Expr]) -> Expr:
    """A selection with the program of its mask: one pass over the data."""
    group = _Group(node.args[1], inlined, done).build()
    program, chunks, _ = group.params
    return make("index.select", (done[id(node.args[0])], *group.args), (node.params[0], program, chunks), node.shape,
                node.dtype, node.chunks, node.line)


def _pure(node: Expr) -> bool:
    """Whether an axis map only permutes, drops or adds axes of extent 1 (no broadcasting): a contraction can relabel."""
    (source,), x = node.params, node.args[0]
    return all(s is not None and x.shape[s] == n for s, n in zip(source, node.shape, strict=True)) and x.ndim == node.ndim


def _contract(node: Expr, inlined: set[int], done: dict[int, Expr], uses: dict[int, int]) -> Expr:
    """A contraction takes permutations of its operands into its labels: X.T @ X reads X as it lies. It takes in the
    fused groups that make its operands too, where each block is then still made once: X.T @ (w * X)."""
    labels, bases, alone = list(node.params[:2]), list(node.args), [True, True]
    for k in range(2):
        while id(bases[k]) in inlined:
            a = bases[k]
            alone[k] = alone[k] and uses[id(a)] == 1
            (source,) = a.params
            relabelled = [""] * a.args[0].ndim
            for out_axis, s in enumerate(source):
                relabelled[s] = labels[k][out_axis]
            labels[k], bases[k] = "".join(relabelled), a.args[0]
    operands = [done[id(a)] for a in bases]
    same = bases[0] is bases[1]
    inline = [alone[k] and uses[id(a)] == 1 + same and _inlines(x, labels[k], labels[1 - k], operands[1 - k])
              for k, (a, x) in enumerate(zip(bases, operands, strict=True))]
    params: tuple[Any, ...] = (*labels, node.params[2])
    if same and all(inline) and all(alone):
        (x, _) = operands
        params, operands = (*params, ((x.params[0], len(x.args), x.chunks), None)), list(x.args)
    elif any(inline) and not same:
        params = (*params, tuple((x.params[0], len(x.args), x.chunks) if taken else (None, 1, x.chunks)
                                 for x, taken in zip(operands, inline, strict=True)))
        operands = [y for x, taken in zip(operands, inline, strict=True) for y in (x.args if taken else (x,))]
    return make("contract", operands, params, node.shape, node.dtype, node.chunks, node.line)


def _inlines(x: Expr, mine: str, theirs: str, other: Expr) -> bool:
    """Whether a contraction may make the blocks of `x` itself: a fused group whose inputs show its extents, each of
    whose blocks one task reads."""
    if x.op != "fused" or x.params[0].reduction is not None:
        return False
    program, chunks, _ = x.params
    shown = {loop for amap in program.maps for loop, a in enumerate(amap) if a is not None}
    free = [c for label, c in zip(theirs, other.chunks, strict=True) if label not in mine]
    read_once = all(len(c) == 1 for c in free)
    return (read_once or _is_cheap(x, free)) and all(loop in shown or tuple(c) == (1,) for loop, c in enumerate(chunks))


def _is_cheap(x: Expr, free: Sequence[Sequence[int]]) -> bool:
    """Whether blocks of `x` may be made by every product that reads them: much larger than what they are made of, as the
    Khatri-Rao product of MTTKRP is, and soon made beside the rows, in blocks of extents `free`, that each is multiplied
    with. On several workers the small arrays travel then, not what is made of them."""
    inputs = sum(math.prod(a.shape) for a in x.args)
    return (known(x.chunks) and _GROWS * inputs <= math.prod(x.shape)
            and len(x.params[0].instrs) * _ROWS <= math.prod(min(c) for c in free))


class _Group:
    """Builds the program of one group, from its root down."""

    def __init__(self, root: Expr, inlined: set[int], done: dict[int, Expr]) -> None:
        self.root, self.inlined, self.done = root, inlined, done
        self.inputs: list[Expr] = []
        self.maps: list[AxisMap] = []
        self.where: dict[tuple[int, tuple[Any, ...]], Any] = {}
        self.consts: list[Any] = []
        self.instrs: list[Instr] = []

    def build(self) -> Expr:
        root = self.root
        top = root.args[0] if root.op == "reduce" else root
        if root.op == "reduce" and id(top) not in self.inlined:
            self.input(top, tuple(range(top.ndim)))
        else:
            self.visit(top, tuple(range(top.ndim)))
        reduction = Reduction(root.params[0], root.params[1], root.params[3]) if root.op == "reduce" else None
        if not self.inputs and not self.instrs:  # only constants: one instruction that copies them
            self.instrs.append(Instr("positive", (("c", 0),), top.dtype.str))  # type: ignore[arg-type]
        n = len(self.inputs)
        m = n + len(self.consts)
        number = {"i": 0, "c": n, "v": m}
        instrs = tuple(i._replace(args=tuple(number[k] + j for k, j in i.args)) for i in self.instrs)  # type: ignore
        program = Program(top.ndim, tuple(self.maps), tuple(x.dtype.str for x in self.inputs), tuple(self.consts),
                          instrs, reduction)
        params = (program, top.chunks, root.params[2] if root.op == "reduce" else False)
        return make("fused", self.inputs, params, root.shape, root.dtype, root.chunks, root.line)

    def visit(self, node: Expr, loops: tuple[int | None, ...]) -> Any:
        """The value of `node` whose axis `i` runs along loop `loops[i]`; its number as (kind, index)."""
        key = (id(node), loops)
        if key not in self.where:
            self.where[key] = self._visit(node, loops)
        return self.where[key]

    def _visit(self, node: Expr, loops: tuple[int | None, ...]) -> Any:
        is_top = node is self.root or (self.root.op == "reduce" and node is self.root.args[0])
        if id(node) not in self.inlined and not is_top:
            return self.input(node, loops)
        if _is_scalar_fill(node):
            return self.const(node.params[1][0].value)
        if node.op == "axes":
            return self.visit(node.args[0], _through(node, loops))
        if node.op != "ewise":
            return self.input(node, loops)
        name, kw, spec = node.params
        args = []
        for s in spec:
            if isinstance(s, int):
                a = node.args[s]
                back = node.ndim - a.ndim
                args.append(self.visit(a, tuple(
                    None if a.shape[i] == 1 and node.shape[back + i] != 1 else loops[back + i] for i in range(a.ndim))))
            else:
                args.append(self.const(s.value))
        self.instrs.append(Instr(name, tuple(args), node.dtype.str, kw))
        return ("v", len(self.instrs) - 1)

    def const(self, value: Any) -> Any:
        self.consts.append(value)
        return ("c", len(self.consts) - 1)

    def input(self, node: Expr, loops: tuple[int | None, ...]) -> Any:
        top = self.root.args[0] if self.root.op == "reduce" else self.root
        amap: list[int | None] = [None] * top.ndim
        for axis, loop in enumerate(loops):
            if loop is not None:
                amap[loop] = axis
        self.inputs.append(self.done[id(node)])
        self.maps.append(tuple(amap))
        self.where[(id(node), loops)] = ("i", len(self.inputs) - 1)
        return ("i", len(self.inputs) - 1)


def _through(node: Expr, loops: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """Loops of the operand of an axis map, from the loops of its result."""
    (source,), x = node.params, node.args[0]
    out: list[int | None] = [None] * x.ndim
    for axis, s in enumerate(source):
        if s is not None and (x.shape[s] == node.shape[axis] or x.shape[s] != x.shape[s]):
            out[s] = loops[axis]
    return tuple(out)


def as_array_program(dtype: np.dtype, ndim: int) -> Program:
    """The program that passes its one operand through."""
    return Program(ndim, (tuple(range(ndim)),), (dtype.str,), (), ())
