"""Watch: workers that calls wait for are asked now and then whether they live; one that does not answer counts as dead.

A worker answers while it computes (a thread of its own does), so that silence means a process that was stopped, a machine
that cannot be reached, or a kernel that holds the interpreter's lock all that time. The first question comes after a second: a
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
PATIENCE = 3.0  # timeouts within which a cluster answers at all


class Watch:
    """`look(workers)` after every wait for something that `workers` are to answer.

    Attributes
    ----------
    limit_s : float, s
        Silence that counts as death (config `worker_timeout_s`); 0: never.
    ended : dict worker -> s
        Workers that were given up, and when.
    """

    def __init__(self, executor: ClusteredExecutor) -> None:
        self.executor, self.limit_s = executor, config.get().worker_timeout_s
        self.due_s = time.perf_counter() + min(FIRST_S, self.limit_s / 4)
        self.question: Any = None
        self.asked_s = 0.0
        self.ended: dict[int, float] = {}

    def look(self, workers: Iterable[int]) -> None:
        """Raises WorkerLostError where a worker's calls do not even end with it, and where the cluster says nothing."""
        now = time.perf_counter()
        if not self.limit_s or now < self.due_s:
            return
        waited_for = set(workers)
        if self.question is None:
            self.question = self.executor._silent(sorted(waited_for - self.ended.keys()), self.limit_s)
            self.asked_s = now
        elif self.executor._wait([self.question], 0.0):
            self._hear(now)
        elif now - self.asked_s > PATIENCE * self.limit_s:
            raise WorkerLostError(_NO_ANSWER.format("the cluster", now - self.asked_s, "nothing is known of its workers"))
        for w in waited_for & self.ended.keys():
            if now - self.ended[w] > self.limit_s:
                raise WorkerLostError(_NO_ANSWER.format(self.executor.name(w), now - self.ended[w] + self.limit_s,
                                                        "cannot be ended from here, so that its work cannot go on elsewhere"))

    def _hear(self, now: float) -> None:
        for w in self.executor._get(self.question):
            self.ended[w] = now
            self.executor.end(w)
        self.question, self.due_s = None, now + self.limit_s / 4


_NO_ANSWER = ("{} did not answer for {:.3g} s (config worker_timeout_s), and {}.\n  Look at its machine and network, then "
              "start again with nums_core.init(...); if a kernel of yours keeps Python from running for longer than that, "
              "raise worker_timeout_s")
