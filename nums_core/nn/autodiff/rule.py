"""What a derivative rule is, and what the rules share.

A rule `rule(node, g)` gets a node of the expression that the user built and the cotangent of its result: an Array of
its shape and dtype, or for a node whose blocks are tuples a dict of them by part. It returns one cotangent an operand,
made of Arrays: of the operand's shape; the dtype and the grid are put right by the caller. None stands for zero, a
`Patch` for zeros around a box.

Cotangents of complex values follow the linear convention: a change dx changes the outcome by Re(sum(g * dx)), so that
rules of holomorphic functions need no conjugates and real operands take the real part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from nums_core.array.array import Array
from nums_core.expr import build
from nums_core.expr.node import Expr


class Patch(NamedTuple):
    """A cotangent that is zero but for the strided box of the shape of `value` at `start` (steps positive)."""

    start: tuple[int, ...]
    step: tuple[int, ...]
    value: Array


Cotangent = Array | Patch | None
Rule = Callable[[Expr, Any], Sequence[Cotangent]]


@dataclass(frozen=True)
class NONE:
    """No derivative, and why. Asking for one is an error."""

    why: str


@dataclass(frozen=True)
class ZERO:
    """The derivative is zero wherever there is one, and why."""

    why: str


Row = Rule | NONE | ZERO
Table = dict[Any, Row]


def zeros_like(x: Expr) -> Expr:
    return build.full(0, x.shape, x.dtype, x.chunks)


def unbroadcast(g: Array, like: Expr) -> Array:
    """The sum of `g` over what broadcasting added to `like`."""
    e = g.expr
    back = e.ndim - like.ndim
    added = [i for i in range(e.ndim) if i < back or (like.shape[i - back] == 1 and e.shape[i] != 1)]
    if added:
        e = build.reduce("sum", e, added, keepdims=True)
    return Array(build.axes(e, range(back, e.ndim), e.shape[back:], e.chunks[back:]) if back else e)


def over_reduced(node: Expr, g: Array) -> Array:
    """`g`, of the shape of the reduction `node`, with its reduced axes back, each of extent 1 (topk: k)."""
    x, (_, which, keep, _) = node.args[0], node.params
    if keep:
        return g
    kept = [i for i in range(x.ndim) if i not in which]
    source = [kept.index(i) if i in kept else None for i in range(x.ndim)]
    return Array(build.axes(g.expr, source, tuple(1 if i in which else n for i, n in enumerate(x.shape))))


def spread(g: Array, like: Expr) -> Array:
    """`g` broadcast to the shape and grid of `like`."""
    return Array(build.broadcast_to(g.expr, like.shape, like.chunks))
