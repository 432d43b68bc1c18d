"""grad, value_and_grad, vjp, checkpoint, stop_gradient: functions of trees of Arrays by what they build.

A function is called once on its arguments, each leaf under an identity of its own; what it built is walked backwards,
and the derivative is one more expression, computed, planned and differentiated again like any other. Nothing is
computed here.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nums_core.array.array import Array, asarray
from nums_core.errors import DTypeError, ShapeError
from nums_core.expr import build, marks
from nums_core.expr.node import Expr
from nums_core.nn import tree
from nums_core.nn.autodiff.reverse import reverse, substitute
from nums_core.nn.autodiff.rule import zeros_like

Function = Callable[..., Any]


def grad(f: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    """The gradient of a scalar function.

    Parameters
    ----------
    f : callable
        Returns a real Array of shape (); with `has_aux`, a pair of it and a tree of anything else.
    argnums : int or sequence of int
        Positions of the arguments to differentiate by: floating Arrays, or trees of them.
    has_aux : bool

    Returns
    -------
    callable, with the arguments of `f`: the gradient in the structure of the argument (a tuple of them where `argnums`
    is a sequence), each leaf with the shape, dtype and grid of its Array; with `has_aux`, a pair with the rest of the
    results. For complex arguments, the g with which a change dx changes the outcome by Re(sum(g * dx)).

    Raises
    ------
    ShapeError, DTypeError
        The result is no scalar, or not real; an argument to differentiate by is not floating.
    NoDerivativeError
        The result depends on an argument by way of an operation without derivative.

    Notes
    -----
    About two times the flop of `f`. What the derivative reads of the forward pass stays in memory until then: `saved`
    lists it, `checkpoint` makes it less. Values that Python asks for on the way (`float(x)`, `x.compute()`) are
    constants; functions under `jit` are differentiated like any other.
    """
    both = value_and_grad(f, argnums, has_aux)

    @functools.wraps(f)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, g = both(*args, **kwargs)
        return (g, value[1]) if has_aux else g
    return gradient


def value_and_grad(f: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    """Like `grad`, with the value: a function that returns (value, gradient), or ((value, aux), gradient)."""
    several = not isinstance(argnums, int)
    which = tuple(argnums) if not isinstance(argnums, int) else (argnums,)

    @functools.wraps(f)
    def both(*args: Any, **kwargs: Any) -> Any:
        inputs = _Inputs(args, _positions(which, len(args)), strict=True)
        made = f(*inputs.args, **kwargs)
        value, aux = _with_aux(made) if has_aux else (made, None)
        value = _scalar(value)
        one = Array(build.full(1, (), value.dtype, ()))
        leaves, static = tree.flatten((value, aux))
        gradients = inputs.pullback([value.expr], [one])
        leaves = inputs.arrays_of(leaves)
        value, aux = tree.unflatten(static, leaves)
        g = tuple(inputs.rebuild(gradients))
        return ((value, aux) if has_aux else value), (g if several else g[0])
    return both


def vjp(f: Function, *args: Any) -> tuple[Any, Function]:
    """The value of `f(*args)` and the map from a cotangent of it to cotangents of the arguments.

    Returns
    -------
    out : what `f` returns, a tree of Arrays
    pullback : callable
        Takes a tree like `out` (Arrays of the same shapes) and returns a tuple with a tree for each argument; None
        stands where an argument is no floating Array.
    """
    inputs = _Inputs(args, range(len(args)), strict=False)
    leaves, static = tree.flatten(f(*inputs.args))
    roots = [asarray(x).expr for x in leaves]

    def pullback(cotangent: Any) -> tuple[Any, ...]:
        given = _cotangents(cotangent, static, roots)
        return tuple(inputs.rebuild(inputs.pullback(roots, given)))
    return tree.unflatten(static, inputs.arrays_of([Array(r) for r in roots])), pullback


def checkpoint(f: Function) -> Function:
    """`f`, whose inner values are not kept for the derivative but computed again when it needs them
    (rematerialisation).

    The arguments and results of `f` stay in memory between the two passes, what lies between them does not; the forward
    pass of `f` runs twice. What `f` makes from its leaf arguments alone (parameters), where it has others too, is made
    once.

    Returns
    -------
    callable, with the arguments and results of `f`: trees of Arrays

    References
    ----------
    .. [1] T. Chen, B. Xu, C. Zhang, C. Guestrin, "Training deep nets with sublinear memory cost", 2016.
    """
    @functools.wraps(f)
    def again(*args: Any, **kwargs: Any) -> Any:
        operands = [x.expr for x in tree.flatten((args, kwargs))[0] if isinstance(x, Array)]
        leaves, static = tree.flatten(f(*args, **kwargs))
        results = [x.expr for x in leaves if isinstance(x, Array)]
        operands = list({id(x): x for x in operands}.values())
        if not results or not operands:
            return tree.unflatten(static, leaves)
        parts = iter(map(Array, marks.region(results, operands)))
        return tree.unflatten(static, [next(parts) if isinstance(x, Array) else x for x in leaves])
    return again


def stop_gradient(x: Any) -> Any:
    """`x` as a constant: no derivative goes through. An Array or a tree of them."""
    return tree.map(lambda a: Array(marks.stop(a.expr)) if isinstance(a, Array) else a, x)


# -- arguments --------------------------------------------------------------------------------------------------------

class _Inputs:
    """The arguments of one call: those to differentiate by stand under an identity of their own.

    Attributes
    ----------
    args : tuple
        What the function is called with.
    places : list of Expr
        The identities.
    """

    def __init__(self, args: Sequence[Any], which: Sequence[int], *, strict: bool) -> None:
        self.places: list[Expr] = []
        self.given: dict[int, Expr] = {}
        self.trees: list[tuple[Any, list[bool]]] = []  # of each argument, its structure and which leaves are floating
        out = list(args)
        for position in which:
            out[position] = self._take(args[position], position, strict)
        self.args = tuple(out)

    def _take(self, argument: Any, position: int, strict: bool) -> Any:
        leaves, static = tree.flatten(argument)
        floating = [_is_floating(x) for x in leaves]
        if strict:
            _check_floating(argument, floating, position)
        self.trees.append((static, floating))
        return tree.unflatten(static, [self._place(x) if ok else x for x, ok in zip(leaves, floating, strict=True)])

    def _place(self, x: Any) -> Array:
        e = asarray(x).expr
        place = marks.argument(e)
        self.places.append(place)
        self.given[id(place)] = e
        return Array(place)

    def pullback(self, roots: Sequence[Expr], cotangents: Sequence[Any]) -> list[Expr]:
        """Cotangents of the floating leaves; zeros where nothing depends on one."""
        found = reverse(roots, cotangents, self.places)
        return [zeros_like(p) if g is None else g for p, g in zip(self.places, found, strict=True)]

    def arrays_of(self, leaves: Sequence[Any]) -> list[Any]:
        """Leaves in terms of the arguments as they were given."""
        exprs = [x.expr for x in leaves if isinstance(x, Array)]
        made = iter(substitute(exprs, self.given))
        return [Array(next(made)) if isinstance(x, Array) else x for x in leaves]

    def rebuild(self, cotangents: Sequence[Expr]) -> list[Any]:
        """One tree an argument."""
        made = iter(self.arrays_of([Array(g) for g in cotangents]))
        return [tree.unflatten(static, [next(made) if ok else None for ok in floating])
                for static, floating in self.trees]


def _is_floating(x: Any) -> bool:
    if isinstance(x, (Array, np.ndarray, np.generic)):
        return x.dtype.kind in "fc"
    return isinstance(x, (float, complex))


def _check_floating(argument: Any, floating: Sequence[bool], position: int) -> None:
    for (path, leaf), ok in zip(tree.paths(argument), floating, strict=True):
        if not ok:
            where = f"argument {position}" + (f" at {path!r}" if path else "")
            what = f"dtype {leaf.dtype}" if hasattr(leaf, "dtype") else f"type {type(leaf).__name__}"
            raise DTypeError(f"grad() by {where}, which is of {what}: derivatives are of floating arrays; cast it with "
                             ".astype('float32'), pass it as an argument that argnums does not name, or make it a "
                             "static field")


def _positions(which: Sequence[int], n: int) -> list[int]:
    for k in which:
        if not -n <= k < n:
            raise ValueError(f"argnums={k} for a call with {n} positional argument(s); arguments to differentiate by "
                             "must be passed by position")
    return [k % n for k in which]


# -- results ----------------------------------------------------------------------------------------------------------

def _with_aux(made: Any) -> tuple[Any, Any]:
    if not isinstance(made, tuple) or len(made) != 2:
        raise TypeError(f"with has_aux=True the function must return a pair (value, aux), not {type(made).__name__}; "
                        "return (loss, extra), or leave out has_aux")
    return made


def _scalar(value: Any) -> Array:
    if not isinstance(value, (Array, np.ndarray, np.generic, numbers.Number)):
        raise TypeError(f"grad() of a function that returns {type(value).__name__}; return an Array of shape (), or "
                        "with has_aux=True a pair of it and the rest")
    value = asarray(value)
    if value.shape != ():
        raise ShapeError(f"grad() of a function with a result of shape {value.shape}: gradients are of scalars; sum or "
                         "average it with .sum() or .mean(), or use vjp()")
    if value.dtype.kind != "f":
        raise DTypeError(f"grad() of a function with a result of dtype {value.dtype}: gradients are of real numbers; "
                         "use .real or abs(), or cast it with .astype('float32')")
    return value


def _cotangents(cotangent: Any, static: Any, roots: Sequence[Expr]) -> list[Array]:
    """Leaves of a cotangent, checked against the results."""
    leaves, structure = tree.flatten(cotangent)
    if structure != static:
        raise ShapeError("the cotangent's structure is not that of the function's result; build it with "
                         "tree.map(f, out)")
    out = [asarray(x, r.dtype) for x, r in zip(leaves, roots, strict=True)]
    for c, r in zip(out, roots, strict=True):
        if c.shape != r.shape:
            raise ShapeError(f"a cotangent of shape {c.shape} for a result of shape {r.shape}; they must be equal: "
                             "broadcast it with np.broadcast_to")
    return out


__all__ = ["checkpoint", "grad", "stop_gradient", "value_and_grad", "vjp"]
