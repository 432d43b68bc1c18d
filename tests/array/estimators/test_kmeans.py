"""k-means against scikit-learn from the same centers; draws; clusters that lose all their rows."""

import numpy
import pytest
from sklearn import cluster, datasets

import nums_core.array as np
from nums_core.array.estimators import KMeans, seeding
from nums_core.array.estimators.distances import assign, distances, drawn


def blobs(n=600, k=5, d=3, seed=0, std=1.0):
    return datasets.make_blobs(n, d, centers=k, cluster_std=std, random_state=seed)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("chunks", [(600, 3), (130, 3), (77, 2), (25, 3)], ids=str)
def test_agrees_with_sklearn_from_the_same_centers(chunks, weighted):
    x, _ = blobs(std=3.0)
    w = numpy.random.default_rng(0).uniform(0.5, 2, size=len(x)) if weighted else None
    mine = KMeans(5, init=x[:5], tol=0).fit(np.from_array(x, chunks), sample_weight=w)
    peer = cluster.KMeans(5, init=x[:5], tol=0, n_init=1, algorithm="lloyd").fit(x, sample_weight=w)
    numpy.testing.assert_allclose(mine.cluster_centers_, peer.cluster_centers_, rtol=1e-10, atol=1e-10)
    numpy.testing.assert_array_equal(mine.labels_.compute(), peer.labels_)
    assert mine.inertia_ == pytest.approx(peer.inertia_) and mine.n_iter_ == peer.n_iter_
    numpy.testing.assert_array_equal(mine.predict(x + 0.1), peer.predict(x + 0.1))
    numpy.testing.assert_allclose(mine.transform(x), peer.transform(x), atol=1e-9)
    assert mine.score(x, sample_weight=w) == pytest.approx(peer.score(x, sample_weight=w))


@pytest.mark.parametrize("init", seeding.NAMES)
def test_beginnings_end_where_sklearn_does(init):
    x, _ = blobs(k=6)
    peer = cluster.KMeans(6, n_init=10, random_state=0).fit(x)
    mine = KMeans(6, init=init, n_init=4, random_state=0).fit(np.from_array(x, (200, 3)))
    assert mine.inertia_ <= 1.001 * peer.inertia_


def test_parallel_seeding_is_near_the_end_already():
    x, _ = blobs(n=3000, k=20, d=4)
    found = seeding.centers(np.from_array(x, (500, 4)), None, numpy.zeros(4), 20, "k-means||", 1)
    assert found.shape == (20, 4)
    assert assign(x, None, numpy.zeros(4), found)[2] < 4 * cluster.KMeans(20, n_init=5, random_state=0).fit(x).inertia_


@pytest.mark.parametrize("init", seeding.NAMES)
def test_the_seed_decides(init):
    x, _ = blobs(std=4.0)
    fits = [KMeans(5, init=init, n_init=1, random_state=s).fit(np.from_array(x, (100, 3))) for s in (3, 3, 4)]
    assert fits[0].cluster_centers_.tobytes() == fits[1].cluster_centers_.tobytes()
    assert fits[0].cluster_centers_.tobytes() != fits[2].cluster_centers_.tobytes()


def test_rows_are_drawn_in_proportion():
    x, w = numpy.arange(4.0)[:, None], numpy.array([1.0, 2, 0, 5])
    hits = numpy.bincount([int(drawn(x, w, None, numpy.zeros(1), count=1, seed=s, turn=0, block=0)[0, 1])
                           for s in range(4000)], minlength=4)
    numpy.testing.assert_allclose(hits / 4000, w / 8, atol=0.03)
    few = drawn(x, w, None, numpy.zeros(1), count=6, seed=0, turn=0, block=0)
    assert numpy.isfinite(few[:, 0]).sum() == 3 and set(few[:3, 1]) == {0.0, 1, 3}


def test_empty_clusters_take_the_furthest_rows():
    x = numpy.array([[0.0], [0.1], [5.0], [9.0], [9.1]])
    model = KMeans(3, init=[[0.0], [100.0], [200.0]]).fit(np.from_array(x, (2, 1)))
    assert sorted(model.cluster_centers_[:, 0].round(2).tolist()) == [1.7, 9.0, 9.1]
    assert sorted(numpy.bincount(model.labels_.compute())) == [1, 1, 3]
    peer = cluster.KMeans(3, init=numpy.array([[0.0], [100.0], [200.0]]), n_init=1).fit(x)
    assert model.inertia_ == pytest.approx(peer.inertia_)


def test_fewer_distinct_rows_than_clusters():
    x = numpy.repeat([[0.0, 1], [2, 3]], 5, axis=0)
    with pytest.warns(UserWarning, match=r"distinct clusters \(2\) found smaller"):
        model = KMeans(4, random_state=0).fit(x)
    assert model.inertia_ == 0.0


def test_many_clusters_sum_the_same_way():
    x = numpy.random.default_rng(0).normal(size=(500, 3))
    mine = KMeans(80, init=x[:80], tol=0).fit(np.from_array(x, (90, 3)))
    peer = cluster.KMeans(80, init=x[:80], tol=0, n_init=1).fit(x)
    numpy.testing.assert_allclose(mine.cluster_centers_, peer.cluster_centers_, atol=1e-12)


def test_far_from_zero():
    x, _ = blobs()
    got = KMeans(5, init=x[:5] + 1e8).fit(x + 1e8)
    assert got.inertia_ == pytest.approx(KMeans(5, init=x[:5]).fit(x).inertia_, rel=1e-6)
    numpy.testing.assert_allclose(distances(x + 1e8, numpy.full(3, 1e8), x[:2]), distances(x, numpy.zeros(3), x[:2]), atol=1e-6)


def test_float32_stays():
    x, _ = blobs()
    model = KMeans(5, random_state=0).fit(x.astype("f4"))
    assert model.cluster_centers_.dtype == model.transform(x.astype("f4")).dtype == numpy.float32


@pytest.mark.parametrize(("params", "change", "remedy"), [
    ({"n_clusters": 9}, lambda x: x[:4], "ask for fewer clusters"), ({"init": numpy.ones((2, 2))}, lambda x: x, "one row a cluster"),
    ({"init": "first"}, lambda x: x, r"'k-means\|\|', 'k-means\+\+', 'random'"),
    ({}, lambda x: numpy.where(x > 5, numpy.nan, x), "clean it first"), ({"random_state": "a"}, lambda x: x, "random generator"),
])
def test_bad_input_names_the_remedy(params, change, remedy):
    with pytest.raises(ValueError, match=remedy):
        KMeans(**params).fit(change(blobs()[0]))


def test_no_weight_at_all():
    with pytest.raises(ValueError, match="must not be zero"):
        KMeans(2).fit(blobs()[0], sample_weight=numpy.zeros(600))
