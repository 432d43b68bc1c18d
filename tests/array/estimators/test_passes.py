"""Passes: sums over row blocks, on any executor, of data of any kind and size."""

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nums_core.array as np
from nums_core import session
from nums_core.array import estimators as es
from nums_core.array.estimators import inputs
from nums_core.array.estimators.moments import moments
from nums_core.array.estimators.passes import each, tiles, total
from nums_core.runtime.executors.local import LocalExecutor
from nums_core.testing.loopback import LoopbackExecutor

MODELS = {
    "linear": es.LinearRegression(), "ridge": es.Ridge(0.5), "lasso": es.Lasso(0.05),
    "newton": es.LogisticRegression(solver="newton-cholesky"), "lbfgs": es.LogisticRegression(solver="lbfgs"),
    "poisson": es.PoissonRegressor(), "pca": es.PCA(2), "pca by qr": es.PCA(2, svd_solver="full"),
    "pca by sketch": es.PCA(2, svd_solver="randomized", random_state=0), "k-means": es.KMeans(3, random_state=0, max_iter=6)}


def problem(n=400, d=4, seed=0):
    rng = numpy.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    return x, rng.poisson(numpy.exp(x @ rng.normal(size=d) / 4)).clip(0, 2), rng.uniform(0.5, 2, size=n)


def fitted(model, x, y):
    made = type(model)(**model.get_params()).fit(x, y)
    return {k: numpy.asarray(v) for k, v in sorted(vars(made).items()) if k.endswith("_")}


def _ones(x, y, w, c, *, twice):
    return (2 if twice else 1) * x.sum(), len(x), x.T @ (y if w is None else w * y) + c


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 4), st.booleans(), st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_total_is_the_sum_over_blocks(rows, d, weighted, twice):
    n = sum(rows)
    rng = numpy.random.default_rng(n)
    x, y, w = rng.normal(size=(n, d)), rng.normal(size=n), rng.normal(size=n)
    cut = [np.from_array(x, (tuple(rows), -1)), np.from_array(y, (tuple(rows),)),
           np.from_array(w, (tuple(rows),)) if weighted else None]
    a, b, c = total(_ones, cut, [numpy.arange(d)], [(), (), (d,)], twice=twice)
    numpy.testing.assert_allclose(a, x.sum() * (1 + twice), atol=1e-12)
    assert b == n
    numpy.testing.assert_allclose(c, x.T @ (y * (w if weighted else 1)) + len(rows) * numpy.arange(d), atol=1e-12)


def test_tiles_cover_all_rows_once():
    for n, width in ((1, 1), (15, 10**7), (100_000, 40)):
        at = 0
        for s in tiles(numpy.empty((n, 0)), width):
            assert s.start == at and s.stop > at
            at = s.stop
        assert at == n


def test_a_pass_is_a_task_a_block_and_a_tree():
    x = np.from_array(numpy.ones((64, 3)), (8, 3)).persist()
    moments(x)
    report = np.last_report()
    assert report.n_tasks == 8 + 8 + 1  # maps, what they add to the sum, and the sum
    with session.init(executor=LoopbackExecutor(4)):
        moments(np.from_array(numpy.ones((64, 3)), (8, 3)).persist())
        assert np.last_report().bytes_moved == 3 * (4 * 4 + 3) * 8  # k - 1 matrices of (d + 1)^2 numbers, and shifts of d


@pytest.mark.parametrize("name", MODELS)
def test_the_same_bits_on_threads_and_on_a_cluster(name):
    x, y, _ = problem()
    got = []
    for executor in (LocalExecutor(1), LocalExecutor(3), LoopbackExecutor(4)):
        with session.init(executor=executor):
            made = fitted(MODELS[name], np.from_array(x, (60, 4)), np.from_array(y, 60))
            got.append({k: v.tobytes() for k, v in made.items()})
    assert got[0] == got[1] == got[2]


@pytest.mark.ray
@pytest.mark.parametrize("name", ["ridge", "newton", "k-means"])
def test_the_same_bits_on_ray(name, ray_executor, monkeypatch):
    x, y, _ = problem()
    cut = np.from_array(x, (60, 4)), np.from_array(y, 60)
    want = fitted(MODELS[name], *cut)
    monkeypatch.setattr(session, "_session", session.Session(ray_executor))
    got = fitted(MODELS[name], *cut)
    assert {k: v.tobytes() for k, v in got.items()} == {k: v.tobytes() for k, v in want.items()}


def test_bad_rows_are_named_on_a_cluster_too():
    x, y, w = problem()
    x[3, 1] = numpy.nan
    with session.init(executor=LoopbackExecutor(2)):
        for model in MODELS.values():
            with pytest.raises(ValueError, match="X contains NaN or infinity; clean it first"):
                fitted(model, np.from_array(x, (60, 4)), y)
        es.Ridge().fit(x[4:], y[4:], w[4:])  # the executor is well


