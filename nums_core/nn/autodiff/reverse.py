"""The reverse walk: from cotangents of results to cotangents of the nodes that were asked for.

One step a node, from the results down, without recursion: when a node's turn comes, everything that reads it has had
its own, so that its contributions are complete. They are added in a balanced tree: the depth of a sum of n terms is
log2 n, for the rounding errors' and the planner's sake. Contributions to boxes of one array (slices of it) are put into
zeros together.

A `region` (see `checkpoint`) is run again first: its results are built anew from its operands behind barriers that wait
for the cotangent, and the walk goes through those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nums_core.array.array import Array
from nums_core.errors import NoDerivativeError, ShapeError
from nums_core.expr import build, index
from nums_core.expr.grid import known
from nums_core.expr.node import Expr, make, with_args
from nums_core.nn.autodiff.rule import NONE, ZERO, Cotangent, Patch, zeros_like

SOURCES = frozenset({"leaf", "create", "argument"})  # what a region need not wait for
WALKED = frozenset({"argument", "kept", "part", "pick", "region"})  # what the walk itself knows how to pass


def reverse(roots: Sequence[Expr], cotangents: Sequence[Cotangent], wanted: Sequence[Expr]) -> list[Expr | None]:
    """Cotangents of `wanted`, given those of `roots`; None where no root depends on a node. What `wanted` are made of
    is not looked at."""
    walk = _Walk(wanted)
    nodes = nodes_above(roots, walk.wanted)
    walk.mark(nodes)
    for root, g in zip(roots, cotangents, strict=True):
        walk.give(root, g)
    walk.down(nodes)
    return [walk.total(w) for w in wanted]


def through(equivalent: Callable[[Array], Array], x: Expr, g: Array) -> list[Cotangent]:
    """The cotangent of `x` by way of another function that gives the same result as its node: a rule by rules."""
    found = reverse([equivalent(Array(x)).expr], [g], [x])[0]
    return [None if found is None else Array(found)]


def nodes_above(roots: Iterable[Expr], stop: dict[int, Expr]) -> list[Expr]:
    """Every node of `roots` once, operands first, down to the nodes in `stop` and not further."""
    seen: set[int] = set()
    out: list[Expr] = []
    for root in roots:
        stack = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if ready:
                out.append(node)
            elif id(node) not in seen:
                seen.add(id(node))
                stack.append((node, True))
                if id(node) not in stop:
                    stack.extend((a, False) for a in reversed(node.args) if id(a) not in seen)
    return out


def substitute(roots: Sequence[Expr], new: dict[int, Expr]) -> list[Expr]:
    """`roots` with nodes replaced, by id, and everything above them built anew."""
    done = dict(new)
    keep = nodes_above(roots, dict(new))
    for node in keep:
        if id(node) not in done:
            done[id(node)] = with_args(node, [done[id(a)] for a in node.args])
    return [done[id(r)] for r in roots]


class _Walk:
    """The state of one reverse walk. Nodes are known by id; `alive` keeps those made on the way."""

    def __init__(self, wanted: Sequence[Expr]) -> None:
        from nums_core.nn.autodiff.vjps import rule_of

        self.rule_of = rule_of
        self.wanted = {id(w): w for w in wanted}
        self.active: set[int] = set(self.wanted)
        self.given: dict[int, list[Any]] = {}
        self.alive: list[Any] = []

    def mark(self, nodes: Sequence[Expr]) -> None:
        """Note which of `nodes` (operands first) depend on what is wanted, by way of real or complex numbers."""
        for node in nodes:
            if id(node) in self.active or node.op == "stop":
                continue
            args = node.args[:1] if node.op == "barrier.after" else node.args
            if _varies(node) and any(id(a) in self.active for a in args):
                self.active.add(id(node))

    def give(self, node: Expr, g: Any) -> None:
        """Add a contribution to the cotangent of `node`."""
        if g is not None and id(node) in self.active:
            self.given.setdefault(id(node), []).append(g)

    def down(self, nodes: Sequence[Expr]) -> None:
        """Each node's cotangent to its operands, last nodes first."""
        for node in reversed(nodes):
            if id(node) in self.wanted or id(node) not in self.given:
                continue
            if node.op == "region":
                self.again(node, self.by_part(node))
            elif is_tuple(node):
                self.apply(node, self.by_part(node))
            else:
                g = self.total(node)
                assert g is not None
                k = part_number(node)
                if k is not None:
                    self.give(node.args[0], (k, Array(g)))
                elif node.op in ("argument", "kept"):
                    self.give(node.args[-1], Array(g))
                else:
                    self.apply(node, Array(g))

    def apply(self, node: Expr, g: Any) -> None:
        rule = self.rule_of(node)
        if isinstance(rule, ZERO):
            return
        if isinstance(rule, NONE):
            where = f" (built at {node.line})" if node.line else ""
            raise NoDerivativeError(f"{name_of(node)} has no derivative: {rule.why}; or wrap it in stop_gradient() if "
                                    f"nothing is to be learned through it{where}")
        for a, made in zip(node.args, rule(node, g), strict=True):
            self.give(a, made)

    def by_part(self, node: Expr) -> dict[int, Array]:
        """Cotangents of the parts of a node whose blocks are tuples."""
        parts: dict[int, list[Array]] = {}
        for k, g in self.given.pop(id(node)):
            parts.setdefault(k, []).append(g)
        return {k: _balanced(gs) for k, gs in parts.items()}

    def again(self, region: Expr, parts: dict[int, Array]) -> None:
        """Build a region anew, to be run once the cotangents of its results are there, and walk through it."""
        n = region.params[0]
        results, operands = region.args[:n], region.args[n:]
        awaited = max((g.expr for g in parts.values()), key=build._nbytes)
        behind = [x for x in operands if x.op not in SOURCES] or list(operands)
        barriers = {id(x): make("barrier.after", (x, awaited), (), x.shape, x.dtype, x.chunks) for x in behind}
        made = substitute(results, barriers)
        nodes = [*barriers.values(), *_depending(made, barriers.values())]
        self.alive.append((nodes, awaited))
        self.mark(nodes)
        for k, g in parts.items():
            self.give(made[k], g)
        self.down(nodes)

    def total(self, node: Expr) -> Expr | None:
        """The sum of the contributions to `node`, in its dtype and on its grid."""
        given = self.given.pop(id(node), None)
        if given is None:
            return None
        dense = [fitted(g, node) for g in given if not isinstance(g, Patch)]
        dense += _patched([g for g in given if isinstance(g, Patch)], node)
        made = _balanced([Array(e) for e in dense]).expr
        self.alive.append(made)
        return made


