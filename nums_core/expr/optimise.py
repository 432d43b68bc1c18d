"""The optimiser: rule lists applied bottom-up until nothing changes, then contraction order, then fusion.

A rule is a function of one node that returns a better node or None; it never computes and never changes shape, dtype or
grid (checked here when `validate` is on, as it is under test). Rules live in `expr/rules`, a list a subject.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nums_core.expr.coarsen import coarsen
from nums_core.expr.fuse import fuse
from nums_core.expr.node import Expr, consumers, postorder, with_args
from nums_core.expr.rules import algebra, blocking, contraction, marks, movement, pushdown, sums

Rule = Callable[[Expr], Expr | None]

RULES: dict[str, list[Rule]] = {}
for _rules in (marks.RULES, algebra.RULES, movement.RULES, pushdown.RULES):
    for _op, _rule in _rules:
        RULES.setdefault(_op, []).append(_rule)
ALONE: dict[str, list[Rule]] = {}  # only where the node is its first operand's one reader
for _op, _rule in (*movement.ALONE, *pushdown.ALONE):
    ALONE.setdefault(_op, []).append(_rule)

MAX_REWRITES = 32  # of one node; a chain of gathers shrinks by one each time
validate = False


def optimise(roots: Sequence[Expr]) -> list[Expr]:
    """Rewritten, fused expressions with the same values."""
    roots = rewrite(roots)
    ordered = contraction.reorder(roots)
    if any(a is not b for a, b in zip(ordered, roots, strict=True)):
        ordered = rewrite(ordered)  # a new order may have re-blocked sources
    return coarsen(fuse(sums.join(blocking.regrid(ordered))))


def rewrite(roots: Sequence[Expr]) -> list[Expr]:
    """Apply the rules bottom-up."""
    done: dict[int, Expr] = {}
    keep: list[Expr] = []  # nodes made on the way stay alive, so that ids stay theirs
    uses = consumers(roots)
    for node in postorder(roots):
        if id(node) not in done:
            _settle(node, done, keep, uses)
    return [done[id(r)] for r in roots]


def _settle(node: Expr, done: dict[int, Expr], keep: list[Expr], uses: dict[int, int]) -> None:
    """Rewrite `node` until no rule applies; a rule may push work below, so new operands are settled first. Iterative: a
    slice may sink through expressions deeper than Python's stack."""
    stack = [(node, node, 0)]
    while stack:
        key, node, tries = stack.pop()
        missing = [a for a in node.args if id(a) not in done]
        if missing:
            stack.append((key, node, tries))
            stack.extend((a, a, 0) for a in missing)
            continue
        node = with_args(node, [done[id(a)] for a in node.args])
        alone = bool(node.args) and uses.get(id(node.args[0]), 1) == 1
        better = _better(node, alone) if tries < MAX_REWRITES else None
        keep.append(node)
        if better is None:
            done[id(key)] = done[id(node)] = node
            uses[id(node)] = max(uses.get(id(node), 0), uses.get(id(key), 1))
        else:
            keep.append(better)
            stack.append((key, better, tries + 1))


def _better(node: Expr, alone: bool) -> Expr | None:
    for rule in [*RULES.get(node.op, ()), *(ALONE.get(node.op, ()) if alone else ())]:
        better = rule(node)
        if better is not None:
            if validate:
                assert (better.shape, better.dtype, better.chunks) == (node.shape, node.dtype, node.chunks), (node, better)
            return better
    return None
