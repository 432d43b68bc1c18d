"""A cluster in this process: every message is pickled as if it travelled, and calls run one after the other.

It makes partitions, super-tasks and moves testable without starting anything.
"""

from __future__ import annotations

import pickle
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
    """

    def __init__(self, workers: int = 2, threads: int = 1, memory_bytes: int = 2**30) -> None:
        super().__init__(Cluster.regular(workers, threads=threads, memory_bytes=memory_bytes, kind="loopback"))
        self.threads, self.memory_bytes = threads, memory_bytes
        self.hosts: list[WorkerHost | None] = [self._host(w) for w in range(workers)]
        self.calls: list[tuple[int, str]] = []
        self.kill: set[int] = set()

    def _host(self, worker: int) -> WorkerHost:
        return WorkerHost(worker, self.threads, self.memory_bytes, {})

    def _put(self, payload: Any) -> Any:
        return _Ref(_travel(payload))

    def _call(self, worker: int, n_out: int, *args: Any) -> list[Any]:
        self.calls.append((worker, "step"))
        if worker in self.kill:
            self.kill.discard(worker)
            self.hosts[worker] = None
        host = self.hosts[worker]
        values = [a.value if isinstance(a, _Ref) else a for a in args]
        gone = next((v for v in values if isinstance(v, WorkerGone)), None)
        if host is None or gone is not None:
            return [_Ref(gone or WorkerGone(f"worker {worker} died")) for _ in range(1 + n_out)]
        out = _travel(host.step(*_travel(values)))
        assert len(out) == 1 + n_out
        return [_Ref(v) for v in out]

    def _ask(self, worker: int, method: str, *args: Any) -> Any:
        self.calls.append((worker, method))
        host = self.hosts[worker]
        if host is None:
            return _Ref(WorkerGone(f"worker {worker} died"))
        return _Ref(_travel(getattr(host, method)(*_travel(args))))

    def _wait(self, refs: list[Any], timeout_s: float) -> list[Any]:
        return refs

    def _get(self, ref: Any) -> Any:
        if isinstance(ref.value, WorkerGone):
            raise ref.value
        return ref.value

    def _dead(self) -> list[int]:
        return [w for w, h in enumerate(self.hosts) if h is None]

    def _revive(self, worker: int) -> None:
        self.hosts[worker] = self._host(worker)

    def _shut(self) -> None:
        for host in self.hosts:
            if host is not None:
                host.shutdown()


class _Ref:
    """A value that is here already."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _travel(value: Any) -> Any:
    """A copy made by pickle, with read-only arrays, as from shared memory."""
    import cloudpickle

    buffers: list[pickle.PickleBuffer] = []
    head = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(head, buffers=[bytes(b.raw()) for b in buffers])
