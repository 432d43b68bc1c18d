"""Derivatives against finite differences: a random direction, central differences in float64, recursing to order n."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import nums_core.array as na
from nums_core.array.array import Array, asarray
from nums_core.array.computing import compute
from nums_core.nn import tree
from nums_core.nn.autodiff import grad

STEP = 1e-5  # errors of about STEP**2 of the third derivative, and 1e-16 / STEP of the value


def check_grad(f: Callable[..., Any], *args: Any, order: int = 2, rtol: float = 1e-5, atol: float = 1e-7, step: float =
STEP,
               seed: int = 0) -> None:
    """Asserts that the derivatives of `f` agree with finite differences, up to `order`.

    Parameters
    ----------
    f : callable
        A function of Arrays; the floating results of the tree that it returns are weighed at random and added.
    *args : Arrays, ndarrays, or trees of them
        Floating leaves are taken in double precision, on their grids, and moved along one random direction; others
        stay.
    order : int
        How many times to differentiate. The derivative along the direction is the next function to be checked.
    rtol, atol : float
        Of the derivative along the direction.
    """
    rng = np.random.default_rng(seed)
    args = tree.map(_double, args)
    which = [i for i, a in enumerate(args) if any(map(_moves, tree.flatten(a)[0]))]
    direction = tree.map(lambda x: _random_like(x, rng) if _moves(x) else 0, args)
    weights: list[Any] = []

    def outcome(*args: Any) -> Array:
        results = [r for r in tree.flatten(f(*args))[0] if _moves(r)]
        while len(weights) < len(results):
            weights.append(_random_like(results[len(weights)], rng))
        return sum(((w * r).real.sum() for w, r in zip(weights, results, strict=True)), start=asarray(0.0))

    for k in range(1, order + 1):
        outcome, along = _along(outcome, which, direction), outcome
        ahead, behind = (along(*tree.map(lambda x, v, s=s: x + s * v if _moves(x) else x, args, direction))
                         for s in (step, -step))
        high, low, found = compute(ahead, behind, outcome(*args))
        expected = (high - low) / (2 * step)
        np.testing.assert_allclose(found, expected, rtol, atol, err_msg=f"derivative of order {k} along a random "
                                   "direction, beside the central difference")


def _along(f: Callable[..., Array], which: list[int], direction: Any) -> Callable[..., Array]:
    """The derivative of `f` along `direction`, as a function of the same arguments."""
    def derivative(*args: Any) -> Array:
        gradients = grad(f, which)(*args)
        terms = [(g * v).real.sum() for i, gs in zip(which, gradients, strict=True)
                 for g, v in zip(tree.flatten(gs)[0], tree.flatten(direction[i])[0], strict=True)]
        return sum(terms[1:], start=terms[0])
    return derivative


def _moves(x: Any) -> bool:
    return isinstance(x, Array) and x.dtype.kind in "fc"


def _double(x: Any) -> Any:
    """Arrays of arrays, floating ones in double precision."""
    if not isinstance(x, (Array, np.ndarray)):
        return x
    x = asarray(x)
    return x.astype(np.result_type(x.dtype, np.float64)) if x.dtype.kind in "fc" else x


def _random_like(x: Array, rng: np.random.Generator) -> Array:
    values = rng.normal(size=x.shape)
    if x.dtype.kind == "c":
        values = values + 1j * rng.normal(size=x.shape)
    return na.asarray(values).rechunk(x.chunks) if values.ndim else asarray(values)


__all__ = ["check_grad"]
