"""Marks: nodes that say something to automatic differentiation and nothing to the planner, which never sees them.

    argument (x), a number                a fresh identity of x, so that equal arguments of a function stay apart
    stop (x)                              no derivative goes through
    region (y.., x..), number of y        results y of a function of x that is to be run again for the derivative
    part (region), k                      result k of a region
    kept (values, x)                      x whose values were computed on the way; the derivative is that of x
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from nums_core.expr.node import Expr, make, postorder

_number = itertools.count()


def argument(x: Expr) -> Expr:
    return make("argument", (x,), (next(_number),), x.shape, x.dtype, x.chunks)


def stop(x: Expr) -> Expr:
    return make("stop", (x,), (), x.shape, x.dtype, x.chunks)


def region(results: Sequence[Expr], operands: Sequence[Expr]) -> list[Expr]:
    """The results as parts of a region over the operands."""
    made = make("region", (*results, *operands), (len(results),), (), "V", ())
    return [make("part", (made,), (k,), r.shape, r.dtype, r.chunks) for k, r in enumerate(results)]


def kept(values: Expr, x: Expr) -> Expr:
    """`values`, which are what `x` is; where `x` is being differentiated, with `x` beside them."""
    if not differentiated([x]):
        return values
    return make("kept", (values, x), (), values.shape, values.dtype, values.chunks)


def differentiated(roots: Sequence[Expr]) -> bool:
    """Whether any of `roots` is made from an argument of a function that is being differentiated."""
    return any(n.op == "argument" for n in postorder(roots))