@pytest.mark.parametrize("name", MODELS)
def test_data_larger_than_memory(name, tmp_path):
    """A file four times the budget is read block by block in every pass; nothing is kept."""
    x, y, _ = problem(n=2**15, d=48)
    path = str(tmp_path / "x.npy")
    numpy.save(path, x)
    with session.init(executor=LocalExecutor(2, x.nbytes // 4)) as running:
        on_disk = np.from_array(numpy.load(path, mmap_mode="r"), (2**11, 48))
        (kept,) = inputs.resident(on_disk)
        assert kept is on_disk
        got = fitted(MODELS[name], on_disk, y)
        assert running.last_report.peak_bytes.max() <= x.nbytes // 4
    want = fitted(MODELS[name], np.from_array(x, (2**11, 48)), y)
    for key, value in want.items():
        numpy.testing.assert_allclose(got[key], value, rtol=1e-7, atol=1e-9, err_msg=key)


@pytest.mark.parametrize("name", ["newton", "k-means"])
def test_lazy_data_larger_than_memory_are_made_anew(name):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16_000, 8), chunks=(1000, 8))
    with session.init(executor=LocalExecutor(2, 16_000 * 8 * 8 // 4)):
        got = fitted(MODELS[name], x, numpy.arange(16_000) % 2)
        assert np.last_report().spilled_bytes == 0
    want = fitted(MODELS[name], x, numpy.arange(16_000) % 2)
    assert all(got[k].tobytes() == v.tobytes() for k, v in want.items())


def test_what_is_read_again_and_again_is_kept_where_it_fits():
    x = numpy.ones((50, 2))
    made, read, lazy = np.from_array(x).persist(), np.from_array(x), np.from_array(x) + 1
    got = inputs.resident(made, read, lazy, None)
    assert got[0] is made and got[1] is read and got[3] is None  # memory of this process is as good as kept
    assert got[2].expr.op == "leaf"
    with session.init(executor=LoopbackExecutor(2)):
        (far,) = inputs.resident(np.from_array(x))
        assert far.expr.params[0].kind == "held"  # or it would travel in every pass


def test_wide_blocks_are_cut_finer_before_columns_are_joined():
    x = np.zeros((4096, 512), chunks=(4096, 8))
    with np_config(block_bytes=2**20):
        assert max(inputs.row_blocks(x).chunks[0]) == 256
    assert inputs.row_blocks(np.zeros((100, 6), chunks=(30, 2))).chunks == ((30, 30, 30, 10), (6,))


def np_config(**settings_):
    from nums_core import config

    return config.set(**settings_)


def test_rows_are_checked_where_they_are_used():
    x, y, _ = problem()
    model = es.LinearRegression().fit(x, y)
    x[3, 1] = numpy.inf
    lazy = model.predict(np.from_array(x, (100, 4)))
    with pytest.raises(ValueError, match="clean it first"):
        lazy.compute()
    assert numpy.isfinite(lazy[100:].compute()).all()  # other blocks are well


def test_each_keeps_the_grid():
    x = np.from_array(numpy.arange(10.0).reshape(5, 2), (2, 2))
    made = each(_doubled, [x], [], width=2, dtype=float)
    assert made.chunks == x.chunks
    numpy.testing.assert_array_equal(made.compute(), 2 * numpy.arange(10.0).reshape(5, 2))


def _doubled(x):
    return 2 * x


class Table:
    """As a data frame looks from outside: columns with names, and values."""

    def __init__(self, values, columns):
        self.values, self.columns, self.shape, self.iloc = values, columns, values.shape, None

    def __array__(self, dtype=None, copy=None):
        return self.values


def test_names_of_columns():
    x, y, _ = problem()
    model = es.Ridge().fit(Table(x, ["a", "b", "c", "d"]), y)
    assert model.feature_names_in_.tolist() == ["a", "b", "c", "d"] and model.n_features_in_ == 4
    model.predict(Table(x, ["a", "b", "c", "d"]))
    with pytest.raises(ValueError, match="same order"):
        model.predict(Table(x, ["b", "a", "c", "d"]))
    with pytest.raises(ValueError, match="unseen at fit time:\n- z\nFeature names seen at fit time, yet now missing:\n- d"):
        model.predict(Table(x, ["a", "b", "c", "z"]))
    with pytest.warns(UserWarning, match="does not have valid feature names, but Ridge was fitted with"):
        model.predict(x)
    with pytest.raises(TypeError, match=r"columns.astype\(str\)"):
        es.Ridge().fit(Table(x, ["a", 1, 2, 3]), y)
    assert not hasattr(model.fit(x, y), "feature_names_in_")
    with pytest.warns(UserWarning, match="fitted without feature names"):
        model.predict(Table(x, ["a", "b", "c", "d"]))


def test_sparse_data_name_the_remedy():
    from scipy import sparse

    with pytest.raises(TypeError, match=r"X.toarray\(\)"):
        es.PCA().fit(sparse.csr_array(numpy.eye(3)))


def test_sizes_that_depend_on_data():
    x, y, _ = problem()
    some = x[:, 0] > 0
    a, b = np.from_array(x, (90, 4)), np.from_array(y, 90)
    mask = a[:, 0] > 0
    numpy.testing.assert_allclose(es.Ridge().fit(a[mask], b[mask]).coef_, es.Ridge().fit(x[some], y[some]).coef_, rtol=1e-9)
