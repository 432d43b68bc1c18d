"""Reducers and the tiles they are fed: every way to take a block apart gives NumPy's result."""

from __future__ import annotations

import itertools
import warnings

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nums_core.ops.program import Instr, Program, Reduction
from nums_core.ops.reductions import REDUCTIONS
from nums_core.runtime.devices import reducers, reduction, scratch
from nums_core.runtime.devices.reduction import compile_reductions

RNG = numpy.random.default_rng(3)
F8 = (("dtype", "<f8"),)
STD = (("ddof", 1), ("dtype", "<f8"), ("what", "std"))
CASES = {
    "sum": (F8, numpy.sum),
    "prod": (F8, numpy.prod),
    "max": ((), numpy.max),
    "fmin": ((), numpy.fmin.reduce),
    "any": ((), numpy.any),
    "mean": (F8, numpy.mean),
    "moments": (STD, lambda x, axis: numpy.std(x, axis=axis, ddof=1)),
    "count": ((), numpy.count_nonzero),
}
# Shapes that take each path where tiles hold 1024 elements: one tile, a long line, narrow and wide rows, short last axes.
SHAPES = [(5, 4), (9000,), (3000, 2), (3000, 7), (77, 60), (40, 700), (2, 5000), (2500, 3), (12, 20, 30), (500, 3, 4)]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr("nums_core.runtime.devices.fused.TILE_BYTES", 8192)


def program(ndim, instrs=(), dtype="<f8", consts=()):
    return Program(ndim, (tuple(range(ndim)),), (dtype,), consts, instrs)


def run(x, names, axes, **kw):
    """The finished results of one pass with several reductions."""
    rows = [Reduction(n, a, CASES[n][0]) for n, a in zip(names, axes, strict=True)]
    states = compile_reductions(program(x.ndim, **kw), rows)(None, [x])
    states = (states,) if len(rows) == 1 else states
    return [reducers.finisher(reducers.make(r.name, r.axes, dict(r.kw)), r.axes, None)(s)
            for r, s in zip(rows, states, strict=True)]


def some_axes(ndim):
    return [a for n in range(1, ndim + 1) for a in itertools.combinations(range(ndim), n)]


