"""What is Dask's own: its workers, names on its dashboard, its exceptions, dying and interrupting."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from nums_core import config
from nums_core.errors import ConfigError, KernelError, WorkerLostError
from nums_core.runtime.executors.base import Output
from nums_core.runtime.executors.clustered import WorkerGone
from nums_core.testing.sketch import Sketch

pytestmark = pytest.mark.dask
ZEROS = np.zeros(2000)


def chain(executor, n=1, function=None, **kw):
    s = Sketch()
    v = s.view(0, ((500,) * 4,))
    for _ in range(n):
        v = s.apply("add", v, 1.0) if function is None else s.call(function, v)
    return s.plan(executor.cluster, [v], **kw)


def check(executor, n, made, x=ZEROS):
    plan, outputs = made
    (got,), report = executor.run(plan, [x], outputs)
    np.testing.assert_array_equal(got, x + n)
    return report


def keys(client, uid=""):
    """Keys of ours that the scheduler knows, once it has heard what was let go."""
    found = []
    for _ in range(100):
        found = client.run_on_scheduler(lambda dask_scheduler: [k for k in dask_scheduler.tasks if str(k).startswith("nums-")])
        found = [k for k in found if uid in k and (uid or not k.startswith("nums-worker"))]
        if not found:
            break
        time.sleep(0.02)
    return found


def kill(executor, worker):
    """End a worker's process at once, and wait until the scheduler knows."""
    address = executor.places[worker].address
    pid = executor.client.run(os.getpid, workers=[address])[address]
    os.kill(pid, signal.SIGKILL)
    return address


# -- beginning and end ------------------------------------------------------------------------------------------------

def test_importing_the_library_does_not_import_dask():
    code = ("import sys, nums_core, nums_core.session, nums_core.array\n"
            "sys.exit('dask' in sys.modules or 'distributed' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", ["dask", "dask_arrays"])
def test_a_missing_package_is_named_with_its_remedy(module):
    code = ("import sys; sys.modules['dask'] = sys.modules['distributed'] = None\n"
            f"try:\n    import nums_core.runtime.executors.{module}\n"
            "except ImportError as e:\n    print(type(e).__name__, e)")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("MissingBackendError") and "pip install nums-core[dask]" in said


def test_clients_that_cannot_be_used(dask_client):
    import distributed

    from nums_core.runtime.executors.dask import DaskExecutor

    async def asynchronously():
        async with distributed.Client(dask_client.scheduler.address, asynchronous=True, set_as_default=False) as client:
            DaskExecutor(client)

    with pytest.raises(ConfigError, match="asynchronous=False"):
        asyncio.run(asynchronously())
    with pytest.raises(ConfigError, match=r"got str; client = distributed\.Client\(address\)"):
        DaskExecutor("tcp://127.0.0.1:8786")
    closed = distributed.Client(dask_client.scheduler.address, set_as_default=False)
    closed.close()
    with pytest.raises(ConfigError, match=r"nums_core\.init\(dask=client\)"):
        DaskExecutor(closed)
    with pytest.raises(ConfigError, match="no Dask worker runs at tcp://nowhere:1; those that do are tcp://"):
        DaskExecutor(dask_client, workers=["tcp://nowhere:1"])


def test_the_cluster_is_described(dask_executor):
    c = dask_executor.cluster
    assert c.kind == "dask" and c.n_nodes == 1 and c.n_workers == 2
    assert {w.memory_bytes for w in c.workers} == {2**30} and {w.threads for w in c.workers} == {1}


def test_workers_may_differ():
    pytest.importorskip("distributed")
    from nums_core.runtime.executors.dask import MEMORY_SHARE, NO_LIMIT_BYTES, _describe

    c = _describe({"tcp://10.0.0.1:1": {"nthreads": 4, "memory_limit": 10**9},
                   "tcp://10.0.0.1:2": {"nthreads": 2, "memory_limit": 10**8},
                   "tcp://10.0.0.2:1": {"nthreads": 8, "memory_limit": 0}}, 0, 0)
    assert [w.node for w in c.workers] == [0, 0, 1] and [w.threads for w in c.workers] == [4, 2, 8]
    assert [w.memory_bytes for w in c.workers] == [
        int(MEMORY_SHARE * 10**9), int(MEMORY_SHARE * 10**8), int(MEMORY_SHARE * NO_LIMIT_BYTES)]


