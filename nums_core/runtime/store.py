"""A worker's blocks under a memory budget: what does not fit is spilled to disk and read back when it is used.

The plan says when each block is used next, so the victim is the block whose next use is furthest away (Belady's rule).
Files are written under a temporary name and renamed, and go with the block that owns them.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import struct
import threading
import weakref
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from nums_core import config
from nums_core._util import format_bytes
from nums_core.errors import SpillError
from nums_core.runtime.wire import pack, unpack

_names = itertools.count()


def block_bytes(block: Any) -> int:
    """Bytes of a block: an array, or a tuple of arrays and numbers."""
    if isinstance(block, tuple):
        return sum(map(block_bytes, block))
    return getattr(block, "nbytes", 32)


def block_shape(block: Any) -> tuple[int, ...]:
    """Shape of a block; () for numbers and tuples."""
    return getattr(block, "shape", ())


class Spilled:
    """A block in a file; the file is removed when this object goes."""

    def __init__(self, block: Any, folder: str) -> None:
        self.nbytes, self.shape = block_bytes(block), block_shape(block)
        self.path = os.path.join(folder, f"block-{os.getpid()}-{next(_names)}.blk")
        part = self.path + ".part"
        try:
            with open(part, "wb") as file:
                _write(file, block)
            os.replace(part, self.path)
        except BaseException as error:
            _remove(part)
            if not isinstance(error, OSError):
                raise
            raise SpillError(
                error.errno,
                f"cannot spill {format_bytes(self.nbytes)} to {folder!r}: {error.strerror}. Free space there, choose "
                "another folder with nums_core.config.set(spill_dir=...), or raise memory_bytes") from error
        self._finalizer = weakref.finalize(self, _remove, self.path)

    def load(self) -> Any:
        with open(self.path, "rb") as file:
            return _read(file)

    def drop(self) -> None:
        self._finalizer()


def _write(file: BinaryIO, block: Any) -> None:
    """The lengths of the parts, the pickle, and the memory of its arrays as it is."""
    import pickle

    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(pack([block]), protocol=5, buffer_callback=buffers.append)
    raw = [b.raw() for b in buffers]
    file.write(struct.pack(f"<{2 + len(raw)}q", len(raw), len(head), *[r.nbytes for r in raw]))
    file.write(head)
    for r in raw:
        file.write(r)


def _read(file: BinaryIO) -> Any:
    import pickle

    n, head_bytes = struct.unpack("<2q", file.read(16))
    sizes = struct.unpack(f"<{n}q", file.read(8 * n))
    head = file.read(head_bytes)
    buffers = [np.empty(size, np.uint8) for size in sizes]
    for buffer in buffers:
        if file.readinto(buffer) != buffer.nbytes:  # type: ignore[attr-defined]
            raise OSError(f"the spill file {file.name!r} was cut short; something else wrote to the spill folder")
    return unpack(pickle.loads(head, buffers=buffers))[0]


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


_folder: str | None = None
_folder_pid = -1
_folder_end: Any = None
_folder_lock = threading.Lock()
PREFIX = "nums-spill-"


def spill_folder() -> str:
    """This process's folder for spilled blocks, made when first needed and removed at exit."""
    import tempfile

    global _folder, _folder_pid, _folder_end
    parent = os.path.abspath(config.get().spill_dir or tempfile.gettempdir())
    with _folder_lock:
        ours = _folder is not None and _folder_pid == os.getpid() and os.path.dirname(_folder) == parent
        if _folder is None or not ours or not os.path.isdir(_folder):
            try:
                os.makedirs(parent, exist_ok=True)
                _sweep(parent)
                _folder, _folder_pid = tempfile.mkdtemp(prefix=PREFIX, dir=parent), os.getpid()
                lock = _try_lock(_folder)
            except OSError as error:
                raise SpillError(error.errno, f"cannot make a spill folder in {parent!r}: {error.strerror}. Choose a "
                                 "writable folder with nums_core.config.set(spill_dir=...)") from error
            _folder_end = weakref.finalize(_anchor, _remove_folder, _folder, _folder_pid, lock)
        return _folder


def remove_spill_folder() -> None:
    """Remove this process's folder for spilled blocks now, with what is in it."""
    with _folder_lock:
        if _folder_end is not None:
            _folder_end()


