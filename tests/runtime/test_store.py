"""Spilling: what comes back is what went, budgets hold, failures say what to do, no file is left."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from nums_core import config
from nums_core.errors import SpillError
from nums_core.runtime import store as store_module
from nums_core.runtime.store import BudgetStore, Spilled, block_bytes, spill_folder


@pytest.fixture
def folder(tmp_path):
    with config.set(spill_dir=str(tmp_path)):
        yield tmp_path


def files(folder):
    return [p for p in folder.rglob("*") if p.is_file() and p.name != "lock"]


@pytest.mark.parametrize("block", [
    np.arange(7.0), np.array(3), np.zeros((0, 4)), np.asfortranarray(np.random.default_rng(0).normal(size=(50, 60))),
    np.arange(9000).reshape(90, 100)[::2, ::-1], np.arange(2000).astype("M8[s]"), np.array(["a", "bcd"]),
    np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), np.array([{}, None], object), 7, 2.5,
    (np.ones((40, 40)), 3, np.zeros(0), (np.arange(3),))], ids=lambda b: str(getattr(b, "dtype", type(b).__name__)))
def test_what_comes_back_is_what_went(folder, block):
    spilled = Spilled(block, spill_folder())
    back = spilled.load()
    assert spilled.nbytes == block_bytes(block)
    _same(back, block)
    assert len(files(folder)) == 1
    del spilled
    gc.collect()
    assert files(folder) == []


def _same(a, b):
    assert type(a) is type(b)
    if isinstance(b, tuple):
        for x, y in zip(a, b, strict=True):
            _same(x, y)
    elif isinstance(b, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape and a.flags.writeable
        assert np.array_equal(a, b)
        assert (a.flags.c_contiguous, a.flags.f_contiguous) == (b.flags.c_contiguous, b.flags.f_contiguous)
    else:
        assert a == b


class _Full:
    """A file on a disk that is full after some bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        self.room -= memoryview(data).nbytes
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *exc):
        return self.file.__exit__(*exc)


def test_a_full_disk_is_named_with_its_remedy_and_leaves_no_file(folder, monkeypatch):
    where = spill_folder()
    real = open
    monkeypatch.setattr(store_module, "open", lambda *a: _Full(real(*a), 1000), raising=False)
    with pytest.raises(SpillError, match=r"spill_dir.*memory_bytes") as met:
        Spilled(np.ones(1000), where)
    assert met.value.errno == errno.ENOSPC and isinstance(met.value, OSError)
    assert files(folder) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with config.set(spill_dir=str(tmp_path / "file" / "below")), pytest.raises(SpillError, match="spill_dir"):
        spill_folder()


def test_the_folder_goes_with_the_process(tmp_path):
    code = ("from nums_core import config\nfrom nums_core.runtime.store import Spilled, spill_folder\nimport numpy as np\n"
            f"config.set(spill_dir={str(tmp_path)!r})\ns = Spilled(np.ones(9), spill_folder())\n")
    subprocess.run([sys.executable, "-c", code], check=True)
    assert os.listdir(tmp_path) == []


def test_folders_of_killed_processes_are_swept(tmp_path):
    code = ("from nums_core import config\nfrom nums_core.runtime.store import Spilled, spill_folder\nimport numpy as np\n"
            f"config.set(spill_dir={str(tmp_path)!r})\ns = Spilled(np.ones(9), spill_folder())\n"
            "import os, sys\nprint('up', flush=True)\nsys.stdin.read()\nos._exit(1)")
    dying, living = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                     for _ in range(2)]
    for p in (dying, living):
        assert p.stdout.readline() == b"up\n"
    dying.communicate()
    with config.set(spill_dir=str(tmp_path)):
        ours = spill_folder()
        assert len(os.listdir(tmp_path)) == 2 and os.path.isdir(ours)
    living.communicate()


# -- BudgetStore ------------------------------------------------------------------------------------------------------

BLOCK = 8000


