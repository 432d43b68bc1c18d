"""A worker's blocks under a memory budget: what does not fit is spilled to disk and read back when it is used.

The plan says when each block is used next, so the victim is the block whose next use is furthest away (Belady's rule).
Files are written under a temporary name and renamed, and go with the block that owns them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import tempfile
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from nums_core import config
from nums_core._util import format_bytes
from nums_core.errors import SpillError

_names = itertools.count()


def block_bytes(block: Any) -> int:
    """Bytes of a block: an array, or a tuple of arrays and numbers."""
    if isinstance(block, tuple):
        return sum(map(block_bytes, block))
    return getattr(block, "nbytes", 32)


class Spilled:
    """A block in a file; the file is removed when this object goes."""

    def __init__(self, block: Any, folder: str) -> None:
        self.nbytes = block_bytes(block)
        self.shape = getattr(block, "shape", ())
        self.path = os.path.join(folder, f"block-{os.getpid()}-{next(_names)}.blk")
        part = self.path + ".part"
        self.is_array = isinstance(block, np.ndarray) and not block.dtype.hasobject
        try:
            with open(part, "wb") as file:
                if self.is_array:
                    np.save(file, block, allow_pickle=False)
                else:
                    pickle.dump(block, file, protocol=5)
            os.replace(part, self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise SpillError(
                error.errno,
                f"cannot spill {format_bytes(self.nbytes)} to {folder!r}: {error.strerror}. Free space there, choose "
                "another folder with nums_core.config.set(spill_dir=...), or raise memory_bytes") from error
        self._finalizer = weakref.finalize(self, _remove, self.path)

    def load(self) -> Any:
        with open(self.path, "rb") as file:
            if self.is_array:
                return np.load(file, allow_pickle=False)
            return pickle.load(file)

    def drop(self) -> None:
        self._finalizer()


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


_folder: str | None = None
_folder_lock = threading.Lock()


def spill_folder() -> str:
    """This process's folder for spilled blocks, made when first needed and removed at exit."""
    global _folder
    wanted = config.get().spill_dir or None
    with _folder_lock:
        if _folder is None or not os.path.isdir(_folder) or (wanted and not _folder.startswith(wanted)):
            try:
                if wanted:
                    os.makedirs(wanted, exist_ok=True)
                _folder = tempfile.mkdtemp(prefix="nums-spill-", dir=wanted)
            except OSError as error:
                raise SpillError(error.errno, f"cannot make a spill folder in {wanted!r}: {error.strerror}; "
                                 "set spill_dir to a writable folder") from error
            weakref.finalize(_anchor, _remove_folder, _folder)
        return _folder


class _Anchor:
    pass


_anchor = _Anchor()  # lives as long as the process; its finalizers run at exit


def _remove_folder(path: str) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


class BudgetStore:
    """Blocks by id, at most `budget_bytes` of them in memory as far as running tasks allow.

    `next_use(block)` gives the position of the block's next use in the plan. Safe to use from several threads.
    """

    def __init__(self, budget_bytes: float, next_use: Callable[[int], float]) -> None:
        self.budget_bytes, self.next_use = budget_bytes, next_use
        self.blocks: dict[int, Any] = {}
        self.pins: dict[int, int] = {}
        self.live_bytes = self.peak_bytes = 0.0
        self.spilled_bytes = self.unspilled_bytes = 0.0
        self.changed = threading.Condition(threading.RLock())
        self.active = 0
        self.reserved = 0.0

    def enter(self, blocks: list[int], need_bytes: float) -> list[Any]:
        """Bring operands into memory, pin them, and make room for `need_bytes` more; waits for other tasks if it must."""
        with self.changed:
            self.active += 1
            while True:
                missing = [b for b in dict.fromkeys(blocks) if isinstance(self.blocks[b], Spilled)]
                need = need_bytes + sum(self.blocks[b].nbytes for b in missing)
                keep = set(blocks)
                if self._room(need, keep) or self.active == 1:
                    break
                self.active -= 1  # somebody else holds the memory: let them finish first
                self.changed.wait(timeout=1.0)
                self.active += 1
            for b in missing:
                spilled = self.blocks[b]
                self.unspilled_bytes += spilled.nbytes
                self.blocks[b] = spilled.load()
                self._grow(spilled.nbytes)
            for b in keep:
                self.pins[b] = self.pins.get(b, 0) + 1
            self.reserved += need_bytes
            return [self.blocks[b] for b in blocks]

    def leave(self, blocks: list[int], made: int, block: Any, need_bytes: float, counts: bool = True) -> None:
        """Unpin operands and store the block a task made."""
        with self.changed:
            self.active -= 1
            self.reserved -= need_bytes
            for b in set(blocks):
                self.pins[b] -= 1
                if not self.pins[b]:
                    del self.pins[b]
            if block is not None:
                self.blocks[made] = block
                if counts:
                    self._grow(block_bytes(block))
            self.changed.notify_all()

    def abandon(self, blocks: list[int], need_bytes: float) -> None:
        self.leave(blocks, -1, None, need_bytes)

    def put(self, made: int, block: Any, counts: bool) -> None:
        with self.changed:
            self.blocks[made] = block
            if counts and not isinstance(block, Spilled):
                self._grow(block_bytes(block))

    def free(self, block: int, counts: bool = True) -> None:
        with self.changed:
            value = self.blocks.pop(block, None)
            if value is not None and counts and not isinstance(value, Spilled):
                self.live_bytes -= block_bytes(value)

    def pop(self, block: int) -> Any:
        """Take a block out, in memory or as `Spilled`."""
        with self.changed:
            return self.blocks.pop(block)

    def _grow(self, n: float) -> None:
        self.live_bytes += n
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _room(self, need: float, keep: set[int]) -> bool:
        """Spill until `need` more bytes fit; False if they cannot."""
        over = self.live_bytes + self.reserved + need - self.budget_bytes
        if over <= 0:
            return True
        victims = [(self.next_use(b), b) for b, v in self.blocks.items()
                   if b not in self.pins and b not in keep and self._spillable(b, v)]
        victims.sort(reverse=True)
        for _, b in victims:
            value = self.blocks[b]
            n = block_bytes(value)
            self.blocks[b] = Spilled(value, spill_folder())
            self.live_bytes -= n
            self.spilled_bytes += n
            over -= n
            if over <= 0:
                return True
        return False

    def _spillable(self, b: int, value: Any) -> bool:
        return b not in self.foreign and not isinstance(value, Spilled) and block_bytes(value) > 4096

    foreign: frozenset[int] = frozenset()  # blocks that are views of the user's own arrays: spilling frees nothing
