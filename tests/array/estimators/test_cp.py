"""CP decomposition against a plain NumPy version, on tensors of known factors, and its plans."""

import math

import numpy
import pytest

import nums_core.array as np
from nums_core import session
from nums_core.array.estimators import CP, cp_als, mttkrp
from nums_core.runtime.executors.local import LocalExecutor
from nums_core.testing.loopback import LoopbackExecutor


def planted(shape, rank, seed=0, noise=0.0):
    rng = numpy.random.default_rng(seed)
    factors = [rng.normal(size=(n, rank)) for n in shape]
    t = full(numpy.ones(rank), factors)
    return t + noise * numpy.linalg.norm(t) / math.sqrt(t.size) * rng.normal(size=shape), factors


def full(weights, factors):
    letters = "abcdef"[:len(factors)]
    return numpy.einsum("z," + ",".join(f"{c}z" for c in letters) + "->" + letters, weights, *factors)


def plain_als(t, factors, sweeps):
    """Kolda and Bader's figure 3.3, as they write it: unfoldings, Khatri-Rao products, pseudo-inverses."""
    factors = [a.copy() for a in factors]
    for _ in range(sweeps):
        for mode in range(t.ndim):
            rest = [factors[k] for k in range(t.ndim) if k != mode]
            kr = rest[0]
            for a in rest[1:]:
                kr = (kr[:, None, :] * a[None]).reshape(-1, kr.shape[1])
            v = numpy.prod([a.T @ a for a in rest], axis=0)
            a = numpy.moveaxis(t, mode, 0).reshape(t.shape[mode], -1) @ kr @ numpy.linalg.pinv(v)
            weights = numpy.linalg.norm(a, axis=0)
            factors[mode] = a / weights
    return weights, factors


@pytest.mark.parametrize(("shape", "chunks"), [((12, 10, 8), (5, 4, 8)), ((12, 10, 8), (12, 10, 8)), ((6, 5, 4, 3), (3, 5, 2, 2)),
                                               ((9, 7), (4, 3))], ids=str)
def test_agrees_with_plain_numpy(shape, chunks):
    t, _ = planted(shape, 3, noise=0.1)
    begin = [numpy.random.default_rng(k).normal(size=(n, 3)) for k, n in enumerate(shape)]
    with pytest.warns(UserWarning, match="raise max_iter"):
        got = cp_als(np.from_array(t, chunks), 3, init=begin, max_iter=3, tol=0.0)
    weights, factors = plain_als(t, begin, 3)
    order = numpy.argsort(-weights)
    numpy.testing.assert_allclose(got.weights, weights[order], rtol=1e-6)
    for mine, theirs in zip(got.factors, factors, strict=True):
        numpy.testing.assert_allclose(mine.compute(), theirs[:, order], atol=1e-6)
    error = numpy.linalg.norm(full(weights, factors) - t) / numpy.linalg.norm(t)
    assert got.relative_error == pytest.approx(error, abs=1e-7) and got.n_iter == 3
    numpy.testing.assert_allclose(got.full().compute(), full(weights, factors), atol=1e-6)


@pytest.mark.parametrize("init", ["random", "svd"])
def test_recovers_planted_factors(init):
    t, true = planted((20, 18, 16), 4)
    got = cp_als(np.from_array(t, (7, 6, 16)), 4, init=init, random_state=1, max_iter=500, tol=1e-10)
    assert got.relative_error < 1e-6
    for mine, theirs in zip(got.factors, true, strict=True):  # up to order and sign
        cosine = abs(mine.compute().T @ (theirs / numpy.linalg.norm(theirs, axis=0)))
        numpy.testing.assert_allclose(sorted(cosine.max(axis=0)), 1, atol=1e-5)