def _depending(roots: Sequence[Expr], on: Iterable[Expr]) -> list[Expr]:
    """What stands between `roots` and the nodes `on`, operands first, these left out."""
    stop = {id(x): x for x in on}
    depends = set(stop)
    out = []
    for node in nodes_above(roots, stop):
        if id(node) not in stop and any(id(a) in depends for a in node.args):
            depends.add(id(node))
            out.append(node)
    return out


def _varies(node: Expr) -> bool:
    """Whether the values of a node can have a derivative: integers cannot, objects may stand for numbers."""
    return node.dtype.kind in "fcO" or node.op == "region" or is_tuple(node)


def is_tuple(node: Expr) -> bool:
    """Whether the blocks of a node are tuples, whose parts other nodes pick."""
    if node.op == "linalg.blocks":
        return node.params[0] == "linalg.apply" and node.params[5] != 0
    return node.op in ("map", "state.update") and node.dtype.kind == "V"


def part_number(node: Expr) -> int | None:
    """Which part of its operand a node picks, if it does."""
    if node.op in ("pick", "part"):
        return node.params[0]
    return node.params[1][0] if node.op == "linalg.blocks" and node.params[0] == "pick" else None


def name_of(node: Expr) -> str:
    """What a node is called in messages."""
    if node.op in ("ewise", "reduce"):
        return str(node.params[0])
    if node.op == "map":
        return node.params[5] or "map"
    if node.op == "linalg.blocks" and node.params[0] == "linalg.apply":
        return f"linalg.{node.params[1][0]}"
    return node.op


# -- sums -------------------------------------------------------------------------------------------------------------

def fitted(g: Array, node: Expr) -> Expr:
    """A contribution in the dtype and on the grid of `node`."""
    e = g.expr
    sized = known(node.chunks)
    if e.shape != node.shape and sized:
        raise ShapeError(f"a derivative rule gave {name_of(node)} of shape {node.shape} a cotangent of shape "
                         f"{e.shape}; the two must be equal: sum over what was broadcast")
    if e.dtype.kind == "c" and node.dtype.kind != "c":
        e = build.elementwise("real", [e])
    e = build.cast(e, node.dtype)
    return build.rechunk(e, node.chunks) if sized else e


def _balanced(terms: Sequence[Array]) -> Array:
    while len(terms) > 1:
        pairs = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = [*pairs, terms[-1]] if len(terms) % 2 else pairs
    return terms[0]


def _patched(patches: Sequence[Patch], node: Expr) -> list[Expr]:
    """Boxes put into zeros: those that do not meet into the same zeros."""
    layers: list[tuple[list[Patch], Expr]] = []
    for p in patches:
        value = p.value.expr
        if value.dtype.kind == "c" and node.dtype.kind != "c":
            value = build.elementwise("real", [value])
        value = build.cast(value, node.dtype)
        k = next((k for k, (boxes, _) in enumerate(layers) if not any(_meet(p, q) for q in boxes)), len(layers))
        boxes, made = layers[k] if k < len(layers) else ([], zeros_like(node))
        layers[k:k + 1] = [([*boxes, p], index.put_region(made, p.start, p.step, value))]
    return [made for _, made in layers]


def _meet(p: Patch, q: Patch) -> bool:
    """Whether two boxes may share elements (strides are not looked at)."""
    def last(b: Patch, i: int) -> int:
        return b.start[i] + (b.value.expr.shape[i] - 1) * b.step[i]
    return all(p.start[i] <= last(q, i) and q.start[i] <= last(p, i) for i in range(len(p.start)))
