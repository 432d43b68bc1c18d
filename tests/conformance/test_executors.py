"""Every executor passes the same suite."""

from __future__ import annotations

import os
import signal

import pytest

from nums_core.runtime.executors.local import LocalExecutor
from nums_core.testing.executors import ExecutorSuite
from nums_core.testing.loopback import LoopbackExecutor


class TestLocal(ExecutorSuite):
    @pytest.fixture(scope="class", params=[1, 2, 7])
    @classmethod
    def executor(cls, request):
        made = LocalExecutor(request.param, 2**30)
        yield made
        made.close()


class TestLocalThatSpills(ExecutorSuite):
    """A budget of a few blocks: nearly everything goes to the disk and comes back."""

    @pytest.fixture(scope="class", params=[1, 2], ids=["1 thread", "2 threads"])
    @classmethod
    def executor(cls, request):
        made = LocalExecutor(request.param, 400_000)
        yield made
        made.close()


class TestLoopback(ExecutorSuite):
    """Parts, calls and messages, without a cluster."""

    @pytest.fixture(scope="class", params=[(1, 1), (2, 1), (3, 2), (5, 1)], ids=lambda p: f"{p[0]} workers {p[1]} threads")
    @classmethod
    def executor(cls, request):
        workers, threads = request.param
        made = LoopbackExecutor(workers, threads)
        yield made
        made.close()

    def holds(self, executor):
        return sum(host.ping() for host in executor.hosts)

    def lose(self, executor, worker):
        executor.die(worker)
        return True


class TestLoopbackThatSpills(TestLoopback):
    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls):
        made = LoopbackExecutor(2, 1, 400_000)
        yield made
        made.close()


@pytest.mark.ray
class TestRay(ExecutorSuite):
    @pytest.fixture
    def executor(self, ray_executor):
        return ray_executor

    def holds(self, executor):
        return sum(executor._get(executor._ask(w, "ping")) for w in range(executor.cluster.n_workers))

    def lose(self, executor, worker):
        os.kill(executor.pids[worker], signal.SIGKILL)
        return True


@pytest.mark.dask
class TestDask(ExecutorSuite):
    @pytest.fixture
    def executor(self, dask_executor):
        return dask_executor

    def holds(self, executor):
        return sum(executor._get(executor._ask(w, "ping")) for w in range(executor.cluster.n_workers))

    def lose(self, executor, worker):
        address = executor.places[worker].address
        os.kill(executor.client.run(os.getpid, workers=[address])[address], signal.SIGKILL)
        return True


@pytest.mark.dask
class TestDaskInOneProcess(TestDask):
    """Workers that are threads of this process hand one another their arrays, not copies."""

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls):
        distributed = pytest.importorskip("distributed")
        from nums_core.runtime.executors.dask import DaskExecutor

        with (distributed.LocalCluster(n_workers=2, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
              distributed.Client(cluster, set_as_default=False) as client):
            made = DaskExecutor(client, memory_bytes=2**30)
            yield made
            made.close()

    def lose(self, executor, worker):
        """A thread cannot be killed, but the actor that stands for what the worker holds can be lost."""
        executor.client.cancel([executor.places[worker].actor])
        return True