def layouts(x):
    yield x
    yield numpy.asfortranarray(x)
    yield x[::-1]
    yield numpy.broadcast_to(x[..., :1], x.shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_every_path(name, shape):
    for x, axes in itertools.product(layouts(RNG.uniform(0.99, 1.01, shape)), some_axes(len(shape))):
        (got,) = run(x, [name], [axes])
        numpy.testing.assert_allclose(got, CASES[name][1](x, axis=axes), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_after_instructions(shape):
    x = RNG.uniform(0.66, 0.67, shape)
    instrs = (Instr("multiply", (0, 1), "<f8"), Instr("sqrt", (2,), "<f8"))
    for axes in some_axes(len(shape)):
        for got, name in zip(run(x, list(CASES), [axes] * len(CASES), instrs=instrs, consts=(1.5,)), CASES, strict=True):
            numpy.testing.assert_allclose(got, CASES[name][1](numpy.sqrt(x * 1.5), axis=axes), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_several_in_one_pass_over_different_axes(shape):
    x = RNG.normal(size=shape)
    axes = some_axes(len(shape))
    names = list(itertools.islice(itertools.cycle(["mean", "moments", "max"]), len(axes)))
    for got, name, a in zip(run(x, names, axes), names, axes, strict=True):
        numpy.testing.assert_allclose(got, CASES[name][1](x, axis=a), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16", "i4", "?"])
@pytest.mark.parametrize("shape", [(9000,), (3000, 3), (60, 70)], ids=str)
def test_moments_of_every_dtype(dtype, shape):
    x = (RNG.normal(size=shape) * 5 + (1j * RNG.normal(size=shape) if dtype[0] == "c" else 0)).astype(dtype)
    work = x.dtype.str if x.dtype.kind in "fc" else "<f8"
    for axes in some_axes(len(shape)):
        kernel = compile_reductions(program(x.ndim, dtype=x.dtype.str), [
            Reduction("moments", axes, (("dtype", work), ("what", "var")))], (axes, numpy.var(x[:1]).dtype.str))
        numpy.testing.assert_allclose(kernel(None, [x]), x.var(axis=axes), rtol=1e-5 if dtype in ("f4", "c8") else 1e-10)


@pytest.mark.parametrize("name", ["mean", "moments"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_nan_are_skipped_in_the_same_pass(name, share):
    kw = (*F8, ("skip_nan", True), *((("what", "var"),) if name == "moments" else ()))
    reference = numpy.nanmean if name == "mean" else numpy.nanvar
    for shape in ((9000,), (3000, 3), (60, 70)):
        x = RNG.normal(size=shape) + 100
        x[RNG.random(shape) < share] = numpy.nan
        for axes in some_axes(len(shape)):
            kernel = compile_reductions(program(x.ndim), [Reduction(name, axes, kw)], (axes, "<f8"))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = reference(x, axis=axes)
            numpy.testing.assert_allclose(kernel(None, [x]), expected, rtol=1e-9)


def test_result_goes_where_it_is_wanted():
    x, out = RNG.normal(size=(300, 40)), numpy.empty(40)
    kernel = compile_reductions(program(2), [Reduction("sum", (0,), F8)], ((0,), "<f8"))
    assert kernel(None, [x], out) is out
    numpy.testing.assert_allclose(out, x.sum(axis=0))


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_first_extreme_across_tiles(name):
    for shape in ((9000,), (60, 70), (12, 20, 30)):
        x = RNG.integers(0, 5, shape).astype(float)
        for axes in [(a,) for a in range(len(shape))] + [tuple(range(len(shape)))]:
            row = Reduction(name, axes, (("shape", shape),))
            got = compile_reductions(program(x.ndim), [row], (axes, "<i8"))(tuple((0, n) for n in shape), [x])
            expected = getattr(numpy, name)(x, axis=axes[0] if len(axes) < len(shape) else None)
            numpy.testing.assert_array_equal(got, expected)


# -- states -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["max", "fmax"])
def test_a_block_without_elements_has_a_neutral_state(name):
    r = reducers.make(name, (0,), {})
    nothing, some = r.map(numpy.zeros((0, 3)), (0, 0)), r.map(numpy.arange(6.0).reshape(2, 3), (0, 0))
    assert nothing.shape == (0, 3)
    for a, b in ((nothing, some), (some, nothing)):
        numpy.testing.assert_array_equal(r.combine(a, b), [[3, 4, 5]])
    assert r.combine(nothing, nothing).shape == (0, 3)
    with pytest.raises(ValueError, match="zero-size array"):
        r.finish(nothing)


@pytest.mark.parametrize("kw", [{}, {"skip_nan": True}])
def test_argmax_of_no_elements(kw):
    r = reducers.make("argmax", (0,), {"shape": (2, 3), **kw})
    nothing, some = r.map(numpy.zeros((0, 3)), (0, 0)), r.map(numpy.eye(2, 3), (0, 0))
    numpy.testing.assert_array_equal(r.finish(r.combine(nothing, some)), [[0, 1, 0]])
    numpy.testing.assert_array_equal(r.finish(r.combine(some, nothing)), [[0, 1, 0]])
    with pytest.raises(ValueError, match="attempt to get argmax of an empty sequence"):
        r.finish(nothing)


def test_a_long_tally_absorbs_a_short_one():
    r = reducers.make("tally", (0,), {})
    a, b = numpy.array([1, 2]), numpy.array([1, 1, 1, 5])
    assert r.combine(a, b).tolist() == r.combine(b, a).tolist() == [2, 3, 1, 5]
    assert a.tolist() == [1, 2] and b.tolist() == [1, 1, 1, 5]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=9), st.integers(0, 2**32 - 1))
def test_any_split_of_ill_conditioned_data(sizes, seed):
    """Moments of parts, combined one after the other or all at once, are those of the whole."""
    x = numpy.random.default_rng(seed).normal(size=sum(sizes)) + 1e7
    r = reducers.make("moments", (0,), {"dtype": "<f8", "what": "var"})
    parts = [r.map(p, (0,)) for p in numpy.split(x, numpy.cumsum(sizes)[:-1])]
    one = parts[0]
    for p in parts[1:]:
        one = r.combine(one, p)
    for n, mean, square in (one, r.merge(parts)):
        assert n == len(x)
        if n:
            numpy.testing.assert_allclose(mean, x.mean(), rtol=1e-14)
            numpy.testing.assert_allclose(square, ((x - x.mean()) ** 2).sum(), rtol=1e-6, atol=1e-6)


def test_every_row_has_a_reducer():
    assert set(reducers.REDUCERS) == set(REDUCTIONS)


def test_inputs_are_never_written():
    for name, shape in itertools.product(CASES, SHAPES):
        x = RNG.uniform(0.5, 1.5, shape)
        x.setflags(write=False)
        for axes in some_axes(len(shape)):
            run(x, [name], [axes])


def test_scratch_memory_belongs_to_a_key():
    a = scratch.empty("a", (4, 5), numpy.dtype(float))
    assert scratch.empty("a", (4, 5), numpy.dtype(float)) is a
    assert not numpy.shares_memory(a, scratch.empty("b", (4, 5), numpy.dtype(float)))
    grown = scratch.empty("a", (4000, 5), numpy.dtype(float))
    assert numpy.shares_memory(grown, scratch.empty("a", (4, 5), numpy.dtype(float)))
    f = scratch.empty_like(numpy.empty((4, 5, 6)).transpose(2, 0, 1), "c", numpy.dtype("f4"))
    assert f.shape == (6, 4, 5) and f.strides == (4, 120, 24)


def test_partial_states_are_merged_on_the_way(monkeypatch):
    monkeypatch.setattr(reduction, "PENDING", 3)
    x = RNG.normal(size=20_000)
    numpy.testing.assert_allclose(run(x, ["moments"], [(0,)])[0], x.std(ddof=1), rtol=1e-12)
