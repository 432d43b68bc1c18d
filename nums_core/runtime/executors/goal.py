"""A goal: a plan with what is still wanted of it, and what attempts that came to a halt have left of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nums_core.runtime.executors.calls import ClusterRun, Gathering
from nums_core.runtime.executors.clustered import ClusteredExecutor, RemoteHeld, WorkerGone
from nums_core.runtime.lineage import Making, Store, backward
from nums_core.runtime.remote import Adopted, KeptBlocks


class Goal:
    """A plan, and what is still wanted of it.

    Attributes
    ----------
    kept : dict number of the output -> RemoteHeld
        Where blocks that stay go; they may be there in part.
    sinks : dict number of the output -> Gathering
        Where blocks that the driver gets go.
    plan : Plan
        The making's, with the numbers that workers have now.
    wanted : dict number of the output -> bool array, one entry a block
    saved : RemoteHeld or None
        Blocks of the plan, by id, that attempts which came to a halt have left on workers.
    new : bool
        Whether all of the plan is wanted and nothing of it is there.
    """

    def __init__(self, executor: ClusteredExecutor, making: Making, donate: frozenset[int] = frozenset(),
                 new: bool = False) -> None:
        self.executor, self.making, self.donate = executor, making, donate
        self.plan, self.graph = executor.renumbered(making.plan), making.plan.graph
        self.kept: dict[int, RemoteHeld] = {}
        self.sinks: dict[int, Gathering] = {}
        self.wanted: dict[int, np.ndarray] = {}
        self.nbytes: dict[int, np.ndarray] = {}
        self.shapes: dict[int, dict[int, tuple[int, ...]]] = {}
        self.saved: RemoteHeld | None = None
        self.new, self.left = new, 0

    def home(self, output: int) -> np.ndarray:
        """Where the blocks of an output are made: int32, one entry a block."""
        return np.asarray(self.plan.worker[self.making.rows(output)], np.int32)

    def want(self, output: int, rows: np.ndarray | bool) -> None:
        at = self.making.rows(output)
        before = self.wanted.get(output, np.zeros(at.stop - at.start, bool))
        self.wanted[output] = before | rows

    def begin(self) -> None:
        """Make room for what the driver gets."""
        for i in self.wanted:
            if i not in self.kept and i not in self.sinks:
                self.sinks[i] = Gathering(self.making.outputs[i], self.plan, self.graph.outputs[i])

    def place(self, ids: np.ndarray, blocks: list[Any]) -> None:
        """Blocks that the driver gets, by id, ascending."""
        for sink in self.sinks.values():
            sink.place(ids, blocks)

    def missing(self) -> np.ndarray:
        """The blocks that are wanted and not there: bool, shape (n_tasks,)."""
        out = np.zeros(self.graph.n_tasks, bool)
        for i, rows in self.wanted.items():
            here = self.executor.alive(self.kept[i]) if i in self.kept else (
                self.sinks[i].placed if i in self.sinks else np.zeros_like(rows))
            out[self.making.rows(i)] |= rows & ~here
        return out

    def there(self) -> tuple[np.ndarray, list[Store]]:
        """Which of some stores has each block of the plan (-1: none), and these stores; their slots follow the plan's."""
        n = len(self.making.inputs)
        stores = [Store(n + 1 + i, self.making.rows(i).start, held) for i, held in sorted(self.kept.items())]
        stores += [Store(n, 0, self.saved)] if self.saved is not None else []
        there = np.full(self.graph.n_tasks, -1, np.int64)
        for k, store in enumerate(stores):
            there[store.start + np.flatnonzero(self.executor.alive(store.held))] = k
        return there, stores

    # -- what attempts leave behind -----------------------------------------------------------------------------------

    def note(self, output: int, found: KeptBlocks, generation: Sequence[int]) -> None:
        """Blocks of an output are kept on their workers since lives `generation` of these."""
        held = self.kept[output]
        held.generation[found.rows] = np.asarray(generation)[held.home[found.rows]]
        self.nbytes.setdefault(output, np.zeros(len(held.home)))[found.rows] = found.nbytes
        self.shapes.setdefault(output, {}).update(zip(found.rows.tolist(), found.shapes or (), strict=False))

    def result(self, output: int) -> Any:
        if output in self.sinks:
            return self.sinks[output].result()
        held = self.kept[output]
        held.nbytes = float(self.nbytes[output].sum()) if output in self.nbytes else 0.0
        shapes = self.shapes.get(output)
        held.shapes = [shapes[r] for r in range(len(held.home))] if shapes else None
        return held

    def salvage(self, run: ClusterRun) -> None:
        """Keep what a run that came to a halt has made and what is still of use."""
        executor = self.executor
        numbers = [held.number for held in run.donated.values()]
        present: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # worker -> ids in its plan, in the whole plan
        asked = [(w, executor._ask(w, "salvage", run.number, numbers)) for w in run.ids]
        for w, ref in asked:
            try:
                found, spared = executor.value(ref, w)
            except WorkerGone:
                continue
            present[w] = found, run.ids[w][found]
            for held, here in zip(run.donated.values(), spared, strict=True):
                if here:  # the run never began there
                    held.generation[held.home == w] = executor.generation[w]
        for w, chosen in self._chosen(present, set(run.donated)).items():
            self._adopt(run, w, chosen)

    def _chosen(self, present: dict[int, tuple[np.ndarray, np.ndarray]], donated: set[int]) -> dict[int, list[Adopted]]:
        """What each worker is to keep: blocks of outputs that stay, and what the missing ones can be made from."""
        missing, there = self.missing(), self.there()[0] >= 0
        chosen = {w: self._outputs_of(w, local, ids, missing, there) for w, (local, ids) in present.items()}
        useful = ~self.graph.is_leaf & ~there
        for f in self.graph.families:
            if f.kernel.name == "held" and f.kernel.params[0] in donated:  # other leaves live where they come from
                useful[f.start:f.stop] = ~there[f.start:f.stop]
        have = there.copy()
        for _, ids in present.values():
            have[ids] |= useful[ids]
        useful &= backward(self.graph, missing, have & ~missing) & ~missing
        for w, (local, ids) in present.items():
            take = useful[ids]
            if take.any():
                chosen[w].append(Adopted(self._store().number, local[take], ids[take], False, False))
                useful[ids] = False  # one copy will do
        return chosen

    def _outputs_of(self, w: int, local: np.ndarray, ids: np.ndarray, missing: np.ndarray,
                    there: np.ndarray) -> list[Adopted]:
        """Missing blocks of outputs that stay, and are on their worker; they are missing no longer."""
        out, taken = [], []
        for i, held in self.kept.items():
            at = self.making.rows(i)
            take = (ids >= at.start) & (ids < at.stop) & missing[ids]
            take[take] = held.home[ids[take] - at.start] == w
            if take.any():
                out.append(Adopted(held.number, local[take], ids[take] - at.start, True, self.making.outputs[i].unknown))
                taken.append(ids[take])
        for blocks in taken:
            there[blocks], missing[blocks] = True, False
        return out

    def _store(self) -> RemoteHeld:
        if self.saved is None:
            self.saved = self.executor.new_held(self.plan.worker.astype(np.int32), None, -1)
        return self.saved

    def _adopt(self, run: ClusterRun, w: int, chosen: list[Adopted]) -> None:
        executor = self.executor
        ref = executor._ask(w, "adopt", run.number, chosen)
        try:
            kept = executor.value(ref, w)
        except WorkerGone:
            return
        number = {held.number: i for i, held in self.kept.items()}
        for a, found in zip(chosen, kept or (), strict=False):
            if a.number in number:
                self.note(number[a.number], found, executor.generation)
            elif self.saved is not None:
                self.saved.home[a.rows], self.saved.generation[a.rows] = w, executor.generation[w]
