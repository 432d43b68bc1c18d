"""Sums left to the product that reads them, and outer products made where they are read: MTTKRP and its kin."""

import numpy as np
import pytest

import nums_core
import nums_core.array as nnp
from nums_core.testing.loopback import LoopbackExecutor

SHAPE, RANK = (66, 70, 68), 3


@pytest.fixture(scope="module", autouse=True)
def four_workers():
    with nums_core.init(executor=LoopbackExecutor(4)):
        yield


def arrays(chunks, dtype=float):
    rng = np.random.default_rng(0)
    values = [rng.normal(size=SHAPE).astype(dtype), *(rng.normal(size=(n, RANK)).astype(dtype) for n in SHAPE[1:])]
    cuts = [chunks, (chunks[1], -1), (chunks[2], -1)]
    return values, [nnp.asarray(v, chunks=c).persist() for v, c in zip(values, cuts, strict=True)]


def kernels(x):
    return [(f.kernel.name, f.count) for f in x.explain().graph.families if f.kernel.name in ("contract", "tree", "fused")]


@pytest.mark.parametrize("chunks", [(17, -1, -1), (-1, 18, -1), (-1, -1, 17), (33, 35, 17), (9, 23, 68)])
@pytest.mark.parametrize("order", ["ijk,jr,kr->ir", "jr,kr,ijk->ri", "kr,ijk,jr->ir"])
def test_values(chunks, order):
    values, lazy = arrays(chunks)
    by_name = dict(zip(("ijk", "jr", "kr"), range(3), strict=True))
    at = [by_name[names] for names in order.partition("->")[0].split(",")]
    got = nnp.einsum(order, *(lazy[i] for i in at)).compute()
    np.testing.assert_allclose(got, np.einsum(order, *(values[i] for i in at)), rtol=1e-10, atol=1e-10)


def test_a_cut_sum_waits_for_the_smaller_result():
    """Four blocks along k: no tree over partial results of the size of the tensor, one over those of the result."""
    _, (x, b, c) = arrays((-1, -1, 17))
    inner = nnp.einsum("ijk,kr->ijr", x, c)
    made = nnp.einsum("ijr,jr->ir", inner, b)
    plan = made.explain()
    assert [f.label for f in plan.graph.families if f.kernel.name == "tree" and f.kernel.params[1]] == ["contract.tree"]
    assert plan.bytes_moved <= 2 * 3 * 70 * RANK * 8
    np.testing.assert_allclose(made.compute(), np.einsum("ijk,jr,kr->ir", *arrays((-1, -1, 17))[0]), rtol=1e-10)


def test_a_sum_that_others_read_is_made():
    _, (x, b, c) = arrays((-1, -1, 17))
    inner = nnp.einsum("ijk,kr->ijr", x, c)
    both = nnp.compute(inner, nnp.einsum("ijr,jr->ir", inner, b))
    values, _ = arrays((-1, -1, 17))
    np.testing.assert_allclose(both[0], np.einsum("ijk,kr->ijr", values[0], values[2]), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(both[1], np.einsum("ijk,jr,kr->ir", *values), rtol=1e-10, atol=1e-10)


def test_a_sum_whose_reader_is_no_smaller_is_made():
    a, b, c = (nnp.asarray(np.ones((60, 60)), chunks=15).persist() for _ in range(3))
    made = (a @ b) @ c
    assert sum(name == "tree" for name, _ in kernels(made)) >= 2
    np.testing.assert_allclose(made.compute(), np.full((60, 60), 3600.0))


def test_khatri_rao_is_made_in_the_products():
    """Blocks of 66 rows and more read small factors; no family makes their product, and none of its size moves."""
    rng = np.random.default_rng(1)
    x, b, c = rng.normal(size=(400, 20, 22)), rng.normal(size=(20, RANK)), rng.normal(size=(22, RANK))
    lazy = [nnp.asarray(v, chunks=k).persist() for v, k in ((x, (100, -1, -1)), (b, -1), (c, -1))]
    made = nnp.einsum("ijk,jr,kr->ir", *lazy)
    assert kernels(made) == [("contract", 4)]
    assert made.explain().bytes_moved == 3 * (20 + 22) * RANK * 8
    np.testing.assert_allclose(made.compute(), np.einsum("ijk,jr,kr->ir", x, b, c), rtol=1e-10, atol=1e-10)
