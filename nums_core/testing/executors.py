"""ExecutorSuite: what every executor must do. Subclass it and give it an `executor` fixture.

    class TestMine(ExecutorSuite):
        @pytest.fixture(scope="class")
        @classmethod
        def executor(cls):
            made = MyExecutor()
            yield made
            made.close()

The graphs are written by hand (`testing.sketch`), so that neither expressions nor the scheduler are under test here.
"""

from __future__ import annotations

import gc
import pickle
import threading
import time
from typing import Any

import numpy as np
import pytest

from nums_core._util import SourceLine
from nums_core.errors import KernelError, MemoryBudgetError
from nums_core.runtime.executors.base import Executor
from nums_core.runtime.executors.local import LocalExecutor
from nums_core.testing.sketch import Sketch

DTYPES = ["?", "i1", "u2", "i8", "f2", "f4", "f8", "c8", "c16", "M8[s]", "m8[ns]", "U3", "S2"]
PLACES = ["packed", "turned"]


class Unpicklable(Exception):
    """An exception that holds something which cannot travel."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.lock = threading.Lock()


class Squares:
    """A source of `read` kernels: element i is i squared."""

    def __init__(self, n: int) -> None:
        self.shape, self.dtype = (n,), np.dtype("f8")

    def __getitem__(self, at: Any) -> np.ndarray:
        return np.arange(self.shape[0], dtype="f8")[at] ** 2


def _split(block: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
    return block[::2], len(block), np.asfortranarray(block.reshape(2, -1))


def _positive(block: np.ndarray) -> np.ndarray:
    return block[block > 0]


def _fail(block: np.ndarray) -> np.ndarray:
    if block.max() > 2:
        raise np.linalg.LinAlgError("singular where it should not be")
    return block


def _fail_oddly(block: np.ndarray) -> np.ndarray:
    raise Unpicklable(3, 4)


def _slowly(block: np.ndarray) -> np.ndarray:
    time.sleep(0.005)
    return block + 1


def cut(array: np.ndarray, chunks: Any) -> list[np.ndarray]:
    """Blocks of `array`, C order of the grid."""
    from nums_core.testing.sketch import _slices

    return [array[at] for at in _slices(chunks)]


class ExecutorSuite:
    """The contract of `Executor`, test by test."""

    def holds(self, executor: Any) -> int | None:
        """How many arrays the executor keeps for earlier runs; None where it cannot tell."""
        return None

    def lose(self, executor: Any, worker: int) -> bool:
        """End a worker, with all that it holds; False where there is none that could die."""
        return False

    def settled(self, executor: Any) -> int | None:
        """What `holds` says once nothing is waiting to be freed any more."""
        gc.collect()
        held = self.holds(executor)
        for _ in range(50):
            time.sleep(0.05)
            before, held = held, self.holds(executor)
            if before == held:
                break
        return held

    def run(self, executor: Executor, sketch: Sketch, families: list[int], inputs: list[Any], **kw: Any) -> list[Any]:
        donate = kw.pop("donate", frozenset())
        plan, outputs = sketch.plan(executor.cluster, families, **kw)
        return executor.run(plan, inputs, outputs, donate)[0]

    # -- values -------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("place", PLACES)
    def test_elementwise(self, executor: Executor, place: str) -> None:
        x = np.random.default_rng(0).normal(size=(11, 8))
        s = Sketch()
        v = s.view(0, ((4, 4, 3), (5, 3)))
        w = s.apply("multiply", s.apply("add", v, 1.0), v)
        (got,) = self.run(executor, s, [w], [x], place=place)
        np.testing.assert_array_equal(got, (x + 1.0) * x)
        assert got.flags.writeable and got.flags.owndata

    @pytest.mark.parametrize("place", PLACES)
    @pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
    def test_reduction(self, executor: Executor, place: str, axes: tuple[int, ...]) -> None:
        x = np.arange(88.0).reshape(11, 8)
        s = Sketch()
        total = s.reduce("sum", s.view(0, ((4, 4, 3), (5, 3))), axes)
        (got,) = self.run(executor, s, [total], [x], place=place)
        np.testing.assert_array_equal(got, x.sum(axis=axes))
        assert got.shape == x.sum(axis=axes).shape

    @pytest.mark.parametrize("place", PLACES)
    def test_the_same_bits_as_local(self, executor: Executor, place: str) -> None:
        """The order of a tree is the plan's; views with gaps, F order and negative strides are no exception."""
        x = np.random.default_rng(1).normal(size=(500, 500)).astype("f4")
        for source in (x, np.asfortranarray(x), x[::-1, ::-1], np.repeat(x, 2, axis=1)[:, ::2]):
            s = Sketch()
            v = s.view(0, ((230, 270), (170, 130, 200)), "f4")
            w = s.apply("exp", v)
            families = [s.reduce("sum", y, axes) for y in (v, w) for axes in ((0, 1), (0,), (1,))]
            want = self.run(LocalExecutor(1, 2**30), s, families, [source])
            for also in ([], [w]):  # whether or not the blocks are results themselves
                got = self.run(executor, s, families + also, [source], place=place)
                for a, b in zip(got, want, strict=False):
                    assert a.tobytes() == b.tobytes()

    @pytest.mark.parametrize("place", PLACES)
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_dtypes_cross(self, executor: Executor, dtype: str, place: str) -> None:
        x = np.arange(2000).astype(dtype)
        s = Sketch()
        v = s.view(0, ((900, 100, 1000),), dtype)
        w = s.call(np.copy, s.call(np.flip, v))
        (got,) = self.run(executor, s, [w], [x], place=place)
        assert got.dtype == x.dtype
        np.testing.assert_array_equal(got, np.concatenate([x[:900][::-1], x[900:1000][::-1], x[1000:][::-1]]))

    @pytest.mark.parametrize("keep", [False, True])
    def test_structured(self, executor: Executor, keep: bool) -> None:
        x = np.array([(i, i / 2, str(i)) for i in range(700)], dtype=[("a", "i4"), ("b", "f8"), ("c", "U3")])
        s = Sketch()
        w = s.call(np.copy, s.call(np.flip, s.view(0, ((350, 350),), x.dtype)))
        (got,) = self.run(executor, s, [w], [x], place="turned", keep=keep)
        got = np.concatenate(executor.fetch(got)) if keep else got
        np.testing.assert_array_equal(got, np.concatenate([x[:350][::-1], x[350:][::-1]]))

    @pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn"])
    def test_extension_floats(self, executor: Executor, name: str) -> None:
        ml_dtypes = pytest.importorskip("ml_dtypes")
        x = np.linspace(0, 1, 6000).astype(getattr(ml_dtypes, name))
        s = Sketch()
        w = s.call(np.copy, s.call(np.flip, s.view(0, ((3000, 3000),), x.dtype)))
        (got,) = self.run(executor, s, [w], [x], place="turned")
        assert got.dtype == x.dtype and (got == np.concatenate([x[:3000][::-1], x[3000:][::-1]])).all()

    @pytest.mark.parametrize("place", PLACES)
    def test_zero_dimensions(self, executor: Executor, place: str) -> None:
        s = Sketch()
        w = s.apply("add", s.apply("negative", s.view(0, ())), 2.0)
        (got,) = self.run(executor, s, [w], [np.array(5.0)], place=place)
        assert got.shape == () and got == -3.0 and isinstance(got, np.ndarray)

    @pytest.mark.parametrize("place", PLACES)
    @pytest.mark.parametrize("chunks", [((0,), (3,)), ((2, 0, 2), (3, 0)), ((0, 0), (0,))])
    def test_arrays_without_elements(self, executor: Executor, chunks: Any, place: str) -> None:
        x = np.arange(12.0).reshape(4, 3)[:int(sum(chunks[0])), :int(sum(chunks[1]))]
        s = Sketch()
        v = s.apply("add", s.apply("add", s.view(0, chunks), 1.0), 1.0)
        got, total = self.run(executor, s, [v, s.reduce("sum", v, (0, 1))], [x], place=place)
        np.testing.assert_array_equal(got, x + 2.0)
        assert got.shape == x.shape and total == (x + 2.0).sum()

    def test_an_empty_grid(self, executor: Executor) -> None:
        """No task at all."""
        s = Sketch()
        (got,) = self.run(executor, s, [s.apply("add", s.view(0, ((),)), 1.0)], [np.zeros(0)])
        assert got.shape == (0,)

    def test_no_outputs(self, executor: Executor) -> None:
        s = Sketch()
        s.apply("add", s.view(0, ((2, 2),)), 1.0)
        assert self.run(executor, s, [], [np.zeros(4)]) == []

    @pytest.mark.parametrize("place", PLACES)
    def test_blocks_that_are_tuples(self, executor: Executor, place: str) -> None:
        x = np.random.default_rng(2).normal(size=4000)
        s = Sketch()
        t = s.call(_split, s.view(0, ((2000, 1000, 1000),)))
        half = s.pick(t, 0)
        back = s.call(lambda b: b[2].reshape(-1) * b[1], t)
        s.chunks[half] = ((1000, 500, 500),)
        got = self.run(executor, s, [half, back], [x], place=place)
        np.testing.assert_array_equal(got[0], np.concatenate([b[::2] for b in cut(x, ((2000, 1000, 1000),))]))
        np.testing.assert_array_equal(got[1], np.concatenate([x[:2000] * 2000, x[2000:] * 1000]))

    @pytest.mark.parametrize("place", PLACES)
    @pytest.mark.parametrize("view", [
        lambda x: x[::2, 1:], lambda x: x[::-1, ::-3], lambda x: x.T, lambda x: x[:, 3:4].T, np.asfortranarray,
        lambda x: np.broadcast_to(x[0], x.shape), lambda x: x.reshape(6, 5, 40).transpose(2, 0, 1)[:, 2]],
        ids=["gaps", "backwards", "transposed", "column", "fortran", "broadcast", "permuted"])
    def test_views_of_any_layout(self, executor: Executor, view: Any, place: str) -> None:
        x = view(np.arange(1200.0).reshape(30, 40))
        n, m = x.shape
        s = Sketch()
        chunks = ((n // 2, n - n // 2), (m // 3, m - m // 3))
        w = s.apply("negative", s.call(np.copy, s.view(0, chunks)))
        (got,) = self.run(executor, s, [w], [x], place=place)
        np.testing.assert_array_equal(got, -x)

    def test_inputs_are_not_written(self, executor: Executor) -> None:
        x = np.arange(6000.0)
        before = x.copy()
        s = Sketch()
        kept, given = self.run(executor, s, [s.apply("add", v := s.view(0, ((3000, 3000),)), 1.0), s.call(np.copy, v)],
                               [x], keep=[True, False])
        np.testing.assert_array_equal(x, before)
        given += 1
        np.testing.assert_array_equal(np.concatenate(executor.fetch(kept)), before + 1)

    @pytest.mark.parametrize("place", PLACES)
    def test_sources_are_read(self, executor: Executor, place: str, tmp_path: Any) -> None:
        mapped = np.memmap(tmp_path / "x.bin", "f8", "w+", shape=(40, 5))
        mapped[:] = np.arange(200.0).reshape(40, 5)
        mapped.flush()
        s = Sketch()
        squares = s.apply("add", s.read(0, ((400, 600),)), 1.0)
        rows = s.apply("add", s.read(1, ((12, 7), (2, 3))), 1.0)
        got = self.run(executor, s, [squares, rows], [Squares(1000), mapped[2:40:2]], place=place)
        np.testing.assert_array_equal(got[0], np.arange(1000.0) ** 2 + 1)
        np.testing.assert_array_equal(got[1], mapped[2:40:2] + 1)

    @pytest.mark.parametrize("place", PLACES)
    @pytest.mark.parametrize("keep", [False, True])
    def test_sizes_that_depend_on_data(self, executor: Executor, place: str, keep: bool) -> None:
        x = np.random.default_rng(3).normal(size=3000)
        nan = float("nan")
        s = Sketch()
        w = s.apply("add", s.call(_positive, s.view(0, ((1000, 1500, 500),)), chunks=((nan,) * 3,)), 1.0)
        (got,) = self.run(executor, s, [w], [x], place=place, keep=keep)
        if keep:
            blocks = executor.fetch(got)
            assert got.shapes == [b.shape for b in blocks]
            got = np.concatenate(blocks)
        np.testing.assert_array_equal(got, x[x > 0] + 1)

    def test_one_block_of_unknown_size_is_the_callers_own(self, executor: Executor) -> None:
        x = np.arange(5.0)
        s = Sketch()
        (got,) = self.run(executor, s, [s.call(lambda b: b[:], s.view(0, ((5,),)), chunks=((float("nan"),),))], [x])
        got += 1
        np.testing.assert_array_equal(x, np.arange(5.0))

    # -- moves and large graphs ---------------------------------------------------------------------------------------

    def test_a_chain_that_changes_worker_at_every_step(self, executor: Executor) -> None:
        x = np.random.default_rng(4).normal(size=6000)
        s = Sketch()
        v = s.view(0, ((2000, 2000, 2000),))
        for _ in range(12):
            v = s.apply("add", v, 1.0)
        (got,) = self.run(executor, s, [v], [x], place="turned")
        want = x
        for _ in range(12):
            want = want + 1.0
        np.testing.assert_array_equal(got, want)

    def test_a_block_that_everybody_reads(self, executor: Executor) -> None:
        x = np.random.default_rng(5).normal(size=(4, 9000))
        s = Sketch()
        v = s.view(0, ((1, 1, 1, 1), (9000,)))
        first = s.call(lambda b: b * 2, v)
        ids = s.builder.ids(first)
        spread = np.stack([ids.reshape(-1), np.full(4, ids[0, 0])], axis=1)
        total = s._add(s.builder.families[s.apply("add", v, v)].kernel, s.chunks[v], "f8", spread)
        (got,) = self.run(executor, s, [total], [x], place="turned")
        np.testing.assert_array_equal(got, x * 2 + x[0] * 2)

    def test_large_fan_in(self, executor: Executor) -> None:
        x = np.arange(700.0)
        s = Sketch()
        v = s.apply("negative", s.view(0, ((7,) * 100,)))
        (got,) = self.run(executor, s, [s.join(v)], [x], place="turned")
        np.testing.assert_array_equal(got, -x)

    def test_thousands_of_tiny_tasks(self, executor: Executor) -> None:
        n = 4000
        x = np.random.default_rng(6).normal(size=n)
        s = Sketch()
        (got,) = self.run(executor, s, [s.apply("add", s.view(0, ((1,) * n,)), 1.0)], [x])
        np.testing.assert_array_equal(got, x + 1)

    def test_any_topological_order(self, executor: Executor) -> None:
        x = np.random.default_rng(7).normal(size=50)
        s = Sketch()
        w = s.apply("add", s.apply("add", s.view(0, ((5,) * 10,)), 1.0), 1.0)
        depth_first = np.arange(30).reshape(3, 10).T.reshape(-1)
        (got,) = self.run(executor, s, [w], [x], place="turned", order=depth_first)
        np.testing.assert_array_equal(got, x + 1 + 1)

    def test_replay_with_new_inputs(self, executor: Executor) -> None:
        s = Sketch()
        w = s.apply("add", s.view(0, ((300, 700),)), 1.0)
        plan, outputs = s.plan(executor.cluster, [w], place="turned")
        first = None
        for k in range(3):
            x = np.full(1000, float(k))
            (got,), _ = executor.run(plan, [x], outputs)
            np.testing.assert_array_equal(got, x + 1)
            if first is None:
                first = got
        np.testing.assert_array_equal(first, np.ones(1000))  # a later run does not write into an earlier result

    def test_a_pickled_plan_is_the_same_plan(self, executor: Executor) -> None:
        x = np.arange(20.0)
        s = Sketch()
        v = s.reduce("sum", s.view(0, ((5,) * 4,)), (0,))
        plan, outputs = s.plan(executor.cluster, [v], place="turned")
        again = pickle.loads(pickle.dumps(plan))
        assert executor.run(again, [x], outputs)[0][0] == executor.run(plan, [x], outputs)[0][0] == x.sum()

    # -- kept blocks --------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("place", PLACES)
    def test_keep_and_use_again(self, executor: Executor, place: str) -> None:
        x = np.random.default_rng(8).normal(size=(40, 300))
        chunks = ((20, 20), (100, 200))
        s = Sketch()
        (held,) = self.run(executor, s, [s.apply("add", s.view(0, chunks), 1.0)], [x], keep=True, place=place)
        assert held.nbytes == x.nbytes and len(held.refs) == 4 and held.home.shape == (4,)
        for again in ("packed", "turned"):
            s = Sketch()
            h = s.held(0, chunks, home=held.home)
            (got,) = self.run(executor, s, [s.apply("multiply", h, 2.0)], [held], place=again)
            np.testing.assert_array_equal(got, (x + 1) * 2)
        for block, want in zip(executor.fetch(held), cut(x + 1, chunks), strict=True):
            np.testing.assert_array_equal(block, want)

    def test_kept_blocks_elsewhere_than_planned(self, executor: Executor) -> None:
        """A replay may bring blocks that lie on other workers than those of the first run."""
        x = np.arange(4000.0)
        s = Sketch()
        w = s.apply("add", s.view(0, ((1000,) * 4,)), 1.0)
        (here,) = self.run(executor, s, [w], [x], keep=True)
        n = executor.cluster.n_workers
        turned = np.concatenate([np.zeros(4, int), (here.home + 1) % n])
        (there,) = self.run(executor, s, [w], [x], keep=True, place=turned)
        s = Sketch()
        plan, outputs = s.plan(executor.cluster, [s.apply("add", s.held(0, ((1000,) * 4,), home=here.home), 1.0)])
        for held in (here, there):
            np.testing.assert_array_equal(executor.run(plan, [held], outputs)[0][0], x + 2)

    def test_kept_and_given_in_one_run(self, executor: Executor) -> None:
        x = np.arange(2000.0)
        s = Sketch()
        w = s.apply("add", s.view(0, ((1200, 800),)), 1.0)
        total = s.reduce("sum", w, (0,))
        held, got, again, value = self.run(executor, s, [w, w, w, total], [x], keep=[True, False, False, False])
        np.testing.assert_array_equal(got, x + 1)
        got += 5
        np.testing.assert_array_equal(again, x + 1)
        np.testing.assert_array_equal(np.concatenate(executor.fetch(held)), x + 1)
        assert value == (x + 1).sum()

    def test_kept_blocks_are_nobody_elses(self, executor: Executor) -> None:
        x = np.arange(2000.0)
        s = Sketch()
        v = s.view(0, ((1000, 1000),))
        (held,) = self.run(executor, s, [s.call(lambda b: b, v)], [x], keep=True)
        x[:] = -1
        np.testing.assert_array_equal(np.concatenate(executor.fetch(held)), np.arange(2000.0))

    def test_donation(self, executor: Executor) -> None:
        x = np.random.default_rng(9).normal(size=30_000)
        chunks = ((10_000,) * 3,)
        s = Sketch()
        (held,) = self.run(executor, s, [s.apply("add", s.view(0, chunks), 0.0)], [x], keep=True)
        s = Sketch()
        doubled = s.apply("multiply", s.held(0, chunks, home=held.home), 2.0)
        plan, outputs = s.plan(executor.cluster, [doubled], keep=True)
        want = x
        for _ in range(4):
            (held,), _ = executor.run(plan, [held], outputs, frozenset({0}))
            want = want * 2.0
        np.testing.assert_array_equal(np.concatenate(executor.fetch(held)), want)

    def test_donation_spares_other_kept_arrays(self, executor: Executor) -> None:
        x = np.arange(30_000.0)
        chunks = ((10_000,) * 3,)
        s = Sketch()
        (a,) = self.run(executor, s, [s.apply("add", s.view(0, chunks), 0.0)], [x], keep=True)
        s = Sketch()
        (b,) = self.run(executor, s, [s.call(lambda b: b, s.held(0, chunks, home=a.home))], [a], keep=True)
        s = Sketch()
        self.run(executor, s, [s.apply("multiply", s.held(0, chunks, home=a.home), 2.0)], [a], keep=True,
                 donate=frozenset({0}))
        np.testing.assert_array_equal(np.concatenate(executor.fetch(b)), x)

    def test_a_donated_block_that_is_read_twice(self, executor: Executor) -> None:
        x = np.arange(20_000.0)
        chunks = ((10_000,) * 2,)
        s = Sketch()
        (held,) = self.run(executor, s, [s.apply("add", s.view(0, chunks), 0.0)], [x], keep=True)
        s = Sketch()
        h = s.held(0, chunks, home=held.home)
        twice = s.apply("multiply", h, 2.0)
        a, b = self.run(executor, s, [twice, s.apply("add", h, twice)], [held], keep=True, donate=frozenset({0}))
        np.testing.assert_array_equal(np.concatenate(executor.fetch(a)), x * 2)
        np.testing.assert_array_equal(np.concatenate(executor.fetch(b)), x * 3)

    def test_kept_blocks_are_freed(self, executor: Executor) -> None:
        before = self.settled(executor)
        if before is None:
            pytest.skip("this executor does not tell what it holds")
        s = Sketch()
        (held,) = self.run(executor, s, [s.apply("add", s.view(0, ((500,) * 4,)), 1.0)], [np.arange(2000.0)], keep=True)
        assert self.holds(executor) > before  # type: ignore[operator]
        del held
        assert self.settled(executor) == before

    # -- failures -----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("place", PLACES)
    def test_a_kernels_error_names_the_line(self, executor: Executor, place: str) -> None:
        s = Sketch()
        v = s.apply("add", s.view(0, ((2, 2, 2),)), 1.0)
        s.line = SourceLine("model.py", 17)
        v = s.call(_fail, v)
        s.line = None
        w = s.apply("add", s.apply("add", v, 1.0), 1.0)
        plan, outputs = s.plan(executor.cluster, [w], place=place)
        for _ in range(2):
            with pytest.raises(np.linalg.LinAlgError, match="singular where it should not be") as met:
                executor.run(plan, [np.array([0.0, 0, 0, 0, 5, 5])], outputs)
            assert isinstance(met.value, KernelError)
            text = str(met.value)
            assert "model.py:17" in text and "_fail" in text and "block 2 of 3" in text and "float64[2]" in text
            assert isinstance(met.value.__cause__, np.linalg.LinAlgError)
            # It can be used at once, with the same plan.
            np.testing.assert_array_equal(executor.run(plan, [np.zeros(6)], outputs)[0][0], np.full(6, 3.0))

    def test_an_error_that_does_not_pickle(self, executor: Executor) -> None:
        s = Sketch()
        w = s.call(_fail_oddly, s.view(0, ((2, 2),)))
        with pytest.raises(KernelError, match="Unpicklable: 3 and 4"):
            self.run(executor, s, [w], [np.zeros(4)])

    def test_a_failed_run_leaves_nothing_behind(self, executor: Executor) -> None:
        before = self.settled(executor)
        s = Sketch()
        v = s.view(0, ((2, 2),))
        with pytest.raises(KernelError):
            self.run(executor, s, [s.apply("add", v, 1.0), s.call(_fail, v)], [np.array([0.0, 0, 5, 5])], keep=True)
        assert self.settled(executor) == before

    def test_a_task_over_the_budget_is_refused(self, executor: Executor) -> None:
        ran: list[Any] = []
        s = Sketch()
        s.line = SourceLine("model.py", 18)
        budget = min(w.memory_bytes for w in executor.cluster.workers)
        w = s.call(ran.append, s.view(0, ((2, 2),)), n_bytes=2.0 * budget)
        with pytest.raises(MemoryBudgetError, match="use smaller chunks") as met:
            self.run(executor, s, [w], [np.zeros(4)])
        assert "model.py:18" in str(met.value) and not ran

    def test_a_worker_that_dies_takes_nothing_with_it(self, executor: Executor) -> None:
        x = np.random.default_rng(11).normal(size=8000)
        chunks = ((2000,) * 4,)
        s = Sketch()
        (held,) = self.run(executor, s, [s.apply("exp", s.view(0, chunks))], [x], keep=True)
        want = np.concatenate(executor.fetch(held))
        s = Sketch()
        plan, outputs = s.plan(executor.cluster, [s.apply("add", s.held(0, chunks, home=held.home), x[0])])
        for worker in range(executor.cluster.n_workers):
            if not self.lose(executor, worker):
                pytest.skip("no worker of this executor can die alone")
            np.testing.assert_array_equal(executor.run(plan, [held], outputs)[0][0], want + x[0])
            self.lose(executor, worker)
            np.testing.assert_array_equal(np.concatenate(executor.fetch(held)), want)

    # -- the rest -----------------------------------------------------------------------------------------------------

    def test_more_than_the_budget_at_once(self, executor: Executor) -> None:
        """All first blocks are alive before the first second one is made."""
        n = 24
        x = np.random.default_rng(10).normal(size=n * 4096)
        s = Sketch()
        v = s.apply("add", s.view(0, ((4096,) * n,)), 1.0)
        ids = s.builder.ids(v)
        pairs = np.stack([ids, ids[::-1]], axis=1)
        w = s._add(s.builder.families[s.apply("add", v, v)].kernel, s.chunks[v], "f8", pairs)
        (got,) = self.run(executor, s, [s.reduce("sum", w, (0,))], [x])
        np.testing.assert_allclose(got, 2 * (x + 1).sum())

    def test_two_threads_at_once(self, executor: Executor) -> None:
        s = Sketch()
        v = s.call(_slowly, s.view(0, ((500,) * 6,)))
        plan, outputs = s.plan(executor.cluster, [s.call(_slowly, v)], place="turned")
        results: dict[int, Any] = {}

        def work(k: int) -> None:
            try:
                results[k] = executor.run(plan, [np.full(3000, float(k))], outputs)[0][0]
            except BaseException as error:
                results[k] = error

        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(timeout=60)
        for k in range(4):
            np.testing.assert_array_equal(results[k], np.full(3000, k + 2.0))

    def test_report(self, executor: Executor) -> None:
        x = np.zeros(80_000)
        s = Sketch()
        w = s.apply("add", s.apply("add", s.view(0, ((20_000,) * 4,)), 1.0), 1.0)
        plan, outputs = s.plan(executor.cluster, [w], place="turned")
        _, report = executor.run(plan, [x], outputs)
        assert report.n_tasks == 8 and report.flop == plan.graph.flop.sum()
        assert sum(n for *_, n in report.spans) == 8
        assert all(0 <= w < executor.cluster.n_workers for _, w, *_ in report.spans)
        assert all(-0.05 <= a <= b <= report.run_s + 0.05 for *_, a, b, _ in report.spans)
        assert report.peak_bytes.shape == (executor.cluster.n_workers,)
        assert report.bytes_moved == pytest.approx(plan.bytes_moved, rel=0.05)
        assert "8 tasks" in report.text()
