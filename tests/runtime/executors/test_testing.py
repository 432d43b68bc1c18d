"""The executors that tests use."""

from __future__ import annotations

import numpy as np
import pytest

from nums_core.runtime.executors.local import LocalExecutor
from nums_core.runtime.executors.testing import FailingExecutor, RecordingExecutor
from nums_core.testing.executors import ExecutorSuite
from nums_core.testing.sketch import Sketch


class TestRecording(ExecutorSuite):
    """It behaves as the executor it wraps."""

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls):
        made = RecordingExecutor(LocalExecutor(1, 2**30))
        yield made
        made.close()


def sketch(executor, keep=False):
    s = Sketch()
    return s.plan(executor.cluster, [s.apply("negative", s.apply("add", s.view(0, ((2, 2),)), 1.0))], keep)


def test_what_is_recorded():
    executor = RecordingExecutor(LocalExecutor(1, 2**30))
    plan, outputs = sketch(executor)
    for _ in range(2):
        _, report = executor.run(plan, [np.zeros(4)], outputs)
    assert executor.n_tasks == 8 and executor.labels() == ["add", "negative"] * 2
    assert executor.runs[1].plan is plan and executor.runs[1].report is report
    plan, outputs = sketch(executor, keep=True)
    executor.fetch(executor.run(plan, [np.zeros(4)], outputs)[0][0])
    assert executor.fetches == 1


def test_nothing_is_computed():
    executor = FailingExecutor()
    plan, outputs = sketch(executor)
    with pytest.raises(AssertionError, match=r"(?s)nothing should have been computed.*4 tasks"):
        executor.run(plan, [np.zeros(4)], outputs)
    local = LocalExecutor(1, 2**30)
    (held,), _ = local.run(*(lambda p: (p[0], [np.zeros(4)], p[1]))(sketch(local, keep=True)))
    with pytest.raises(AssertionError, match="2 blocks were fetched"):
        executor.fetch(held)
    executor.close()
