"""Executors for tests: one that writes down what was run, one that refuses to run anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from nums_core.runtime.cluster import Cluster
from nums_core.runtime.executors.base import Executor, Held, Output
from nums_core.runtime.plan import Plan
from nums_core.runtime.report import Report


class Recorded(NamedTuple):
    """One run: what was asked and what came of it."""

    plan: Plan
    outputs: tuple[Output, ...]
    donate: frozenset[int]
    report: Report


class RecordingExecutor:
    """Runs plans on another executor and keeps a record of them.

    Attributes
    ----------
    runs : list of Recorded
    fetches : int
        How often blocks were brought to the driver.
    """

    def __init__(self, inner: Executor) -> None:
        self.inner = inner
        self.cluster: Cluster = inner.cluster
        self.runs: list[Recorded] = []
        self.fetches = 0

    def run(self, plan: Plan, inputs: Sequence[Any], outputs: Sequence[Output],
            donate: frozenset[int] = frozenset()) -> tuple[list[Any], Report]:
        results, report = self.inner.run(plan, inputs, outputs, donate)
        self.runs.append(Recorded(plan, tuple(outputs), donate, report))
        return results, report

    def fetch(self, held: Held) -> list[np.ndarray]:
        self.fetches += 1
        return self.inner.fetch(held)

    def close(self) -> None:
        self.inner.close()

    @property
    def n_tasks(self) -> int:
        """Tasks run so far."""
        return sum(int((~r.plan.graph.is_leaf).sum()) for r in self.runs)

    def labels(self) -> list[str]:
        """Labels of all families run so far, leaves left out."""
        return [f.label for r in self.runs for f in r.plan.graph.families if f.role != "leaf"]


class FailingExecutor:
    """Raises if anything is computed: how laziness is tested."""

    def __init__(self, cluster: Cluster | None = None) -> None:
        self.cluster = cluster or Cluster.single(1, 2**30)

    def run(self, plan: Plan, inputs: Sequence[Any], outputs: Sequence[Output],
            donate: frozenset[int] = frozenset()) -> NoReturn:
        raise AssertionError(f"nothing should have been computed here, but a plan was run:\n{plan.text()}")

    def fetch(self, held: Held) -> NoReturn:
        raise AssertionError(f"nothing should have been computed here, but {len(held.refs)} blocks were fetched")

    def close(self) -> None:
        """Holds nothing."""
