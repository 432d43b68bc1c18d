"""Principal components against scikit-learn, by all three ways."""

import numpy
import pytest
from sklearn import decomposition

import nums_core.array as np
from nums_core.array.estimators import PCA

WAYS = ["covariance_eigh", "full", "randomized"]


def problem(n=300, d=7, seed=0):
    rng = numpy.random.default_rng(seed)
    return rng.normal(size=(n, d)) * numpy.geomspace(5, 0.1, d) @ numpy.linalg.qr(rng.normal(size=(d, d)))[0] + 3


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("chunks", [(300, 7), (64, 7), (64, 3), (5, 7)], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_agrees_with_sklearn(way, chunks, whiten):
    x = problem()
    mine = PCA(4, svd_solver=way, whiten=whiten, random_state=0).fit(np.from_array(x, chunks))
    peer = decomposition.PCA(4, svd_solver="full", whiten=whiten).fit(x)
    for name in ("components_", "explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_",
                 "noise_variance_"):
        numpy.testing.assert_allclose(getattr(mine, name), getattr(peer, name), rtol=1e-7, atol=1e-9, err_msg=name)
    numpy.testing.assert_allclose(mine.transform(x), peer.transform(x), atol=1e-8)
    numpy.testing.assert_allclose(mine.inverse_transform(mine.transform(x)), peer.inverse_transform(peer.transform(x)),
                                  atol=1e-8)
    peer.whiten = False  # the model of the data is the same, whatever transform() scales
    numpy.testing.assert_allclose(mine.get_covariance(), peer.get_covariance(), atol=1e-8)
    numpy.testing.assert_allclose(mine.score_samples(x), peer.score_samples(x), rtol=1e-7)
    assert mine.score(x) == pytest.approx(peer.score(x))


@pytest.mark.parametrize("share", [0.5, 0.95, 0.999])
def test_a_share_of_the_variance(share):
    x = problem()
    assert PCA(share).fit(x).n_components_ == decomposition.PCA(share, svd_solver="full").fit(x).n_components_


@pytest.mark.parametrize("shape", [(5, 12), (12, 12), (2, 1), (30, 600)])
def test_shapes(shape):
    x = numpy.random.default_rng(1).normal(size=shape)
    mine = PCA().fit(np.from_array(x, (3, 100)))
    peer = decomposition.PCA(svd_solver="full").fit(x)
    assert mine.components_.shape == peer.components_.shape
    numpy.testing.assert_allclose(mine.explained_variance_, peer.explained_variance_, atol=1e-9)
    k = min(shape) - 1  # where rows are fewer, the last direction is rounding
    numpy.testing.assert_allclose(abs(mine.components_[:k] @ peer.components_[:k].T), numpy.eye(k), atol=1e-6)


@pytest.mark.parametrize(("shape", "count", "way"), [
    ((1000, 10), 3, "covariance_eigh"), ((60, 50), 3, "full"), ((900, 600), 5, "randomized"), ((900, 600), 590, "full"),
    ((20_000, 1500), 3, "randomized"), ((900, 600), None, "full")])
def test_the_way_follows_the_shape(shape, count, way):
    assert PCA(count)._solver(*shape) == way


def test_float32_stays():
    x = problem().astype("f4")
    mine = PCA(3).fit(x)
    assert {a.dtype for a in (mine.components_, mine.mean_, mine.explained_variance_, mine.transform(x))} == {
        numpy.dtype("f4")}
    numpy.testing.assert_allclose(mine.components_, PCA(3).fit(x.astype(float)).components_, atol=1e-5)


def test_means_far_from_zero():
    """Squares about 0 would have no digit left."""
    x = problem()
    want = PCA(3).fit(x).explained_variance_
    for way in WAYS:
        numpy.testing.assert_allclose(PCA(3, svd_solver=way, random_state=0).fit(x + 1e7).explained_variance_, want, rtol=1e-6)


@pytest.mark.parametrize(("params", "change", "remedy"), [
    ({"n_components": 8}, lambda x: x, "must be at most"), ({"n_components": 1.5}, lambda x: x, r"float in \(0, 1\)"),
    ({}, lambda x: x[:1], "at least 2 rows"), ({}, lambda x: numpy.where(x > 5, numpy.inf, x), "clean it first"),
    ({"svd_solver": "randomized"}, lambda x: x, "n_components as an int")])
def test_bad_input_names_the_remedy(params, change, remedy):
    with pytest.raises(ValueError, match=remedy):
        PCA(**params).fit(change(problem()))


def test_inverse_of_other_columns():
    with pytest.raises(ValueError, match=r"what transform\(\) returned"):
        PCA(3).fit(problem()).inverse_transform(numpy.ones((2, 4)))
