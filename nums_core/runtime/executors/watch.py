"""Watch: workers that calls wait for are asked now and then whether they live; one that does not answer counts as dead.

A worker answers while it computes (a thread of its own does), so that silence means a process that was stopped, a machine
that cannot be reached, or a kernel that holds the interpreter's lock all that time. The first look comes after a second: a
run that is quicker asks nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nums_core import config
from nums_core.errors import WorkerLostError

if TYPE_CHECKING:
    from nums_core.runtime.executors.clustered import ClusteredExecutor

FIRST_S = 1.0


class Watch:
    """`look(workers)` after every wait for something that `workers` are to answer.

    Attributes
    ----------
    limit_s : float, s
        Silence that counts as death (config `worker_timeout_s`); 0: never.
    """

    def __init__(self, executor: ClusteredExecutor) -> None:
        self.executor, self.limit_s = executor, float(config.get().worker_timeout_s)
        self.every_s = min(FIRST_S, self.limit_s / 4)
        self.began_s = time.perf_counter()
        self.due_s: dict[int, float] = {}  # of the next question to each worker
        self.asked: dict[int, tuple[Any, float]] = {}
        self.ended: dict[int, float] = {}  # workers that were given up, and when

    def look(self, workers: Iterable[int]) -> None:
        """Raises WorkerLostError where not even a worker that was ended lets go of its calls."""
        now = time.perf_counter()
        if not self.limit_s or now - self.began_s < self.every_s:
            return
        waited_for = set(workers)
        for w in waited_for - self.asked.keys() - self.ended.keys():
            if now >= self.due_s.get(w, 0.0) and (ref := self.executor._ping(w)) is not None:
                self.asked[w] = ref, now
        self._hear(now)
        for w, (_, since_s) in list(self.asked.items()):
            if now - since_s > self.limit_s:
                del self.asked[w]
                self.ended[w] = now
                self.executor.end(w, f"{self.executor.name(w)} did not answer for {now - since_s:.0f} s (config "
                                     "worker_timeout_s)")
        for w in waited_for & self.ended.keys():
            if now - self.ended[w] > self.limit_s:
                raise WorkerLostError(
                    f"{self.executor.name(w)} did not answer for {now - self.ended[w] + self.limit_s:.0f} s and cannot be "
                    "ended from here, so that its work cannot go on elsewhere.\n  Look at that machine and its network; then "
                    "start again with nums_core.init(...). If a kernel of yours keeps Python from running for longer than "
                    "that, raise config worker_timeout_s")

    def _hear(self, now: float) -> None:
        if self.asked:
            ready = set(self.executor._wait([ref for ref, _ in self.asked.values()], 0.0))
            for w in [w for w, (ref, _) in self.asked.items() if ref in ready]:
                del self.asked[w]
                self.due_s[w] = now + self.limit_s / 4
