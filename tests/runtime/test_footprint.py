"""What a plan takes of memory, before it runs."""

from __future__ import annotations

import numpy as np
import pytest

from nums_core.errors import MemoryBudgetError
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.footprint import check_budget, own_bytes, peak_bytes, working_set
from nums_core.testing.sketch import Sketch

KB = 1000.0


def chain(memory_bytes=10**6):
    """Four blocks of 1 kB, each read once; then their sum."""
    s = Sketch()
    v = s.call(np.negative, s.view(0, ((125,) * 4,)))
    joined = s.join(s.call(np.negative, v))
    return s.plan(Cluster.single(1, memory_bytes), [joined])[0]


def test_leaves_are_not_ours():
    plan = chain()
    np.testing.assert_array_equal(own_bytes(plan), [0.0] * 4 + [KB] * 8 + [4 * KB])


def test_a_task_works_on_its_operands_and_its_result():
    np.testing.assert_array_equal(working_set(chain()), [0.0] * 4 + [KB] * 4 + [2 * KB] * 4 + [8 * KB])


def test_peak():
    assert 8 * KB <= peak_bytes(chain(), 1) <= 12 * KB


def test_the_budget_of_the_worker_that_runs_it():
    check_budget(chain(8000))
    with pytest.raises(MemoryBudgetError, match=r"'concat' written at .*works on 7\.8 KiB, over the memory budget of"):
        check_budget(chain(7999))


def test_an_empty_plan():
    s = Sketch()
    plan = s.plan(Cluster.single(1, 10), [s.view(0, ((),))])[0]
    check_budget(plan)
    assert peak_bytes(plan, 1) == 0.0
