"""Fixtures of the whole test run. What is slow to start is started once."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("nums_core.testing.executors")


@pytest.fixture(scope="session")
def ray_executor():
    """Two Ray workers on this machine; starting Ray takes 6 to 10 s."""
    pytest.importorskip("ray")
    from nums_core.runtime.executors.ray import RayExecutor

    executor = RayExecutor(num_workers=2, memory_bytes=2**30, log_to_driver=False)
    yield executor
    executor.close()


@pytest.fixture(scope="session")
def dask_client():
    """Two Dask workers on this machine, processes of one thread; starting them takes some 4 s."""
    distributed = pytest.importorskip("distributed")
    with (distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
          distributed.Client(cluster) as client):
        yield client


@pytest.fixture(scope="session")
def dask_executor(dask_client):
    from nums_core.runtime.executors.dask import DaskExecutor

    executor = DaskExecutor(dask_client, memory_bytes=2**30)
    yield executor
    executor.close()
