"""Every kind of expression has a derivative or an explicit reason why not; elementwise rows against finite differences."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import nums_core
import nums_core.array as na
from nums_core.array.array import Array
from nums_core.errors import NoDerivativeError
from nums_core.expr import build, lower
from nums_core.nn.autodiff import grad
from nums_core.nn.autodiff.elementwise import BITS, EWISE
from nums_core.nn.autodiff.linalg import LINALG
from nums_core.nn.autodiff.reductions import REDUCE, SCAN
from nums_core.nn.autodiff.reverse import WALKED
from nums_core.nn.autodiff.rule import NONE, ZERO
from nums_core.nn.autodiff.vjps import KEY, OTHERWISE, VJPS
from nums_core.ops.elementwise import ELEMENTWISE, UFUNCS
from nums_core.ops.reductions import REDUCTIONS
from nums_core.ops.scans import SCANS
from nums_core.runtime.devices.linalg import WHOLE
from nums_core.testing.gradients import check_grad

PACKAGE = Path(nums_core.__file__).parent


@pytest.mark.parametrize("rows, table", [(ELEMENTWISE, EWISE), (REDUCTIONS, REDUCE), (SCANS, SCAN), (WHOLE, LINALG)],
                         ids=["elementwise", "reductions", "scans", "linalg"])
def test_every_row_of_a_table_has_a_derivative_or_a_reason(rows, table):
    assert set(table) == set(rows)
    for row in table.values():
        assert callable(row) or (isinstance(row, (NONE, ZERO)) and row.why)


def test_every_kind_of_expression_has_a_row():
    text = "\n".join(p.read_text() for folder in ("array", "expr", "nn", "llm") for p in (PACKAGE / folder).rglob("*.py"))
    built = set(re.findall(r'\b(?:make|wrap|custom|_marked)\(\s*"([a-z_]+(?:\.[a-z_]+)?)"', text)) | set(lower.LOWER)
    assert {"ewise", "contract", "index.points", "sort.sort", "linalg.blocks", "barrier.after", "stop"} <= built
    assert built - set(VJPS) - WALKED == set()
    assert set(VJPS) - built == set(), "rows for what nobody builds"
    assert {op for op, row in VJPS.items() if isinstance(row, dict)} == set(KEY)
    assert set(OTHERWISE) <= set(KEY)


POSITIVE = {"log", "log2", "log10", "log1p", "sqrt", "power", "float_power", "cbrt", "reciprocal"}
INSIDE = {"arcsin", "arccos", "arctanh"}  # (-1, 1)
BEYOND = {"arccosh"}  # (1, inf)
INTEGER_SECOND = {"ldexp"}


def operands(name):
    rng = np.random.default_rng(len(name))
    row = ELEMENTWISE[name]
    x, y = rng.uniform(0.3, 2.0, (2, 3, 4)) * rng.choice([-1, 1], (2, 3, 4))
    if name in POSITIVE:
        x, y = abs(x), y
    if name in INSIDE:
        x, y = x / 2.5, y / 2.5
    if name in BEYOND:
        x = abs(x) + 1.2
    if name in INTEGER_SECOND:
        y = np.arange(12).reshape(3, 4) - 4
    return [na.asarray(v).rechunk((2, 2)) for v in (x, y)][:row.nin]


def apply(name, *arrays):
    return Array(build.elementwise(name, [a.expr for a in arrays]))


SMOOTH = sorted(n for n, row in EWISE.items() if callable(row) and n not in ("where", "cast"))


@pytest.mark.parametrize("name", SMOOTH)
def test_elementwise_rows_agree_with_finite_differences(name):
    check_grad(lambda *xs: apply(name, *xs), *operands(name), order=1 if name == "nextafter" else 2)


@pytest.mark.parametrize("name", [n for n in SMOOTH if ELEMENTWISE[n].nin == 2 and n not in INTEGER_SECOND])
def test_binary_rows_sum_over_what_was_broadcast(name):
    x, y = operands(name)
    check_grad(lambda a, b: apply(name, a, b), x[:, :1], y[0], order=1)
    check_grad(lambda a: apply(name, a, abs(a)), x, order=1)  # one operand twice


@pytest.mark.parametrize("name", sorted(n for n, row in EWISE.items() if isinstance(row, ZERO) and row is not BITS))
def test_rows_without_slope_give_zeros(name):
    if name in ("isnat", "searchsorted"):
        pytest.skip("takes no floating operands of one shape")
    xs = operands(name)[:ELEMENTWISE[name].nin]
    made = grad(lambda *xs: (apply(name, *xs).astype(float) + 0 * xs[0]).sum())(*xs)
    assert made.compute().tolist() == np.zeros((3, 4)).tolist()


def test_where_and_casts():
    x = na.asarray(np.random.default_rng(0).normal(size=(3, 4)))
    check_grad(lambda x, y: na.where(x > 0, x * y, y**3), x, x[0])
    assert grad(lambda x: x.astype("f4").sum())(x).dtype == np.float64
    assert grad(lambda x: x.astype(int).sum() * 1.0)(x).compute().any() == 0


@pytest.mark.parametrize("f, value", [
    (lambda x: x**2, 0.0), (lambda x: x**0, 0.0), (lambda x: na.power(0.0 * x, 1 + 0 * x), 0.0), (na.sinc, 0.0), (abs, 0.0),
    (lambda x: na.maximum(x, -x), 0.0)])
def test_slopes_at_zero_are_numbers(f, value):
    assert grad(f)(na.asarray(0.0)).compute() == value


def test_complex_operands_follow_the_linear_convention():
    rng = np.random.default_rng(1)
    z = na.asarray(rng.normal(size=(3, 2)) + 1j * rng.normal(size=(3, 2)))
    for f in (abs, na.exp, lambda z: na.conj(z) * z * z, na.sign, lambda z: na.angle(z, deg=True), lambda z: z.real * z.imag, na.tanh,
              lambda z: 1 / z, lambda z: z**3):
        check_grad(f, z)
    check_grad(lambda x: na.exp(1j * x) * x, na.asarray(rng.normal(size=4)))
    np.testing.assert_allclose(grad(lambda z: (abs(z)**2).sum())(z).compute(), 2 * np.conj(z.compute()))


def test_no_derivative_says_why_and_where():
    x = na.asarray(np.ones(3))
    for f, why in ((na.i0, "Bessel"), (na.frompyfunc(lambda v: v * 2, 1, 1), "frompyfunc|primitive"),
                   (lambda x: na.map_blocks(np.fft.fftshift, x), "primitive"), (lambda x: na.nanpercentile(x, 30), "method='linear'"),
                   (lambda x: na.linalg.eigvals(x[:, None] * x).real, "eigvalsh")):
        with pytest.raises(NoDerivativeError, match=why):
            grad(lambda x, f=f: f(x).astype(float).sum())(x)
    with pytest.raises(NoDerivativeError, match=rf"stop_gradient.*{re.escape(__file__)}"):
        grad(lambda x: na.i0(x).sum())(x)


@pytest.mark.parametrize("name", ["multiply", "tanh"])
def test_ufuncs_are_named_as_numpy_names_them(name):
    assert name in UFUNCS and name in EWISE
