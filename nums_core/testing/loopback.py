"""A cluster in this process: every message is pickled as if it travelled, and calls run one after the other.

It makes partitions, super-tasks, moves, deaths and silence testable without starting anything.
"""

from __future__ import annotations

import pickle
import time
import weakref
from collections.abc import Callable
from typing import Any

from nums_core.runtime.cluster import Cluster
from nums_core.runtime.executors.clustered import ClusteredExecutor, WorkerGone
from nums_core.runtime.remote import WorkerHost


class LoopbackExecutor(ClusteredExecutor):
    """Workers as objects of this process.

    Parameters
    ----------
    workers : int
    threads : int
        Of each worker.
    memory_bytes : int, bytes
        Of each worker.

    Attributes
    ----------
    calls : list of (worker, method)
        Everything that was asked of workers.
    kill : set of workers
        Each dies at its next call of `step`.
    dies : function of (number of the call, worker, method) -> which workers die before it
        Calls are numbered from when it was set.
    frozen : set of workers
        They answer nothing any more, and do not die of themselves.
    loses : bool
        Whether what a dead worker has sent is lost where nobody has read it yet, as with a machine.
    """

    def __init__(self, workers: int = 2, threads: int = 1, memory_bytes: int = 2**30) -> None:
        super().__init__(Cluster.regular(workers, threads=threads, memory_bytes=memory_bytes, kind="loopback"))
        self.threads, self.memory_bytes = threads, memory_bytes
        self.hosts: list[WorkerHost | None] = [self._host(w) for w in range(workers)]
        self.calls: list[tuple[int, str]] = []
        self.kill: set[int] = set()
        self.frozen: set[int] = set()
        self.loses = False
        self.sent: weakref.WeakSet[_Ref] = weakref.WeakSet()
        self.schedule(lambda call, worker, method: ())

    def schedule(self, dies: Callable[[int, int, str], Any]) -> None:
        """Let workers die by the number of a call; numbers begin anew."""
        self.dies, self.counted = dies, 0

    def _host(self, worker: int) -> WorkerHost:
        return WorkerHost(worker, self.threads, self.memory_bytes, {})

    def die(self, worker: int) -> None:
        """End a worker at once."""
        self.hosts[worker] = None
        for ref in list(self.sent):
            if ref.worker == worker and (ref.value is _PENDING or self.loses):
                ref.value = WorkerGone(f"worker {worker} died")

    def _put(self, payload: Any) -> Any:
        return _Ref(_travel(payload))

    def _call(self, worker: int, n_out: int, *args: Any) -> list[Any]:
        if worker in self.kill:
            self.kill.discard(worker)
            self.die(worker)
        out = self._carry(worker, "step", args)
        refs = [_Ref(v, worker) for v in out] if isinstance(out, list) else [_Ref(out, worker) for _ in range(1 + n_out)]
        assert len(refs) == 1 + n_out
        self.sent.update(refs)
        return refs

    def _ask(self, worker: int, method: str, *args: Any) -> Any:
        ref = _Ref(self._carry(worker, method, args), worker)
        if method != "free":
            self.sent.add(ref)
        return ref

    def _carry(self, worker: int, method: str, args: Any) -> Any:
        """What the call makes; a WorkerGone, or `_PENDING` where there is no answer."""
        self.calls.append((worker, method))
        if method != "free":  # sent by a thread that nobody waits for
            number, self.counted = self.counted, self.counted + 1
            for w in self.dies(number, worker, method):
                self.die(w)
        host = self.hosts[worker]
        values = [a.value if isinstance(a, _Ref) else a for a in args]
        gone = next((v for v in values if isinstance(v, WorkerGone)), None)
        if host is None or gone is not None:
            return gone or WorkerGone(f"worker {worker} died")
        if worker in self.frozen or any(v is _PENDING for v in values):
            return _PENDING
        return _travel(getattr(host, method)(*_travel(values)))

    def _silent(self, workers: list[int], timeout_s: float) -> Any:
        return _Ref([w for w in workers if w in self.frozen])

    def _wait(self, refs: list[Any], timeout_s: float) -> list[Any]:
        ready = [ref for ref in refs if ref.value is not _PENDING]
        if len(ready) < len(refs):
            time.sleep(min(timeout_s, 0.01))
        return ready

    def _get(self, ref: Any) -> Any:
        if isinstance(ref.value, WorkerGone):
            raise ref.value
        return ref.value

    def _dead(self) -> list[int]:
        return [w for w, h in enumerate(self.hosts) if h is None]

    def _end(self, worker: int) -> None:
        self.frozen.discard(worker)
        self.die(worker)
        for ref in list(self.sent):  # what waited for its blocks
            if ref.value is _PENDING:
                ref.value = WorkerGone(f"worker {worker} was ended")

    def _revive(self, worker: int) -> None:
        self.hosts[worker] = self._host(worker)

    def _shut(self) -> None:
        for host in self.hosts:
            if host is not None:
                host.shutdown()


_PENDING = object()


class _Ref:
    """A value that is here already, or never will be; `worker` made it."""

    def __init__(self, value: Any, worker: int = -1) -> None:
        self.value, self.worker = value, worker


def _travel(value: Any) -> Any:
    """A copy made by pickle, with read-only arrays, as from shared memory."""
    import cloudpickle

    buffers: list[pickle.PickleBuffer] = []
    head = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(head, buffers=[bytes(b.raw()) for b in buffers])
