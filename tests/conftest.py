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