def block(k):
    return np.full(1000, float(k))


def filled(n, budget, next_use=float):
    store = BudgetStore(budget, next_use)
    for k in range(n):
        store.enter([], BLOCK)
        store.leave([], k, block(k), BLOCK)
    return store


def test_the_block_used_last_goes_first(folder):
    store = filled(3, 3 * BLOCK)
    store.enter([], BLOCK)
    assert [isinstance(store.blocks[k], Spilled) for k in range(3)] == [False, False, True]
    assert store.spilled_bytes == BLOCK


def test_operands_come_back_and_are_pinned(folder):
    store = filled(4, 2 * BLOCK)
    assert sum(isinstance(b, Spilled) for b in store.blocks.values()) == 2
    operands = store.enter([0, 3], 0.0)
    for k, operand in zip((0, 3), operands, strict=True):
        np.testing.assert_array_equal(operand, block(k))
    assert store.live_bytes <= 2 * BLOCK and store.peak_bytes <= 2 * BLOCK
    store.leave([0, 3], 4, None, 0.0)
    assert store.pins == {} and store.active == 0


def test_a_block_that_was_read_twice_is_unpinned_once(folder):
    store = filled(1, 10 * BLOCK)
    assert len(store.enter([0, 0], 0.0)) == 2
    store.abandon([0, 0], 0.0)
    assert store.pins == {} and store.active == 0 and store.reserved == 0.0


def test_foreign_blocks_count_nothing_and_stay(folder):
    store = BudgetStore(BLOCK, float)
    store.put(0, block(0), counts=False)
    store.enter([], 2 * BLOCK)
    assert store.live_bytes == 0 and not isinstance(store.blocks[0], Spilled)
    store.free(0)
    assert store.live_bytes == 0 and store.blocks == {}


def test_a_foreign_block_that_comes_from_the_disk_is_counted_and_uncounted(folder):
    """A kept array that an earlier run spilled."""
    store = BudgetStore(4 * BLOCK, float)
    store.put(0, Spilled(block(0), spill_folder()), counts=False)
    store.enter([0], 0.0)
    assert store.live_bytes == BLOCK
    store.abandon([0], 0.0)
    store.free(0)
    assert store.live_bytes == 0


def test_a_thread_waits_until_another_gives_memory_back(folder):
    store = BudgetStore(2 * BLOCK, float)
    store.enter([], 2 * BLOCK)
    order = []

    def second():
        store.enter([], BLOCK)
        order.append("second")
        store.leave([], 1, block(1), BLOCK)

    thread = threading.Thread(target=second)
    thread.start()
    time.sleep(0.1)
    order.append("first")
    store.leave([], 0, block(0), 2 * BLOCK)
    thread.join(timeout=10)
    assert order == ["first", "second"]


def test_a_task_alone_goes_on_over_the_budget(folder):
    store = BudgetStore(BLOCK, float)
    store.enter([], 5 * BLOCK)
    store.leave([], 0, block(0), 5 * BLOCK)
    assert store.live_bytes == BLOCK
    np.testing.assert_array_equal(store.blocks[0], block(0))


def test_what_is_on_disk_already_is_not_written_again(folder):
    store = filled(2, 2 * BLOCK)
    for _ in range(3):
        for b in (0, 1):
            assert store.enter([b], BLOCK)[0] is not None
            store.leave([b], 9, block(9), BLOCK)
            store.free(9)
    assert store.unspilled_bytes > 2 * BLOCK
    assert store.spilled_bytes <= 2 * BLOCK


def test_a_failed_spill_does_not_leave_others_waiting(folder, monkeypatch):
    store = filled(2, 2 * BLOCK)

    def fail(*a):
        raise SpillError(errno.ENOSPC, "full")

    monkeypatch.setattr(store_module, "Spilled", type("Failing", (Spilled,), {"__init__": fail}))
    with pytest.raises(SpillError):
        store.enter([], BLOCK)
    assert store.active == 0