def test_the_client_stays_the_users_and_nothing_stays_on_the_workers(dask_client, dask_executor):
    from nums_core.runtime.executors.dask import DaskExecutor

    made = DaskExecutor(dask_client, workers=[dask_executor.places[0].address])
    uid = made.uid

    def hosts():
        import gc

        from nums_core.runtime.executors.dask_worker import HOSTS
        gc.collect()
        return [h for h in HOSTS if h.startswith(uid)]

    plan, outputs = chain(made, keep=True)
    (held,), _ = made.run(plan, [ZEROS], outputs)
    assert made.cluster.n_workers == 1 and len(keys(dask_client, made.uid)) == 1  # the host
    made.close()
    made.close()
    assert keys(dask_client, made.uid) == []
    assert set(map(tuple, dask_client.run(hosts).values())) == {()}
    assert dask_client.submit(sum, [1, 2], pure=False).result() == 3
    with pytest.raises(ConfigError, match=r"nums_core\.init"):
        made.fetch(held)
    check(dask_executor, 1, chain(dask_executor))


def test_a_client_that_is_closed_takes_the_hosts_along(dask_client):
    import distributed

    from nums_core.runtime.executors.dask import DaskExecutor

    client = distributed.Client(dask_client.scheduler.address, set_as_default=False)
    made = DaskExecutor(client)
    check(made, 1, chain(made))
    client.close()
    with pytest.raises(ConfigError, match=r"nums_core\.init\(dask=client\)"):
        check(made, 1, chain(made))
    assert keys(dask_client, made.uid) == []
    made.close()


# -- what the scheduler sees ------------------------------------------------------------------------------------------

def test_names_on_the_dashboard(dask_client, dask_executor):
    s = Sketch()
    v = s.reduce("sum", s.apply("multiply", s.view(0, ((500,) * 4,)), 2.0), (0,))
    plan, outputs = s.plan(dask_executor.cluster, [v])
    dask_executor.run(plan, [ZEROS], outputs)
    groups = dask_client.run_on_scheduler(lambda dask_scheduler: dict.fromkeys(dask_scheduler.task_prefixes))
    assert {"nums-multiply-sum", "nums-result", "nums-worker"} <= groups.keys()


def test_calls_grow_with_phases_not_with_tasks(dask_client, dask_executor):
    from distributed.diagnostics.plugin import SchedulerPlugin

    class Count(SchedulerPlugin):
        def __init__(self):
            self.keys = []

        def update_graph(self, scheduler, *, tasks, **kw):
            self.keys.append(len(tasks))

    s = Sketch()
    v = s.view(0, ((5,) * 400,))
    for _ in range(4):
        v = s.apply("add", v, 1.0)
    made = s.plan(dask_executor.cluster, [v], place="turned")
    dask_client.register_plugin(Count(), name="count")
    try:
        check(dask_executor, 4, made)
        graphs = dask_client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.plugins["count"].keys)
    finally:
        dask_client.unregister_scheduler_plugin("count")
    # 8 calls (4 phases, 2 workers), a payload of each for the other worker or the driver, and what was sent before.
    assert 16 <= max(graphs) <= 32 and len(graphs) < 4


def test_large_blocks_go_from_worker_to_worker_once(dask_client, dask_executor):
    def received(dask_worker):
        return sum(entry["total"] for entry in dask_worker.transfer_incoming_log)

    x = np.random.default_rng(0).normal(size=800_000)
    s = Sketch()
    v = s.apply("add", s.apply("add", s.view(0, ((200_000,) * 4,)), 1.0), 1.0)
    plan, outputs = s.plan(dask_executor.cluster, [v], place="turned")
    before = sum(dask_client.run(received).values())
    (got,), report = dask_executor.run(plan, [x], outputs)
    moved = sum(dask_client.run(received).values()) - before
    np.testing.assert_array_equal(got, x + 1 + 1)
    assert report.bytes_moved == plan.bytes_moved
    made = plan.move_block[~plan.graph.is_leaf[plan.move_block]]  # the others come from here
    assert 0 < x.nbytes <= plan.graph.out_bytes[made].sum() <= moved < 1.01 * x.nbytes
    assert {w for _, w, *_ in report.spans} == {0, 1}


