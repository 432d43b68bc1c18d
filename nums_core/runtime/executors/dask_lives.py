"""The lives of Dask's workers, as its scheduler knows them: who is there, who says nothing any more, and their end.

A worker reports to the scheduler twice a second or, in large clusters, less often; its event loop does, whatever its tasks
do meanwhile. So one question to the scheduler tells which workers are silent, and no busy worker is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from typing import Any

from nums_core import config
from nums_core.errors import MissingBackendError, WorkerLostError
from nums_core.runtime.executors.clustered import WorkerGone
from nums_core.runtime.executors.dask_tasks import LOST, Tasks

try:
    from distributed.metrics import time
    from distributed.scheduler import heartbeat_interval
except ImportError as _error:
    raise MissingBackendError("computing on Dask needs the package distributed, which is not installed here; "
                              "pip install nums-core[dask]") from _error

CHECK_S = 1.0
REPORTS = 4  # reports of a worker that may be missing, however short the time it was given
KILL_S = 1.0  # for a worker to end of itself before its nanny kills it
END_S = 10.0  # for its nanny to do that
REASON = "nums-silent-worker"


class Lives:
    """What one client can learn of its workers' lives.

    Attributes
    ----------
    ended : set of addresses
        Of workers that were given up, until the scheduler knows them no longer; another may then have the same address.
    """

    def __init__(self, tasks: Tasks) -> None:
        self.tasks, self.client = tasks, tasks.client
        self.ended: set[str] = set()

    def addresses(self) -> set[str]:
        """Workers that the scheduler knows now."""
        try:
            return set(self.client.nthreads()) - self.ended
        except LOST as error:
            raise _no_scheduler(error) from error

    async def silent(self, addresses: Collection[str], timeout_s: float) -> set[str]:
        """Those that the scheduler does not know, or has not heard of for `timeout_s`; 0: the former only."""
        try:
            return set(await self.client.run_on_scheduler(unheard, list(addresses), timeout_s or None, asynchronous=True))
        except LOST as error:
            raise _no_scheduler(error) from error

    async def while_alive(self, work: Any, addresses: Collection[str]) -> Any:
        """The value of an awaitable that needs all of these workers. Raises WorkerGone, and leaves the work to its end:
        to cancel it in the midst of a message would leave Dask's connections in disorder."""
        task = asyncio.ensure_future(work)
        while not (await asyncio.wait([task], timeout=CHECK_S))[0]:
            if silent := await self.silent(addresses, config.get().worker_timeout_s):
                task.add_done_callback(lambda t: t.cancelled() or t.exception())  # nobody else asks for it
                self.end(silent)
                raise WorkerGone(f"the Dask worker {min(silent)} is gone")
        return await task

    def answering(self, address: str) -> bool:
        """Whether a worker whose task failed lives: its event loop is asked, which is not busy with tasks."""
        asked = self.client.run(_here, workers=[address], asynchronous=True)
        try:
            return address in self.tasks.begin(self.while_alive(asked, [address])).result()
        except (*LOST, WorkerGone):
            return False

    def end(self, addresses: Collection[str]) -> None:
        """Have workers killed by their nannies, which start them anew, or else forgotten by the scheduler."""
        for address in addresses:
            self.ended.add(address)
            self.tasks.begin(self._end(address))

    async def _end(self, address: str) -> None:
        try:
            await self.client.run_on_scheduler(remove, address, asynchronous=True)
        finally:
            self.ended.discard(address)


async def remove(address: str, dask_scheduler: Any) -> None:
    """Runs on the scheduler."""
    worker = dask_scheduler.workers.get(address)
    if worker is not None and worker.nanny:
        kill = {"op": "kill", "timeout": KILL_S, "reason": REASON}
        with contextlib.suppress(TimeoutError):  # the nanny cannot be reached either
            await asyncio.wait_for(
                dask_scheduler.broadcast(msg=kill, workers=[address], nanny=True, on_error="ignore"), END_S)
    if worker is not None and dask_scheduler.workers.get(address) is worker:
        await dask_scheduler.remove_worker(address, stimulus_id=REASON)


async def unheard(addresses: list[str], timeout_s: float | None, dask_scheduler: Any) -> list[str]:
    """Runs on the scheduler. Those that seem silent get time to report: it may have been asleep itself."""
    workers = dask_scheduler.workers

    def last_reports() -> dict[str, float]:
        late = time() - max(timeout_s, REPORTS * interval_s) if timeout_s else float("-inf")
        return {a: w.last_seen if w is not None else -1.0 for a in addresses for w in [workers.get(a)]
                if w is None or w.last_seen < late}

    interval_s = heartbeat_interval(len(workers))
    before = last_reports()
    if any(seen >= 0.0 for seen in before.values()):
        await asyncio.sleep(2 * interval_s)
    return [a for a, seen in last_reports().items() if before.get(a) == seen or a not in workers]


def _here() -> bool:
    return True


def _no_scheduler(error: BaseException) -> WorkerLostError:
    return WorkerLostError(f"the Dask scheduler does not answer: {error}\n  Connect to one again and call "
                           "nums_core.init(dask=client)")