def test_a_rank_that_is_too_large_is_no_error():
    t, _ = planted((6, 5, 4), 2)
    got = cp_als(t, 5, random_state=0, max_iter=60, tol=1e-7)
    assert got.relative_error < 1e-2 and numpy.isfinite(got.weights).all()


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 4), (3, 4, 5, 6), (1, 4, 1)], ids=str)
@pytest.mark.parametrize("mode", [0, 1, -2, -1])
def test_mttkrp(shape, mode):
    rng = numpy.random.default_rng(0)
    t, factors = rng.normal(size=shape), [rng.normal(size=(n, 3)) for n in shape]
    letters, mode = "abcd"[:len(shape)], mode % len(shape)
    others = [k for k in range(len(shape)) if k != mode]
    terms = ",".join(f"{letters[k]}z" for k in others)
    want = numpy.einsum(f"{letters},{terms}->{letters[mode]}z", t, *(factors[k] for k in others))
    for order in "CF":
        cut = np.from_array(numpy.asarray(t, order=order), (4, 2, 4, 5)[:len(shape)])
        got = mttkrp(cut, factors, mode)
        assert got.chunks == (cut.chunks[mode], (3,))
        numpy.testing.assert_allclose(got.compute(), want)


def test_mttkrp_moves_rows_of_factors_and_sums_alone():
    """The tensor stays, and so do products of the factors' rows."""
    shape, rank = (64, 48, 40), 5
    t = numpy.random.default_rng(0).normal(size=shape)
    with session.init(executor=LoopbackExecutor(4)):
        cut = np.from_array(t, (16, 48, 40)).persist()
        factors = [np.from_array(numpy.ones((n, rank)), (c, -1)).persist() for n, c in zip(shape, cut.chunks, strict=True)]
        rows = {"j": 48 * rank * 8, "k": 40 * rank * 8}
        for mode, bound in enumerate((rows["j"] + rows["k"], rows["k"] + rows["j"], rows["j"] + rows["k"])):
            mttkrp(cut, factors, mode).persist()  # cut along i: that factor's rows lie where they are used
            assert np.last_report().bytes_moved == 3 * bound


def test_a_sweep_is_planned_once():
    t, _ = planted((12, 10, 8), 3, noise=0.2)
    t = np.from_array(t, (6, 5, 8)).persist()
    plans = []
    for sweeps in (3, 6):
        before = session.current().plans_made
        with pytest.warns(UserWarning, match="raise max_iter"):
            cp_als(t, 3, random_state=0, max_iter=sweeps, tol=0.0)
        plans.append(session.current().plans_made - before)
    assert plans[1] == 0  # three sweeps more, and a whole decomposition, without a plan


def test_the_same_bits_on_a_cluster():
    t, _ = planted((16, 12, 8), 3, noise=0.1)
    got = []
    for executor in (LocalExecutor(2), LoopbackExecutor(4)):
        with session.init(executor=executor):
            made = cp_als(np.from_array(t, (4, 4, 8)), 3, random_state=0, tol=1e-3)
            got.append(b"".join(a.compute().tobytes() for a in made.factors) + made.weights.tobytes())
    assert got[0] == got[1]


def test_float32_stays():
    t, _ = planted((8, 7, 6), 2)
    made = CP(2, random_state=0, tol=1e-4).fit(np.from_array(t.astype("f4"), (4, 7, 3)))
    assert made.factors_[0].dtype == numpy.float32 and made.relative_error_ < 1e-2


@pytest.mark.parametrize(("tensor", "params", "remedy"), [
    (numpy.ones(3), {}, "at least two axes"), (numpy.zeros((3, 3)), {}, "only zeros"),
    (numpy.full((3, 3), numpy.nan), {}, "clean it first"), (numpy.ones((3, 3)), {"rank": 0}, "an int of at least 1"),
    (numpy.ones((3, 3)), {"init": [numpy.ones((2, 1)), numpy.ones((3, 1))], "rank": 1}, "a mode"),
    (numpy.ones((0, 3)), {}, "at least 1")])
def test_bad_input_names_the_remedy(tensor, params, remedy):
    with pytest.raises(ValueError, match=remedy):
        CP(**params).fit(tensor)


def test_bad_mttkrp():
    with pytest.raises(ValueError, match=r"one of \(extent, R\) for each"):
        mttkrp(numpy.ones((3, 3)), [numpy.ones((3, 1)), numpy.ones((4, 1))], 0)
    with pytest.raises(ValueError, match="needs 2 factors"):
        mttkrp(numpy.ones((3, 3)), [numpy.ones((3, 1))], 0)
