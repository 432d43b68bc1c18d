"""Random arrays: values by position alone, numpy's words where promised, and the right distributions."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nums_core.array as nc
from nums_core import session
from nums_core.runtime.devices.random import TILE

N = 3000  # more than two tiles

# Each draws a flat array of N elements (vectors: N // 10 draws).
DRAWS = {
    "random": lambda g, **k: g.random(N, **k),
    "random f4": lambda g, **k: g.random(N, dtype=np.float32, **k),
    "uniform": lambda g, **k: g.uniform(-2, 5, N, **k),
    "normal": lambda g, **k: g.normal(1, 2, N, **k),
    "standard_normal f4": lambda g, **k: g.standard_normal(N, dtype=np.float32, **k),
    "standard_exponential": lambda g, **k: g.standard_exponential(N, **k),
    "standard_exponential inv": lambda g, **k: g.standard_exponential(N, method="inv", **k),
    "standard_gamma": lambda g, **k: g.standard_gamma(0.7, N, **k),
    "integers": lambda g, **k: g.integers(0, 1000, N, **k),
    "integers u1": lambda g, **k: g.integers(0, 256, N, dtype=np.uint8, **k),
    "integers bool": lambda g, **k: g.integers(0, 2, N, dtype=bool, **k),
    "integers endpoint": lambda g, **k: g.integers(5, endpoint=True, size=N, **k),
    "beta": lambda g, **k: g.beta(2, 3, N, **k),
    "binomial": lambda g, **k: g.binomial(40, 0.3, N, **k),
    "chisquare": lambda g, **k: g.chisquare(3, N, **k),
    "exponential": lambda g, **k: g.exponential(2.0, N, **k),
    "f": lambda g, **k: g.f(4, 9, N, **k),
    "gamma": lambda g, **k: g.gamma(2.0, 3.0, N, **k),
    "geometric": lambda g, **k: g.geometric(0.2, N, **k),
    "gumbel": lambda g, **k: g.gumbel(1.0, 2.0, N, **k),
    "hypergeometric": lambda g, **k: g.hypergeometric(20, 30, 25, N, **k),
    "laplace": lambda g, **k: g.laplace(0.0, 1.5, N, **k),
    "logistic": lambda g, **k: g.logistic(0.0, 1.5, N, **k),
    "lognormal": lambda g, **k: g.lognormal(0.0, 0.5, N, **k),
    "logseries": lambda g, **k: g.logseries(0.6, N, **k),
    "negative_binomial": lambda g, **k: g.negative_binomial(5, 0.4, N, **k),
    "noncentral_chisquare": lambda g, **k: g.noncentral_chisquare(3, 2, N, **k),
    "noncentral_f": lambda g, **k: g.noncentral_f(4, 9, 2, N, **k),
    "pareto": lambda g, **k: g.pareto(5, N, **k),
    "poisson": lambda g, **k: g.poisson(3.5, N, **k),
    "power": lambda g, **k: g.power(2, N, **k),
    "rayleigh": lambda g, **k: g.rayleigh(2, N, **k),
    "standard_cauchy": lambda g, **k: g.standard_cauchy(N, **k),
    "standard_t": lambda g, **k: g.standard_t(5, N, **k),
    "triangular": lambda g, **k: g.triangular(0, 1, 3, N, **k),
    "vonmises": lambda g, **k: g.vonmises(0.5, 2, N, **k),
    "wald": lambda g, **k: g.wald(2, 3, N, **k),
    "weibull": lambda g, **k: g.weibull(2, N, **k),
    "zipf": lambda g, **k: g.zipf(3, N, **k),
}
VECTORS = {
    "multinomial": lambda g, **k: g.multinomial(10, [0.2, 0.3, 0.5], N // 10, **k),
    "dirichlet": lambda g, **k: g.dirichlet([1.0, 2.0, 3.0], N // 10, **k),
    "multivariate_normal": lambda g, **k: g.multivariate_normal([0, 5], [[2, 1], [1, 3]], N // 10, **k),
    "multivariate_hypergeometric": lambda g, **k: g.multivariate_hypergeometric([5, 6, 7], 8, N // 10, **k),
}


@pytest.mark.parametrize("name", [*DRAWS, *VECTORS])
def test_values_do_not_depend_on_chunks(name):
    draw = (DRAWS | VECTORS)[name]
    whole = draw(nc.random.default_rng(5), chunks=-1)
    cut = draw(nc.random.default_rng(5), chunks=(97,) if name in VECTORS else 700)
    assert whole.dtype == cut.dtype and cut.numblocks[0] > 2
    np.testing.assert_array_equal(whole.compute(), cut.compute(), strict=True)
    np.testing.assert_array_equal(whole[211:250:3].compute(), whole.compute()[211:250:3], strict=True)


@pytest.mark.parametrize("name", DRAWS)
def test_agrees_with_numpy_in_law(name):
    stats = pytest.importorskip("scipy.stats")
    ours = DRAWS[name](nc.random.default_rng(11)).compute()
    theirs = DRAWS[name](np.random.default_rng(12))
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    if ours.dtype.kind == "f" or name == "integers":
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-4
    else:
        values, counts = np.unique(np.concatenate([ours, theirs]), return_counts=True)
        common = values[counts > 20]
        table = [[np.count_nonzero(x == v) for v in common] for x in (ours, theirs)]
        assert stats.chi2_contingency(table).pvalue > 1e-4


def test_vectors_have_the_right_moments():
    rng = nc.random.default_rng(3)
    x = rng.multivariate_normal([1, -2], [[2.0, 0.5], [0.5, 1.0]], 20_000).compute()
    np.testing.assert_allclose(x.mean(0), [1, -2], atol=0.06)
    np.testing.assert_allclose(np.cov(x.T), [[2.0, 0.5], [0.5, 1.0]], atol=0.08)
    for method in ("eigh", "cholesky"):
        y = rng.multivariate_normal([1, -2], [[2.0, 0.5], [0.5, 1.0]], 20_000, method=method).compute()
        np.testing.assert_allclose(np.cov(y.T), [[2.0, 0.5], [0.5, 1.0]], atol=0.08)
    assert (rng.multinomial(9, [0.5, 0.25, 0.25], (4, 5)).compute().sum(-1) == 9).all()
    np.testing.assert_allclose(rng.dirichlet([1, 1, 1], 100).compute().sum(-1), 1)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("size", [0, 1, 7, 1000, (13, 17)])
def test_random_is_numpys_word_for_word(dtype, size):
    theirs = np.random.Generator(np.random.Philox(42)).random(size, dtype)
    ours = nc.random.default_rng(42).random(size, dtype, chunks=5 if np.ndim(size) == 0 else (4, 3))
    np.testing.assert_array_equal(ours.compute(), theirs, strict=True)


def test_later_calls_are_numpys_from_their_counter():
    rng = nc.random.default_rng(42)
    rng.normal(size=10)
    key = np.random.Philox(42).state["state"]["key"]
    theirs = np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, 1], np.uint64))).uniform(2, 3, 50)
    np.testing.assert_array_equal(rng.uniform(2, 3, 50, chunks=7).compute(), theirs, strict=True)


def _cuts(n):
    return st.lists(st.integers(1, max(n, 1)), max_size=4).map(
        lambda at: tuple(np.diff(sorted({0, n, *[a for a in at if a < n]})).tolist()) or (0,))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_cut_gives_the_same_values(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 70), min_size=1, max_size=3)))
    chunks = tuple(data.draw(_cuts(n)) for n in shape)
    method = data.draw(st.sampled_from(["random", "standard_normal", "poisson"]))
    whole = getattr(nc.random.default_rng(1), method)(size=shape, chunks=-1).compute()
    cut = getattr(nc.random.default_rng(1), method)(size=shape, chunks=chunks)
    np.testing.assert_array_equal(cut.compute(), whole, strict=True)
    flat = getattr(nc.random.default_rng(1), method)(size=int(np.prod(shape))).compute()
    np.testing.assert_array_equal(flat.reshape(shape), whole)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_slice_is_the_slice_of_the_whole(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=3)))
    index = tuple(data.draw(st.slices(n)) for n in shape)
    x = nc.random.default_rng(2).normal(size=shape, chunks=data.draw(st.integers(1, 60)))
    np.testing.assert_array_equal(x[index].compute(), x.compute()[index], strict=True)


@pytest.mark.parametrize("columns", [3, TILE - 1, TILE, 5 * TILE])
def test_blocks_that_cut_long_rows(columns):
    whole = nc.random.default_rng(0).normal(size=(9, columns), chunks=-1).compute()
    cut = nc.random.default_rng(0).normal(size=(9, columns), chunks=(4, max(columns // 3, 1)))
    np.testing.assert_array_equal(cut.compute(), whole)
    np.testing.assert_array_equal(cut[3, ::7].compute(), whole[3, ::7])


def test_a_slice_draws_nothing_else():
    x = nc.random.default_rng(0).normal(size=(10**9, 64))
    row = x[123_456_789].compute()
    assert nc.last_report().n_tasks <= 2
    np.testing.assert_array_equal(row, x[123_456_788:123_456_790].compute()[1])


def test_calls_differ_and_equal_seeds_agree():
    rng = nc.random.default_rng(7)
    a, b = rng.normal(size=5), rng.normal(size=5)
    again = nc.random.default_rng(7)
    assert (a.compute() != b.compute()).all()
    np.testing.assert_array_equal(again.normal(size=5).compute(), a.compute())
    np.testing.assert_array_equal(again.normal(size=5).compute(), b.compute())
    assert nc.random.default_rng().random().compute() != nc.random.default_rng().random().compute()
    assert (a - a).compute().tolist() == [0.0] * 5  # one array, however often it is used


def test_equal_draws_are_one_expression():
    a, b = (nc.random.default_rng(7).normal(size=5) for _ in range(2))
    assert a.expr is b.expr


def test_a_loop_plans_once():
    rng = nc.random.default_rng(0)
    rng.normal(size=333).sum().compute()
    made = session.current().plans_made
    values = {float(rng.normal(size=333).sum().compute()) for _ in range(4)}
    assert session.current().plans_made == made and len(values) == 4


def test_seeds():
    sequence = np.random.SeedSequence(9)
    expected = nc.random.default_rng(9).random(3).compute()
    for seed in (sequence, np.random.Philox(9), np.random.PCG64(9), np.random.default_rng(9), np.random.RandomState(
            np.random.MT19937(9))):
        np.testing.assert_array_equal(nc.random.default_rng(seed).random(3).compute(), expected)
    rng = nc.random.default_rng(9)
    assert nc.random.default_rng(rng) is rng
    keyed = nc.random.Generator(np.random.Philox(key=[1, 2])).random(4).compute()
    np.testing.assert_array_equal(keyed, np.random.Generator(np.random.Philox(key=[1, 2])).random(4))
    np.testing.assert_array_equal(np.random.Generator(rng.bit_generator).random(3), expected)
    with pytest.raises(TypeError):
        nc.random.default_rng("seven")


def test_spawn():
    children = nc.random.default_rng(5).spawn(3)
    values = [c.random(4).compute().tolist() for c in children]
    assert len({tuple(v) for v in values}) == 3
    again = nc.random.default_rng(5).spawn(3)
    assert [c.random(4).compute().tolist() for c in again] == values


def test_pickling_keeps_the_place():
    rng = nc.random.default_rng(5)
    rng.random(3)
    copy = pickle.loads(pickle.dumps(rng))
    np.testing.assert_array_equal(copy.random(3).compute(), rng.random(3).compute())
    x = rng.poisson(2, 30)
    source = pickle.loads(pickle.dumps(x.expr.params[0].data))
    np.testing.assert_array_equal(source[(slice(4, 9),)], x[4:9].compute())


def test_arrays_of_parameters():
    rng = nc.random.default_rng(1)
    loc = np.arange(6.0).reshape(3, 2) * 1000
    x = rng.normal(loc, [1.0, 2.0], chunks=1)
    assert x.shape == (3, 2) and (np.rint(x.compute() / 1000) * 1000 == loc).all()
    counts = rng.poisson(nc.from_array(np.array([0.0, 1e6]), chunks=1), size=(50, 2)).compute()
    assert (counts[:, 0] == 0).all() and (counts[:, 1] > 9e5).all() and counts.dtype == np.int64
    low = np.arange(500)
    for kw in ({}, {"dtype": np.int16}):
        picked = rng.integers(low, low + 1, **kw)
        assert picked.dtype == kw.get("dtype", np.int64)
        np.testing.assert_array_equal(picked.compute(), low)


@pytest.mark.parametrize("name, params", [("gamma", 2), ("poisson", 1), ("binomial", 2), ("normal", 2), ("uniform", 2)])
def test_arrays_of_parameters_do_not_depend_on_chunks(name, params):
    values = [np.linspace(1, 3, 2500) for _ in range(params)]
    if name == "binomial":
        values = [np.arange(1, 2501), np.linspace(0, 1, 2500)]
    draw = lambda chunks: getattr(nc.random.default_rng(4), name)(
        *[nc.from_array(v.reshape(50, 50), chunks=chunks) for v in values], chunks=chunks)
    whole = draw(-1)
    np.testing.assert_array_equal(draw((7, 50)).compute(), whole.compute(), strict=True)
    np.testing.assert_array_equal(draw((20, 9)).compute(), whole.compute(), strict=True)


def test_permutation_and_shuffle():
    rng = nc.random.default_rng(3)
    order = rng.permutation(1000, chunks=130)
    assert sorted(order.compute().tolist()) == list(range(1000)) and order.numblocks == (8,)
    np.testing.assert_array_equal(nc.random.default_rng(3).permutation(1000).compute(), order.compute())
    table = np.arange(60).reshape(20, 3)
    rows = rng.permutation(nc.from_array(table, chunks=(6, 2))).compute()
    assert sorted(map(tuple, rows)) == sorted(map(tuple, table)) and (rows != table).any()
    columns = rng.permutation(table, axis=1).compute()
    assert sorted(columns[0].tolist()) == [0, 1, 2]
    lines = rng.permuted(nc.from_array(table, chunks=4), axis=0).compute()
    np.testing.assert_array_equal(np.sort(lines, axis=0), table)
    assert sorted(rng.permuted(table).compute().ravel().tolist()) == list(range(60))
    x, y, z = nc.arange(50), np.arange(50), list(range(50))
    for thing in (x, y, z):
        assert rng.shuffle(thing) is None
    assert all(sorted(np.asarray(t).tolist()) == list(range(50)) and np.asarray(t).tolist() != list(range(50))
               for t in (x, y, z))


def test_choice():
    rng = nc.random.default_rng(8)
    assert set(rng.choice(5, 300, chunks=64).compute()) == set(range(5))
    drawn = rng.choice(4, 4000, p=[0.1, 0.2, 0.7, 0.0]).compute()
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 4000, [0.1, 0.2, 0.7, 0], atol=0.04)
    unique = rng.choice(100, 40, replace=False).compute()
    assert len(set(unique)) == 40 and unique.dtype == np.intp
    assert set(rng.choice(6, (1, 3), replace=False, p=[0.5, 0.25, 0.25, 0, 0, 0]).compute().ravel()) == {0, 1, 2}
    words = np.array(["a", "bc", "d"])
    assert set(rng.choice(words, 50).compute()) == set(words)
    assert rng.choice(np.arange(12).reshape(4, 3), 5, axis=1).compute().shape == (4, 5)
    assert rng.choice(7).compute() in range(7)


def test_weighted_choice_without_replacement_favours_the_heavy():
    rng = nc.random.default_rng(8)
    first = [int(rng.choice(3, 1, replace=False, p=[0.7, 0.2, 0.1]).compute()[0]) for _ in range(300)]
    np.testing.assert_allclose(np.bincount(first, minlength=3) / 300, [0.7, 0.2, 0.1], atol=0.1)


@pytest.mark.parametrize("call, message", [
    (lambda g: g.normal(0, -1, 5), "scale < 0"),
    (lambda g: g.normal(0, [-1.0, 2.0]), "scale < 0"),
    (lambda g: g.binomial(3, 1.5, 5), "p > 1"),
    (lambda g: g.random(-3), "negative dimensions are not allowed; size=-3"),
    (lambda g: g.integers(5, 5, 3), "low >= high"),
    (lambda g: g.normal(np.zeros(3), 1, size=4), "give size= the shape that the parameters broadcast to"),
    (lambda g: g.choice(3, 5, replace=False), "use replace=True, or a smaller size"),
    (lambda g: g.choice(3, 2, p=[0.5, 0.1, 0.1]), "divide p by its sum"),
    (lambda g: g.choice(3, 2, p=[0.5, 0.5]), "one probability an element"),
    (lambda g: g.choice(3, 2, p=[1.5, -0.5, 0]), "drop NaN and negative"),
    (lambda g: g.choice(0, 2), "a cannot be empty"),
    (lambda g: g.multinomial(3, [0.9, 0.9, 0.1]), "sum"),
    (lambda g: g.multivariate_normal([0, 1], np.eye(3)), "mean and cov"),
    (lambda g: g.random(3, out=nc.zeros(4)), "leave it out"),
])
def test_bad_values_raise_at_once(call, message):
    with pytest.raises(ValueError, match=message):
        call(nc.random.default_rng(0))


@pytest.mark.parametrize("call, message", [
    (lambda g: g.random(2.5), "expected a sequence of integers or a single integer"),
    (lambda g: g.random(3, dtype=int), "Unsupported dtype"),
    (lambda g: g.beta(1), "missing a required argument: 'b'"),
    (lambda g: g.normal(sigma=1), "normal.*loc.*scale.*unexpected keyword argument 'sigma'"),
])
def test_bad_types_raise_at_once(call, message):
    with pytest.raises(TypeError, match=message):
        call(nc.random.default_rng(0))


def test_sizes_and_dtypes():
    rng = nc.random.default_rng(0)
    assert rng.normal().shape == () and isinstance(rng.normal().compute(), float)
    assert rng.normal(size=0).compute().shape == (0,) and rng.poisson(1.0, (3, 0, 2)).compute().shape == (3, 0, 2)
    assert rng.normal(size=np.int64(3)).shape == (3,) and rng.normal(size=[2, 3]).shape == (2, 3)
    assert rng.normal(size=4, dtype="f4").compute().dtype == np.float32
    out = nc.zeros(3)
    assert rng.random(out=out) is out and (out.compute() > 0).all()
    assert isinstance(rng.bytes(5), bytes) and len(rng.bytes(5)) == 5 and rng.bytes(5) != rng.bytes(5)
    assert rng.multinomial(3, [0.5, 0.5]).compute().shape == (2,)


def test_random_state():
    a, b = nc.random.RandomState(1), nc.random.RandomState(1)
    for call in (lambda s: s.rand(2, 3), lambda s: s.randn(4), lambda s: s.randint(0, 9, 5), lambda s: s.random_sample(3),
                 lambda s: s.random_integers(2, size=9), lambda s: s.normal(1, 2, 3), lambda s: s.tomaxint(2),
                 lambda s: s.choice(5, 3), lambda s: s.permutation(4)):
        np.testing.assert_array_equal(call(a).compute(), call(b).compute(), strict=True)
    state = a.get_state()
    first = a.rand(3).compute()
    a.set_state(state)
    np.testing.assert_array_equal(a.rand(3).compute(), first)
    with pytest.raises(ValueError, match="takes what get_state\\(\\) of this class gave"):
        a.set_state(np.random.RandomState(0).get_state())
    a.seed(1)
    np.testing.assert_array_equal(a.rand(2, 3).compute(), nc.random.RandomState(1).rand(2, 3).compute())
    assert set(nc.random.RandomState(0).random_integers(2, size=50).compute()) == {1, 2}
    restored = pickle.loads(pickle.dumps(a))
    assert type(restored) is nc.random.RandomState
    np.testing.assert_array_equal(restored.rand(2).compute(), a.rand(2).compute())


def test_module_functions_share_a_state():
    nc.random.seed(3)
    a = [nc.random.rand(2), nc.random.normal(size=3), nc.random.randint(0, 9, 4), nc.random.poisson(3, 2)]
    nc.random.seed(3)
    b = [nc.random.rand(2), nc.random.normal(size=3), nc.random.randint(0, 9, 4), nc.random.poisson(3, 2)]
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x.compute(), y.compute())
    assert nc.random.PCG64 is np.random.PCG64
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        nc.random.nothing  # noqa: B018


@pytest.mark.parametrize("name", nc.random.__all__)
def test_every_name_is_numpys(name):
    assert hasattr(nc.random, name) and hasattr(np.random, name)