def _try_lock(folder: str) -> int | None:
    """Lock a spill folder: its process holds the lock as long as it lives. None: another process has it (or no locks
    here)."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    fd = os.open(os.path.join(folder, "lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def _sweep(parent: str) -> None:
    """Remove spill folders of processes that were killed before they could."""
    import shutil

    for name in os.listdir(parent):
        folder = os.path.join(parent, name)
        # A folder without its lock is being made just now.
        if name.startswith(PREFIX) and os.path.exists(os.path.join(folder, "lock")):
            with contextlib.suppress(OSError):
                fd = _try_lock(folder)
                if fd is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(fd)


class _Anchor:
    pass


_anchor = _Anchor()  # lives as long as the process; its finalizers run at exit


def _remove_folder(path: str, pid: int, lock: int | None) -> None:
    import shutil

    if pid == os.getpid():  # not in a forked child
        shutil.rmtree(path, ignore_errors=True)
        if lock is not None:
            os.close(lock)


class BudgetStore:
    """Blocks by id, at most `budget_bytes` of them in memory as far as running tasks allow.

    `next_use(block)` gives the position of the block's next use in the plan. Safe to use from several threads.

    Attributes
    ----------
    foreign : set of int
        Blocks that are views of memory which is not the run's own (the user's arrays, results): they count nothing, and
        spilling them would free nothing.
    live_bytes, peak_bytes, spilled_bytes, unspilled_bytes : float, bytes
    """

    def __init__(self, budget_bytes: float, next_use: Callable[[int], float]) -> None:
        self.budget_bytes, self.next_use = budget_bytes, next_use
        self.blocks: dict[int, Any] = {}
        self.foreign: set[int] = set()
        self.copies: dict[int, Spilled] = {}  # on disk, of blocks that are in memory again: they need not be written twice
        # Blocks that may be spilled by (-next use, block). An entry is pushed when a block appears or a use of it ends;
        # next uses only move away, so the newest entry of a block comes first, and older ones are passed over.
        self.victims: list[tuple[float, int]] = []
        self.pins: dict[int, int] = {}
        self.live_bytes = self.peak_bytes = 0.0
        self.spilled_bytes = self.unspilled_bytes = 0.0
        self.changed = threading.Condition(threading.RLock())
        self.active = 0
        self.reserved = 0.0

    def enter(self, blocks: list[int], need_bytes: float) -> list[Any]:
        """Bring operands into memory, pin them, make room for `need_bytes` more; waits for other tasks if it must."""
        with self.changed:
            self.active += 1
            try:
                missing = self._wait_for_room(blocks, need_bytes)
                for b in missing:
                    self._load(b)
            except BaseException:
                self.active -= 1
                self.changed.notify_all()
                raise
            for b in set(blocks):
                self.pins[b] = self.pins.get(b, 0) + 1
            self.reserved += need_bytes
            return [self.blocks[b] for b in blocks]

    def _wait_for_room(self, blocks: list[int], need_bytes: float) -> list[int]:
        keep = set(blocks)
        while True:
            missing = [b for b in keep if isinstance(self.blocks[b], Spilled)]
            need = need_bytes + sum(self.blocks[b].nbytes for b in missing)
            if self._room(need, keep) or self.active == 1:
                return missing
            self.active -= 1  # somebody else holds the memory: let them finish first
            try:
                self.changed.wait(timeout=1.0)
            finally:
                self.active += 1

    def _load(self, b: int) -> None:
        spilled = self.blocks[b]
        self.blocks[b] = spilled.load()
        self.unspilled_bytes += spilled.nbytes
        self.foreign.discard(b)  # what came back from the disk is memory of ours
        self.copies[b] = spilled
        self._grow(spilled.nbytes)

    def leave(self, blocks: list[int], made: int, block: Any, need_bytes: float, counts: bool = True) -> None:
        """Unpin operands and store the block a task made."""
        with self.changed:
            self._unpin(blocks, need_bytes)
            self.put(made, block, counts)

    def abandon(self, blocks: list[int], need_bytes: float) -> None:
        """Unpin operands of a task that failed."""
        with self.changed:
            self._unpin(blocks, need_bytes)

    def _unpin(self, blocks: list[int], need_bytes: float) -> None:
        self.active -= 1
        self.reserved -= need_bytes
        for b in set(blocks):
            self.pins[b] -= 1
            if not self.pins[b]:
                del self.pins[b]
                self._offer(b)
        self.changed.notify_all()

    def put(self, made: int, block: Any, counts: bool) -> None:
        with self.changed:
            self.blocks[made] = block
            if not counts:
                self.foreign.add(made)
            elif not isinstance(block, Spilled):
                self._grow(block_bytes(block))
                self._offer(made)

    def free(self, block: int) -> None:
        with self.changed:
            value = self.blocks.pop(block, None)
            self.copies.pop(block, None)
            if block in self.foreign:
                self.foreign.discard(block)
            elif value is not None and not isinstance(value, Spilled):
                self.live_bytes -= block_bytes(value)

    def _grow(self, n: float) -> None:
        self.live_bytes += n
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _room(self, need: float, keep: set[int]) -> bool:
        """Spill until `need` more bytes fit; False if they cannot."""
        over = self.live_bytes + self.reserved + need - self.budget_bytes
        if over <= 0:
            return True
        passed = []
        try:
            while over > 0 and self.victims:
                entry = heapq.heappop(self.victims)
                b = entry[1]
                if b in keep:
                    passed.append(entry)
                elif b not in self.pins and self._spillable(b):
                    over -= self._spill(b)
        finally:
            for entry in passed:
                heapq.heappush(self.victims, entry)
        return over <= 0

    def _spill(self, b: int) -> float:
        """Write a block to disk, unless it is there already; returns the bytes that this frees."""
        value = self.blocks[b]
        n = block_bytes(value)
        copy = self.copies.pop(b, None)
        if copy is None:
            copy = Spilled(value, spill_folder())
            self.spilled_bytes += n
        self.blocks[b] = copy
        self.live_bytes -= n
        return n

    def _offer(self, b: int) -> None:
        if self._spillable(b):
            heapq.heappush(self.victims, (-self.next_use(b), b))

    def _spillable(self, b: int) -> bool:
        value = self.blocks.get(b)
        return (value is not None and b not in self.foreign and not isinstance(value, Spilled)
                and block_bytes(value) > 4096)
