"""Each algebraic rule: both sides on random inputs, bit for bit; and where it must not apply."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import nums_core.array as nc
from nums_core.expr import optimise
from nums_core.expr.node import postorder
from nums_core.expr.rules import algebra
from nums_core.testing.strategies import values

KINDS = ["?", "i1", "u2", "i8", "f2", "f4", "f8", "c8", "c16"]


def data(dtype):
    """Random numbers with everything that is special about a dtype."""
    x = values((40,), dtype, 3)
    if x.dtype.kind == "f":
        return np.concatenate([x, np.array([0.0, -0.0, np.nan, np.inf, -np.inf, np.finfo(dtype).tiny, np.finfo(dtype).max], dtype)])
    if x.dtype.kind == "c":
        parts = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1.5], x.real.dtype)
        special = np.empty((6, 6), dtype)
        special.real, special.imag = parts[:, None], parts
        return np.concatenate([x, special.ravel()])
    if x.dtype.kind in "iu":
        return np.concatenate([x, np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)])
    return x


def steps(x):
    """Elementwise operations that are left after rewriting."""
    return [n.params[0] for n in postorder(optimise.rewrite([x.expr])) if n.op == "ewise"]


def bits(x):
    return np.asarray(x).view(np.uint8)


EXPRESSIONS = [
    ("x * 1", lambda x: x * 1), ("1 * x", lambda x: 1 * x), ("x / 1", lambda x: x / 1), ("x - 0", lambda x: x - 0),
    ("x - -0.0", lambda x: x - -0.0), ("x ** 1", lambda x: x ** 1), ("x ** 2", lambda x: x ** 2), ("x ** 0.5", lambda x: x ** 0.5),
    ("x ** -1", lambda x: x ** -1.0), ("--x", lambda x: -(-x)), ("~~x", lambda x: ~~x), ("x + 0", lambda x: x + 0),
    ("x * 0", lambda x: x * 0), ("x * True", lambda x: x * True), ("x - 0j", lambda x: x - 0j), ("x ** 0", lambda x: x ** 0),
]
FUNCTIONS = ["conjugate", "logical_not", "absolute", "fabs", "floor", "ceil", "trunc", "rint", "sign", "positive"]


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("name, f", EXPRESSIONS, ids=[n for n, _ in EXPRESSIONS])
def test_both_sides_have_the_same_bits(name, f, dtype):
    x = data(dtype)
    compare(f, f, x)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_applied_twice(name, dtype):
    compare(lambda x: getattr(nc, name)(getattr(nc, name)(x)), lambda x: getattr(np, name)(getattr(np, name)(x)), data(dtype))


def compare(lazily, with_numpy, x):
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            want = with_numpy(x)
        except (TypeError, ValueError):
            return
    made = lazily(nc.from_array(x, chunks=len(x)))
    got = made.compute()
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    # A NaN may have any sign and payload.
    numbers = ~np.isnan(want)
    np.testing.assert_array_equal(np.isnan(got), ~numbers)
    if want.dtype.kind == "c":
        for part in (np.real, np.imag):
            known = ~np.isnan(part(want))
            np.testing.assert_array_equal(bits(part(got)[known]), bits(part(want)[known]))
    else:
        np.testing.assert_array_equal(bits(got[numbers]), bits(want[numbers]))


X = nc.from_array(np.linspace(-2, 2, 5))
Z = X + 1j
B, I = X > 0, nc.from_array(np.arange(5))


@pytest.mark.parametrize("made, left", [
    (X * 1, []), (1 * X, []), (X / 1, []), (X - 0, []), (X ** 1, []), (X ** 2, ["square"]), (X ** 0.5, ["sqrt"]),
    (X ** -1, ["reciprocal"]), (-(-X), []), (nc.conj(nc.conj(X)), []), (~~I, []), (nc.logical_not(nc.logical_not(B)), ["greater"]),
    (nc.floor(nc.floor(X)), ["floor"]), (nc.sign(nc.sign(X)), ["sign"]), (nc.logical_or(B, False), ["greater"]),
    (nc.logical_and(B, True), ["greater"]), (-(-(-(-(-X)))), ["negative"]), ((X * 1 - 0) / 1, [])], ids=str)
def test_rules_that_apply(made, left):
    assert steps(made) == left


@pytest.mark.parametrize("made, left", [
    (X + 0, ["add"]), (X * 0, ["multiply"]), (X - -0.0, ["subtract"]), (Z * 1, ["add", "multiply"]), (I / 1, ["divide"]),
    (X * np.ones(5), ["multiply"]), (nc.sign(nc.sign(Z)), ["add", "sign", "sign"]), (I * 1.0, ["multiply"]), (X[:1] * np.ones(3), ["multiply"]),
    (nc.logical_or(X, False), ["logical_or"]), (Z - complex(0, -0.0), ["add", "subtract"])], ids=str)
def test_rules_that_must_not(made, left):
    assert steps(made) == left


def test_complex_powers_are_the_operators():
    z = data("c16")[:40]
    for n in (2, 2.0, 0.5, -1, -1.0, 1, 3):
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(bits((nc.from_array(z) ** n).compute()), bits(z ** n))


def test_every_rule_is_named_here():
    assert {rule.__name__ for _, rule in algebra.RULES} == {"neutral", "involution", "idempotent", "small_power"}
    assert set(FUNCTIONS) | {"negative", "invert"} >= algebra.INVOLUTIONS | algebra.IDEMPOTENT
