"""bench/papers: the experiments are right, plans without placement are counted rightly, and the bench cannot rot."""

import subprocess
import sys
from types import SimpleNamespace

import numpy
import pytest

import nums_core.array as np
from bench.papers import experiments, lshs, pictures, simulated
from bench.papers.arms import Sample
from bench.papers.experiments import EXPERIMENTS, Cut
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.executors.local import LocalExecutor

SMALL, BLOCKS = 2**21, 16


def plan_of(name, policy="portfolio", nodes=4, blocks=BLOCKS):
    return simulated.planned(EXPERIMENTS[name], SMALL, blocks, Cluster.regular(nodes), policy)[0]


# -- the experiments --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_agree_with_numpy(name):
    experiment = EXPERIMENTS[name]
    arrays = experiment.arrays(np, SMALL, BLOCKS)
    *_, got = experiment.run(np, np.persist(*arrays))
    *_, want = experiment.run(numpy, tuple(x.compute() for x in arrays), persist=lambda *results: results)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        numpy.testing.assert_allclose(a.compute(), b, rtol=1e-7, atol=1e-9 * abs(b).max())


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("blocks", [16, 64])
def test_inputs_have_their_size_and_blocks(name, blocks):
    largest = max(EXPERIMENTS[name].inputs(2.0**26, blocks), key=lambda cut: cut.nbytes)
    assert numpy.prod(largest.grid) == blocks
    assert largest.nbytes == pytest.approx(2**26, rel=0.2)
    assert tuple(map(sum, largest.chunks)) == largest.shape


def test_inputs_are_the_same_in_dask():
    da = pytest.importorskip("dask.array")
    for fill in ("uniform", "labels", "zeros"):
        cut = Cut((13, 7), (3, 2), fill)
        numpy.testing.assert_array_equal(cut.array(da, 5).compute(scheduler="sync"), cut.array(np, 5).compute())
    assert not numpy.array_equal(cut.array(np, 5).compute(), Cut((13, 7), (3, 2)).array(np, 6).compute())


def test_a_block_is_filled_by_its_place():
    place = {None: {"array-location": [(4, 6), (0, 3)]}}
    block = experiments.uniform(1, place)
    assert block.shape == (2, 3) and abs(block).max() <= 0.5
    numpy.testing.assert_array_equal(block, experiments.uniform(1, place))
    assert (block != experiments.uniform(1, {None: {"array-location": [(6, 8), (0, 3)]}})).any()


# -- placement without a plan -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["newton", "xty", "gemm", "mttkrp", "tsqr"])
def test_tasks_without_a_plan(name):
    plan = plan_of(name)
    dealt, nearest = (simulated.unplanned(plan, kind) for kind in simulated.UNPLANNED)
    for other in (dealt, nearest):
        other.validate()
        assert other.graph is plan.graph and (other.move_src == other.worker[other.move_block]).all()
    assert plan.bytes_moved <= nearest.bytes_moved < dealt.bytes_moved
    numpy.testing.assert_array_equal(dealt.worker, simulated.unplanned(plan, "dealt").worker)
    for f in plan.graph.families:
        if f.role == "leaf":
            held = numpy.bincount(dealt.worker[f.start:f.stop], minlength=4)
            assert held.max() - held.min() <= 1  # inputs are spread evenly


def test_nearest_is_where_most_bytes_are():
    plan = plan_of("gemm")
    worker, g = simulated.unplanned(plan, "nearest").worker, plan.graph
    for t in numpy.flatnonzero(~g.is_leaf):
        held = numpy.bincount(worker[g.inputs(t)], g.out_bytes[g.inputs(t)], 4)
        assert held[worker[t]] == held.max() and worker[t] == held.argmax()


def test_the_quick_mode(capsys):
    assert lshs.main(["--simulate", "--quick", "--terabytes", "1e-5"]) == 0
    said = capsys.readouterr().out
    for name in EXPERIMENTS:
        assert f"\n{name}, 4 nodes" in said
    assert said.count("portfolio / dealt") == said.count("portfolio / nearest") == len(EXPERIMENTS)


def test_simulation_does_without_ray():
    code = "import sys, bench.papers.lshs, bench.papers.simulated, bench.papers.pictures; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_known_bytes():
    """Nothing for aligned work, k - 1 partial results for sums over k nodes."""
    assert plan_of("add").bytes_moved == 0
    assert plan_of("xty").bytes_moved == 3 * 256 * 256 * 8
    assert plan_of("sum").bytes_moved == 3 * 256 * 8


# -- what is told -----------------------------------------------------------------------------------------------------

def sample(seconds=1.0, moved=10.0, planned=10.0, by_task=False, peak=(4.0, 2.0), checks=(1.0,)):
    return Sample(seconds, 0.1, 5, moved, planned, numpy.zeros(2), numpy.array(peak), 0.9, 3.0, 0.5, list(checks), by_task,
                  [], None, [])


def test_ratios_name_what_was_missed():
    told = lshs.ratios([sample()], [sample(seconds=20.0, moved=15.0, by_task=True, peak=(6.0, 6.0))])
    assert "bytes: 0.667 (aim 0.50; missed" in told[0] and "fullest node: 0.667 (aim 0.25; missed" in told[1]
    assert told[2].endswith("seconds: 0.050 (aim 0.10)")


