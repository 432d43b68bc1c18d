"""Super-tasks in virtual time: closed forms, and bytes as a Report says."""

import dataclasses

import numpy as np
import pytest

import nums_core
import nums_core.array as nc
from nums_core import session
from nums_core.runtime.cluster import CallCost, Cluster, Link, Worker
from nums_core.scheduler.simulate import simulate
from nums_core.testing.loopback import LoopbackExecutor
from nums_core.testing.sketch import Sketch

FREE = Link(0.0, float("inf"))


def cluster(nodes=2, **kw):
    return Cluster(tuple(Worker(n if nodes > 1 else 0, flop_per_s=1.0, memory_bytes_per_s=float("inf")) for n in range(2)),
                   kind="loopback", **{"network": FREE, "local": FREE, "driver": FREE, "gather": FREE, **kw})


def chain(steps, place="packed", n=2, cut=cluster(), keep=False):  # noqa: B008
    s = Sketch()
    v = s.view(0, ((1000,) * n,))
    for _ in range(steps):
        v = s.apply("add", v, 1.0)
    plan, _ = s.plan(cut, [v], place=place, keep=keep)
    return plan


def test_calls_are_handed_over_one_by_one_and_run_side_by_side():
    c = cluster(call=CallCost(submit_s=10.0, start_s=100.0, run_s=1.0))
    assert simulate(chain(1, cut=c)).seconds == pytest.approx(1 + 2 * 10 + 100 + 1000, rel=1e-6)
    assert simulate(chain(1, cut=c)).busy_s == pytest.approx([1000, 1000], rel=1e-6)


def test_a_worker_that_turns_waits_for_the_other():
    assert simulate(chain(4, "turned")).seconds == pytest.approx(4000, rel=1e-6)


@pytest.mark.parametrize(("nodes", "wire"), [(1, 8000 / 80.0 + 3.0), (2, 8000 / 80.0 + 8000 / 20.0 + 5.0)])
def test_blocks_cross_by_the_link_between_them(nodes, wire):
    """Inside a node one copy into shared memory; to another node the transfer as well."""
    c = cluster(nodes, local=Link(3.0, 80.0), network=Link(5.0, 20.0))
    assert simulate(chain(2, "turned", cut=c, keep=True), keep=True).seconds == pytest.approx(2000 + wire, rel=1e-6)


def test_small_blocks_travel_inside_the_reply():
    c = cluster(2, local=Link(3.0, 80.0), network=Link(5.0, 20.0, inline_bytes=8000, inline_s=0.5))
    assert simulate(chain(2, "turned", cut=c, keep=True), keep=True).seconds == pytest.approx(2000 + 100 + 0.5, rel=1e-6)


def test_the_driver_gives_and_gathers():
    c = cluster(driver=Link(1.0, 1000.0), gather=Link(2.0, 4000.0))
    plan = chain(1, n=2, cut=c)
    # The second worker's block is given after the first's, and its result gathered after it.
    assert simulate(plan).seconds == pytest.approx(2 * 9 + 1000 + 4, rel=1e-3)
    assert simulate(plan, keep=True).seconds == pytest.approx(2 * 9 + 1000, rel=1e-3)


PROGRAMS = {
    "sum": lambda x, y: x.sum(),
    "moments": lambda x, y: (x.mean(axis=0), x.std(axis=1)),
    "transposed": lambda x, y: x + x.T,
    "gram": lambda x, y: x.T @ y,
    "product": lambda x, y: x @ y,
    "outer": lambda x, y: x[:, :1] @ y[:1],
    "cumsum": lambda x, y: nc.cumsum(x, axis=0),
    "shifted": lambda x, y: x[1:] + x[:-1],
    "qr": lambda x, y: nc.linalg.qr(x[:, :16].rechunk((128, -1))),
    "newton": lambda x, y: x.T @ (x * (1 / (1 + np.exp(-y[:, :1])))),
    "sorted": lambda x, y: nc.sort(x, axis=1),
}


def check_bytes(program, workers):
    """Bytes into and out of each worker as simulated and as reported."""
    data = np.random.default_rng(0).normal(size=(2, 256 * workers, 256 * workers))
    x, y = (nc.from_array(d, chunks=(128, 128)) for d in data)
    for inputs in ((x, y), nums_core.persist(x, y)):
        made = PROGRAMS[program](*inputs)
        made = made if isinstance(made, tuple) else (made,)
        prediction = nums_core.explain(*made).prediction
        nums_core.compute(*made)
        report = nums_core.last_report()
        assert prediction.bytes_in.tolist() == report.bytes_in.tolist()
        assert prediction.bytes_out.tolist() == report.bytes_out.tolist()
        assert report.bytes_moved == report.bytes_in.sum() == report.bytes_out.sum()


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("workers", [2, 3])
def test_bytes_are_exact(program, workers):
    with session.use(LoopbackExecutor(workers)):
        check_bytes(program, workers)


@pytest.mark.ray
@pytest.mark.parametrize("program", ["transposed", "gram", "product", "qr"])
def test_bytes_are_exact_on_ray(program, ray_executor, monkeypatch):
    monkeypatch.setattr(ray_executor, "close", lambda: None)  # it serves the whole test run
    with session.use(ray_executor):
        check_bytes(program, 2)


def test_a_faster_cluster_is_predicted_faster():
    plan = chain(2, "turned")
    fast = dataclasses.replace(plan.cluster, workers=tuple(
        dataclasses.replace(w, flop_per_s=10.0) for w in plan.cluster.workers))
    assert simulate(plan, cluster=fast).seconds == pytest.approx(simulate(plan).seconds / 10, rel=1e-3)
