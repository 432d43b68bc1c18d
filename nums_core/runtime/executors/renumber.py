"""Workers that come and go between runs.

Workers are known by their numbers: in plans, in the homes of persisted arrays, in what each of them knows. Those that join
get the next numbers, so nothing that exists changes. When some leave, those after them move up: homes are written anew, and a
plan of before is translated when it runs. Nobody is renumbered while a run is in progress.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from nums_core.runtime.cluster import Cluster
from nums_core.runtime.plan import Plan

if TYPE_CHECKING:
    from nums_core.runtime.executors.clustered import RemoteHeld

Method = TypeVar("Method", bound=Callable[..., Any])


def steady(method: Method) -> Method:
    """Workers keep their numbers while `method` runs."""
    @functools.wraps(method)
    def steadily(self: Renumbering, *args: Any, **keywords: Any) -> Any:
        with self.lock:
            self.busy += 1
        try:
            return method(self, *args, **keywords)
        finally:
            with self.lock:
                self.busy -= 1
    return cast(Method, steadily)


class Renumbering:
    """The part of a cluster executor that lets its workers change.

    Attributes
    ----------
    busy : int
        Runs and fetches in progress.
    held : weak dict number -> RemoteHeld
        Persisted arrays that somebody still has.
    """

    cluster: Cluster
    generation: list[int]
    lock: Any
    _shares: Any
    _ask: Callable[..., Any]

    def __init__(self) -> None:
        self.busy = 0
        self.held: weakref.WeakValueDictionary[int, RemoteHeld] = weakref.WeakValueDictionary()
        # Clusters of before, with the number that each of their workers has now; -1: it is gone.
        self._before: list[tuple[weakref.ref[Cluster], np.ndarray]] = []

    def refresh(self) -> None:
        """Notice workers that came or went. Called before every plan is looked up, so it must be cheap."""

    def renumber(self, stay: Sequence[int], cluster: Cluster) -> None:
        """Go on as `cluster`: workers `stay` of those before, in ascending order, then new ones.

        Those left out must hold no blocks, and may be left out only while nothing is `busy`.
        """
        with self.lock:
            number = np.full(self.cluster.n_workers, -1, np.int32)
            number[list(stay)] = np.arange(len(stay))
            earlier = [(c, np.where(n < 0, -1, number[n])) for c, n in self._before if c() is not None]
            self._before = [*earlier, (weakref.ref(self.cluster), number)]
            self.generation = [self.generation[w] for w in stay] + [0] * (cluster.n_workers - len(stay))
            if len(stay) < self.cluster.n_workers:
                self._shares.clear()  # workers know their parts by numbers of before
                for held in self.held.values():
                    held.generation = tuple(held.generation[w] for w in stay if w < len(held.generation))
                    held.home = number[held.home]
            self.cluster = cluster
            for w in range(cluster.n_workers):
                if w >= len(stay) or stay[w] != w:
                    self._ask(w, "renumber", w)

    def renumbered(self, plan: Plan) -> Plan:
        """`plan` with the numbers that workers have now; others take over from those that are gone."""
        number = next((n for c, n in self._before if c() is plan.cluster), None)
        if number is None or (number == np.arange(len(number))).all():
            return plan
        now = np.where(number < 0, np.arange(len(number)) % self.cluster.n_workers, number).astype(np.int32)
        return replace(plan, cluster=self.cluster, worker=now[plan.worker], move_src=now[plan.move_src],
                       move_dst=now[plan.move_dst])

    def holders(self) -> set[int]:
        """Workers that hold blocks of persisted arrays."""
        return {int(w) for held in self.held.values() for w in np.unique(held.home)}