def test_nothing_stays_with_the_scheduler_after_a_run(dask_client, dask_executor):
    check(dask_executor, 6, chain(dask_executor, 6, place="turned"))
    assert keys(dask_client) == []
    with pytest.raises(KernelError):
        plan, outputs = chain(dask_executor, 2, lambda block: 1 / 0, place="turned")
        dask_executor.run(plan, [ZEROS], outputs)
    assert keys(dask_client) == []


def test_one_thread_a_kernel(dask_executor):
    from threadpoolctl import threadpool_info

    def threads(block):
        return np.array([i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"], float)

    nan = float("nan")
    s = Sketch()
    counts = s.call(threads, s.view(0, ((2, 2),)), chunks=((nan, nan),))
    plan, outputs = s.plan(dask_executor.cluster, [counts])
    assert set(dask_executor.run(plan, [np.zeros(4)], outputs)[0][0].tolist()) <= {1.0}


def test_the_same_bits_as_on_threads(dask_client):
    import nums_core
    import nums_core.array as nc

    x = np.random.default_rng(1).normal(size=(300, 200)).astype("f4")

    def values():
        a = nc.from_array(x, chunks=(70, 90))
        return nums_core.compute(a @ a.T, nc.exp(a).sum(axis=0), a.std(), nc.sort(a[:, 3]), (a + a.mean(axis=1)[:, None]).T)

    want = values()
    with nums_core.init(dask=dask_client):
        got = values()
        assert nums_core.session.current().executor.cluster.kind == "dask"
    assert [g.tobytes() for g in got] == [w.tobytes() for w in want]


# -- exceptions -------------------------------------------------------------------------------------------------------

# Exceptions of distributed's own that no task of ours can meet, and why.
ELSEWHERE = {
    "shuffles of dataframes": "P2PIllegalStateError P2PConsistencyError ShuffleClosedError DataUnavailable",
    "raised by tasks on purpose": "Reschedule",
    "inside Dask's own loops": "AllExit QueueEmpty AsyncTaskGroupClosedError HandledError MaxSpillExceeded PickleError",
    "a worker that meets them closes": "InvalidTransition InvalidTaskState RecommendationsConflict TransitionCounterMaxExceeded",
    "the client is closed, which is looked at first": "ClosedClientError",
}


def _met(kind):
    """One of them, whatever its constructor wants and its text is made of."""
    made = type(kind.__name__, (kind,), {"__init__": lambda self: None, "__str__": lambda self: "met"})
    return made()


def test_every_exception_of_dasks_is_known(dask_executor):
    import distributed

    found = {}
    for module in pkgutil.walk_packages(distributed.__path__, "distributed."):
        if any(part in module.name for part in (".tests", "dashboard", ".cli.", "utils_test", "preload", "nvml", "rmm")):
            continue
        try:
            loaded = importlib.import_module(module.name)
        except ImportError:
            continue
        for name, kind in inspect.getmembers(loaded, inspect.isclass):
            if issubclass(kind, BaseException) and not issubclass(kind, Warning) and kind.__module__.startswith("distributed"):
                found[name] = kind
    assert {"KilledWorker", "CommClosedError", "FutureCancelledError", "RPCClosed"} <= found.keys()
    elsewhere = set(" ".join(ELSEWHERE.values()).split())
    unknown = [name for name, kind in found.items() if name not in elsewhere
               and not isinstance(dask_executor.tasks.known(_met(kind)), WorkerGone)]
    assert unknown == []


def test_what_is_not_dasks_stays_as_it_is(dask_executor):
    for error in (ValueError("mine"), RuntimeError("mine"), KeyboardInterrupt()):
        assert dask_executor.tasks.known(error) is error


def test_arguments_that_cannot_be_read_on_the_worker(dask_executor):
    """A module that only the driver has."""
    import types

    mine = types.ModuleType("only_here")
    exec("def function(block):\n    return block", mine.__dict__)
    sys.modules["only_here"] = mine
    try:
        plan, outputs = chain(dask_executor, 1, mine.function)
        with pytest.raises(ModuleNotFoundError, match="only_here"):
            dask_executor.run(plan, [ZEROS], outputs)
    finally:
        del sys.modules["only_here"]
    check(dask_executor, 1, chain(dask_executor))


# -- interrupting and dying -------------------------------------------------------------------------------------------

@pytest.fixture
def counted(tmp_path):
    """A slow kernel, and how many blocks it has made."""
    path = str(tmp_path / "ran")

    def slow(block):
        time.sleep(0.05)
        with open(path, "ab") as file:
            file.write(b".")
        return block + 1

    return slow, lambda: os.path.getsize(path) if os.path.exists(path) else 0


@pytest.mark.parametrize("place", ["packed", "turned"])
def test_interrupting_leaves_everything_usable(dask_client, dask_executor, place, counted):
    slow, ran = counted
    plan, outputs = chain(dask_executor, 40, slow, place=place)
    check(dask_executor, 1, chain(dask_executor))
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        dask_executor.run(plan, [ZEROS], outputs)
    check(dask_executor, 1, chain(dask_executor))  # comes after what was in progress
    stopped = ran()
    assert stopped < 160
    assert keys(dask_client) == []
    check(dask_executor, 1, chain(dask_executor))
    assert ran() == stopped


def test_a_failure_stops_the_others(dask_executor, counted):
    slow, ran = counted

    def bad(block):
        raise ValueError("bad block")

    s = Sketch()
    v = s.view(0, ((500,) * 4,))
    w = v
    for _ in range(40):
        w = s.call(slow, w)
    plan, outputs = s.plan(dask_executor.cluster, [w, s.call(bad, v)], place=np.array([0] * 4 + [0] * 160 + [1] * 4))
    with pytest.raises(KernelError, match="bad block"):
        dask_executor.run(plan, [ZEROS], outputs)
    assert ran() < 160


@pytest.mark.parametrize("direct", [True, False], ids=["data go to workers", "data go through the scheduler"])
def test_a_killed_worker_is_replaced(dask_executor, monkeypatch, direct):
    from nums_core.runtime.executors import dask

    monkeypatch.setattr(dask_executor.tasks, "direct", direct)
    monkeypatch.setattr(dask, "REPLACE_S", 60.0)  # however slow this machine is
    made = chain(dask_executor, 4, place="turned")
    kill(dask_executor, 1)
    check(dask_executor, 4, made)
    assert len({p.address for p in dask_executor.places}) == 2  # on a worker of its own


def test_calls_that_dask_can_give_to_no_worker_end(dask_executor):
    """A worker may be forgotten between the check of its address and the graph: its tasks would wait for ever."""
    plan, outputs = chain(dask_executor, 2)
    kept = [Output(outputs[0].chunks, outputs[0].dtype, keep=True)]
    (held,), _ = dask_executor.run(plan, [ZEROS], kept)
    dask_executor.places[1] = dask_executor.places[1]._replace(address="tcp://127.0.0.1:9")
    s = Sketch()
    plan, outputs = s.plan(dask_executor.cluster, [s.apply("add", s.held(0, outputs[0].chunks, home=held.home), 1.0)])
    begin = time.monotonic()
    (got,), report = dask_executor.run(plan, [held], outputs)
    assert (got == np.concatenate(dask_executor.fetch(held)) + 1.0).all()
    assert report.interruptions == 1 and time.monotonic() - begin < 30


def test_a_worker_killed_while_it_works_is_replaced(dask_client, dask_executor):
    def slow(block):
        time.sleep(0.1)
        return block + 1

    made = chain(dask_executor, 6, slow, place="turned")
    threading.Timer(0.6, kill, (dask_executor, 0)).start()
    check(dask_executor, 6, made)
    assert keys(dask_client) == []


def test_a_worker_that_a_kernel_kills_is_given_up(dask_executor, monkeypatch):
    from nums_core.runtime.executors import recovery

    def die(block):
        os._exit(1)

    monkeypatch.setattr(recovery, "TRIES", 2)  # each takes a nanny some seconds
    plan, outputs = chain(dask_executor, 1, die, place=np.zeros(8, int))
    with pytest.raises(WorkerLostError, match="tried 2 times"):
        dask_executor.run(plan, [ZEROS], outputs)
    check(dask_executor, 1, chain(dask_executor))


def test_a_worker_that_falls_silent_is_ended_and_replaced(dask_executor, tmp_path):
    def stop_once(block, mark=tmp_path / "stopped"):
        try:
            mark.touch(exist_ok=False)
        except FileExistsError:
            return block + 1
        os.kill(os.getpid(), signal.SIGSTOP)

    s = Sketch()
    made = s.plan(dask_executor.cluster, [s.call(stop_once, s.apply("add", s.view(0, ((500,) * 4,)), 1.0))])
    before = {p.address for p in dask_executor.places}
    with config.set(worker_timeout_s=3.0):
        report = check(dask_executor, 2, made)
    assert report.interruptions == 1 and len(before & {p.address for p in dask_executor.places}) == 1


def test_a_worker_that_is_silent_from_the_beginning(dask_client, dask_executor):
    made = chain(dask_executor, 4, place="turned")
    check(dask_executor, 4, made)
    address = dask_executor.places[1].address
    os.kill(dask_executor.client.run(os.getpid, workers=[address])[address], signal.SIGSTOP)
    with config.set(worker_timeout_s=3.0):
        check(dask_executor, 4, made)
    assert dask_executor.places[1].address != address and not dask_executor.lives.ended
    assert keys(dask_client) == []


def test_silence_is_what_the_scheduler_has_not_heard_for_long(dask_executor):
    one, other = (p.address for p in dask_executor.places)
    nobody = "tcp://127.0.0.1:1"

    def unheard(timeout_s, late_s=0.0):
        async def asked(dask_scheduler):
            from nums_core.runtime.executors.dask_lives import unheard

            dask_scheduler.workers[one].last_seen -= late_s
            return await unheard([one, other, nobody], timeout_s, dask_scheduler)
        return dask_executor.client.run_on_scheduler(asked)

    assert unheard(60.0) == [nobody]
    assert unheard(None, 90.0) == [nobody]
    assert unheard(60.0, 90.0) == [nobody]  # it has reported meanwhile


def test_a_worker_without_a_nanny_that_is_given_up_leaves_its_work_to_the_others():
    distributed = pytest.importorskip("distributed")
    from nums_core.runtime.executors.dask import DaskExecutor

    with (distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
          distributed.Client(cluster, set_as_default=False) as client):
        executor = DaskExecutor(client, memory_bytes=2**28)
        check(executor, 2, chain(executor, 2))
        stays, goes = (p.address for p in executor.places)
        executor.end(1)
        check(executor, 2, chain(executor, 2, place="turned"))
        assert [p.address for p in executor.places] == [stays, stays] and set(client.nthreads()) == {stays} != {goes}
        executor.close()


def test_workers_that_are_doubted_are_asked(dask_executor):
    assert all(dask_executor.lives.answering(p.address) for p in dask_executor.places)
    dask_executor.doubted.update(p.address for p in dask_executor.places)
    assert dask_executor._dead() == [] and dask_executor.doubted == set()
    assert not dask_executor.lives.answering("tcp://127.0.0.1:1")


def test_kept_blocks_are_made_again_where_their_hosts_are_lost(dask_client, dask_executor):
    """`client.restart()` cancels all futures, the actors' too, and ends all workers. Here the workers live on."""
    plan, outputs = chain(dask_executor, keep=True)
    (held,), _ = dask_executor.run(plan, [ZEROS], outputs)
    for _ in range(2):
        dask_client.cancel([place.actor for place in dask_executor.places])
        np.testing.assert_array_equal(np.concatenate(dask_executor.fetch(held)), ZEROS + 1)
    dask_client.cancel([place.actor for place in dask_executor.places])
    check(dask_executor, 2, chain(dask_executor, 2))
    assert keys(dask_client) == []