def test_wrong_results_and_unplanned_bytes_are_told():
    ray = sample(moved=99.0, by_task=True)
    assert lshs.tell({"portfolio": [sample(), sample()], "ray": [ray]})
    assert not lshs.tell({"portfolio": [sample(), sample(checks=(1.1,))], "ray": [ray]})
    assert not lshs.tell({"portfolio": [sample(moved=11.0)], "ray": [ray]})
    assert not lshs.tell({"portfolio": [sample(moved=9.0)]})


# -- pictures ---------------------------------------------------------------------------------------------------------

def test_a_replay_adds_up(tmp_path):
    pytest.importorskip("matplotlib")
    plan = plan_of("gemm")
    load = pictures.replayed(plan)
    for steps, ends in ((load.into, plan.move_dst), (load.out, plan.move_src)):
        level = {node: n for _, node, n in steps}
        want = numpy.bincount(ends, plan.graph.out_bytes[plan.move_block], 4)
        assert level == {w: pytest.approx(want[w]) for w in level} and sum(level.values()) == pytest.approx(plan.bytes_moved)
    path = tmp_path / "load.png"
    pictures.draw(load, path, "gemm")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_starts_follow_the_order_of_each_worker():
    plan = plan_of("xty")
    spans = [("x", w, 0, float(k), k + 1.0, 2) for w in range(4) for k in range(6)]
    starts = pictures.starts(plan, spans)
    for w in range(4):
        mine = [t for t in plan.order.tolist() if plan.worker[t] == w and not plan.graph.is_leaf[t]]
        assert [starts[t] for t in mine[:6]] == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0][:len(mine)]


def test_copies_cross_once_and_not_where_they_are():
    plan = plan_of("xty")
    into, out = [], []
    pictures.crossed(plan, {}, {}, into, out)
    assert sum(n for *_, n in into) == sum(n for *_, n in out) == plan.bytes_moved
    there = {int(b): [int(s), int(d)] for b, s, d in zip(plan.move_block, plan.move_src, plan.move_dst, strict=True)}
    into.clear()
    pictures.crossed(plan, there, {}, into, out)
    assert into == []


# -- Ray and Dask -----------------------------------------------------------------------------------------------------

@pytest.mark.ray
@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("name", ["newton", "tsqr", "mttkrp"])
def test_ray_tasks_make_the_same_bits(ray_executor, name, pinned):
    from bench.papers.arms import in_force
    from bench.papers.ray_tasks import RayTasks, copied_bytes
    from nums_core import session

    def run(executor):
        with in_force(session.Session(executor), "portfolio"):
            *_, results = EXPERIMENTS[name].run(np, np.persist(*EXPERIMENTS[name].arrays(np, SMALL, 8)))
            return [r.compute().tobytes() for r in results]

    tasks = RayTasks(ray_executor.cluster, ray_executor.node_ids if pinned else None)
    tasks.holding, tasks.observed = [], []
    assert run(tasks) == run(LocalExecutor(1, 2**30))
    assert copied_bytes(tasks.holding) == 0  # one node
    ran = [r for r in tasks.observed[0].values() if r.stop_s]
    assert ran and {r.node_ids for r in ran} == {(ray_executor.node_ids[0],)}
    assert all(r.start_s <= r.stop_s for r in ran)


@pytest.mark.ray
def test_ray_tasks_take_arrays_of_the_driver(ray_executor):
    from bench.papers.arms import in_force
    from bench.papers.ray_tasks import RayTasks
    from nums_core import session

    x = numpy.arange(600.0).reshape(20, 30)
    with in_force(session.Session(RayTasks(ray_executor.cluster)), "portfolio"):
        numpy.testing.assert_array_equal((np.asarray(x).rechunk((7, 11)) * 2).sum(axis=0).compute(), x.sum(axis=0) * 2)


@pytest.mark.ray
def test_stores_are_watched(ray_executor):
    import ray

    from bench.papers.store_watch import Stores, StoreWatch

    stores = Stores(ray_executor.node_ids[:1])
    before = stores.settled()  # earlier tests' blocks are gone
    with StoreWatch(stores, period_s=0.01) as watch:
        ref = ray.put(numpy.zeros(2**21))
    assert watch.peak_bytes[0] - before[0] >= 2**24
    del ref


@pytest.mark.dask
def test_rivals_agree_and_are_counted():
    distributed = pytest.importorskip("distributed")
    from bench.papers import rivals

    options = SimpleNamespace(mib=1, repeat=1, by_block=True)
    with (distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
          distributed.Client(cluster) as client):
        sides = {"nums": rivals.Nums(), "dask": rivals.Dask(client)}
        for name in rivals.PROGRAMS:
            timings = rivals.compare(name, 8, options, sides)
            assert rivals.tell(name, 8, 8, timings)
            assert all(t.median > 0 and len(t.moved) == 1 for t in timings.values())
        assert sides["dask"].received() > 0
