"""The optimiser: rule lists applied bottom-up until nothing changes, then contraction order, then fusion.

A rule is a function of one node that returns a better node or None; it never computes and never changes shape, dtype or
grid (checked here when `validate` is on, as it is under test). Rules live in `expr/rules`, a list a subject.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nums_core.expr.coarsen import coarsen
from nums_core.expr.fuse import fuse
from nums_core.expr.node import Expr, postorder, with_args
from nums_core.expr.rules import algebra, blocking, contraction, movement

Rule = Callable[[Expr], Expr | None]

RULES: dict[str, list[Rule]] = {}
for _rules in (algebra.RULES, movement.RULES):
    for _op, _rule in _rules:
        RULES.setdefault(_op, []).append(_rule)

MAX_REWRITES = 32  # of one node; a chain of gathers shrinks by one each time
validate = False


def optimise(roots: Sequence[Expr]) -> list[Expr]:
    """Rewritten, fused expressions with the same values."""
    roots = rewrite(roots)
    ordered = contraction.reorder(roots)
    if any(a is not b for a, b in zip(ordered, roots, strict=True)):
        ordered = rewrite(ordered)  # a new order may have re-blocked sources
    return coarsen(fuse(blocking.regrid(ordered)))


def rewrite(roots: Sequence[Expr]) -> list[Expr]:
    """Apply the rules bottom-up."""
    done: dict[int, Expr] = {}
    keep = []  # nodes made on the way stay alive, so that ids stay theirs
    for node in postorder(roots):
        done[id(node)] = _simplify(with_args(node, [done[id(a)] for a in node.args]), done, keep)
    return [done[id(r)] for r in roots]


def _simplify(node: Expr, done: dict[int, Expr], keep: list[Expr]) -> Expr:
    for _ in range(MAX_REWRITES):
        better = next((n for rule in RULES.get(node.op, ()) if (n := rule(node)) is not None), None)
        if better is None:
            return node
        if validate:
            assert (better.shape, better.dtype, better.chunks) == (node.shape, node.dtype, node.chunks), (node, better)
        keep.append(better)
        # A rule may have pushed work below: simplify the new operands too.
        args = [a if id(a) in done or a in node.args else _simplify(a, done, keep) for a in better.args]
        node = with_args(better, args)
        keep.append(node)
    return node
