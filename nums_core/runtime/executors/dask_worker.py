"""What runs on a Dask worker: the `WorkerHost`, kept there as an actor, and the functions of the tasks that call it.

Nothing here imports Dask. A task finds its host by a name, `ident`. It also takes the actor as an argument, unused, so
that Dask lets the actor go with its last user and ends the task at once if the actor is lost.
"""

from __future__ import annotations

import pickle
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from nums_core.runtime.failure import RemoteFailure
from nums_core.runtime.remote import Status, WorkerHost
from nums_core.runtime.wire import copied, unpack

# Dask holds the hosts, by their actors; several may live in one process.
HOSTS: weakref.WeakValueDictionary[str, DaskHost] = weakref.WeakValueDictionary()


SHORT_BYTES = 256 * 2**10
ALIGNED = 16  # bytes: what every dtype needs, and what memory allocators give


class HostGone(Exception):
    """The host of a call is not on this worker: the worker was started again under the same address."""


class Parcel:
    """A pickled value with its buffers beside it, all read-only, so that Dask moves them as they are.

    What does not pickle fails where the parcel is made, not in Dask's own transfers. Short buffers lie one after the other
    in one, since each costs Dask some ten microseconds at either end. Workers that are threads of one process get the
    buffers themselves, which nobody may then write to.

    Attributes
    ----------
    head : bytes
    sizes : list of int, bytes
        Of the buffers, in the order of the pickle.
    joined : the short ones, each at a multiple of `ALIGNED`
    alone : list of the others
    """

    __slots__ = ("__weakref__", "alone", "head", "joined", "sizes")

    def __init__(self, head: bytes, sizes: list[int], joined: Any, alone: list[Any]) -> None:
        self.head, self.sizes = head, sizes
        self.joined, *self.alone = (memoryview(b).toreadonly() for b in (joined, *alone))

    @classmethod
    def of(cls, value: Any) -> Parcel:
        import cloudpickle

        buffers: list[pickle.PickleBuffer] = []
        head = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        raw = [b.raw() for b in buffers]
        pieces: list[Any] = []
        for b in raw:
            if b.nbytes < SHORT_BYTES:
                pieces.append(b)
                if b.nbytes % ALIGNED:
                    pieces.append(bytes(-b.nbytes % ALIGNED))
        return cls(head, [b.nbytes for b in raw], b"".join(pieces), [b for b in raw if b.nbytes >= SHORT_BYTES])

    def open(self) -> Any:
        return pickle.loads(self.head, buffers=self._buffers())

    def _buffers(self) -> Iterator[memoryview]:
        joined, alone, at = _aligned(self.joined), iter(self.alone), 0
        for n in self.sizes:
            if n >= SHORT_BYTES:
                yield _aligned(next(alone))
            else:
                yield joined[at:at + n]
                at += n + -n % ALIGNED

    @property
    def nbytes(self) -> int:
        return len(self.head) + self.joined.nbytes + sum(b.nbytes for b in self.alone)

    def __sizeof__(self) -> int:  # what Dask takes a result's size to be
        return self.nbytes

    def __reduce_ex__(self, protocol: Any) -> Any:
        # What passes through Dask's scheduler is pickled by protocol 4, which has no buffers beside the pickle.
        wrapped = pickle.PickleBuffer if protocol >= 5 else bytes
        return Parcel, (self.head, self.sizes, wrapped(self.joined), list(map(wrapped, self.alone)))


def _aligned(buffer: memoryview) -> memoryview:
    """The same bytes where NumPy can work on them as they lie: Dask cuts a message anywhere."""
    if buffer.nbytes == 0 or np.frombuffer(buffer, np.uint8).ctypes.data % ALIGNED == 0:
        return buffer
    own = np.empty(buffer.nbytes, np.uint8)
    own[:] = np.frombuffer(buffer, np.uint8)
    return memoryview(own.data).toreadonly()


class DaskHost(WorkerHost):
    """A worker's blocks and runs.

    Calls and questions take turns (`lock`). The payloads that a call makes wait in `made` until their own tasks fetch
    them, so that Dask keeps each one only as long as it has readers.
    """

    def __init__(self, ident: str, *args: Any) -> None:
        super().__init__(*args)
        self.lock = threading.Lock()
        self.in_progress = 0  # number of the run
        self.stopping: set[int] = set()
        self.over: deque[int] = deque(maxlen=100)  # runs that were abandoned, should a call of theirs still come
        self.made: dict[tuple[int, int, int], Parcel] = {}
        HOSTS[ident] = self

    def cancelled(self) -> bool:
        return self.in_progress in self.stopping

    def call(self, run: int, ticket: int, n_out: int, arguments: Parcel, imports: tuple[Parcel | None, ...]) -> Parcel:
        """One step; its results are filed under `ticket`. Returns its Status."""
        with self.lock:
            if run in self.over:
                return Parcel.of(Status(stopped=True))
            self.in_progress = run
            try:
                status, *payloads = self.step(*_filled(arguments, imports))
                made = [None if p is None else Parcel.of(p) for p in payloads]
                answer = Parcel.of(status)
            except Exception as error:  # something does not pickle, or its module is missing here
                self.stopped.add(run)
                made = [None] * n_out
                answer = Parcel.of(Status(RemoteFailure(-1, error, []), stopped=True))
            self.made.update({(run, ticket, k): p for k, p in enumerate(made) if p is not None})
            return answer

    def take(self, run: int, ticket: int, k: int) -> Parcel | None:
        """Result `k` of a call; None where it made none."""
        return self.made.pop((run, ticket, k), None)

    def abandon(self, run: int, keep: list[int]) -> None:
        super().abandon(run, keep)
        self.stopping.discard(run)
        self.over.append(run)
        for place in [p for p in self.made if p[0] == run]:
            del self.made[place]


def _filled(arguments: Parcel, imports: tuple[Parcel | None, ...]) -> list[Any]:
    """The arguments of a call, with what other tasks made put into their places."""
    values, holes = arguments.open()
    for at, parcel in zip(holes, imports, strict=True):
        values[at] = None if parcel is None else parcel.open()
    return values


# -- tasks ------------------------------------------------------------------------------------------------------------

def call(ident: str, run: int, ticket: int, n_out: int, actor: Any, before: Any, arguments: Parcel,
         *imports: Parcel | None) -> Parcel:
    """A super-task. `before` is the status of the worker's call before this one, which only has to be there."""
    return _host(ident).call(run, ticket, n_out, arguments, imports)


def take(ident: str, run: int, ticket: int, k: int, status: Any) -> Parcel | None:
    """A result of a call: payload of blocks."""
    return _host(ident).take(run, ticket, k)


def ask(ident: str, method: str, arguments: Parcel, actor: Any) -> Parcel:
    """Any other method of the host."""
    host = _host(ident)
    with host.lock:
        return Parcel.of(getattr(host, method)(*arguments.open()))


def block(ident: str, held: int, row: int, actor: Any) -> np.ndarray:
    """A copy of one block of a held array, for tasks that are not ours."""
    host = _host(ident)
    with host.lock:
        (found,) = unpack(host.lend(held, np.array([row])))
        return copied(found)


def stop(ident: str, run: int) -> None:
    """End the run's call in progress at its next segment. Runs beside the tasks, on the worker's event loop."""
    host = HOSTS.get(ident)
    if host is not None:
        host.stopping.add(run)


def _host(ident: str) -> DaskHost:
    host = HOSTS.get(ident)
    if host is None:
        raise HostGone("the Dask worker was started again and holds nothing any more")
    return host
