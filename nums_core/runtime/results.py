"""Which memory a result may use: donated blocks may be overwritten, kept blocks must be nobody else's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

import numpy as np

from nums_core.runtime.engine import Engine
from nums_core.runtime.wire import copied


def bind_donated(engine: Engine, donated: set[int], kept: Iterable[tuple[int, str]]) -> set[int]:
    """Let an output block overwrite the donated block it is made from, where nothing else reads it any more.

    Parameters
    ----------
    donated : set of block ids
        Leaves that may be overwritten; those that will be are taken out of it.
    kept : (task, dtype) pairs
        Tasks whose blocks the run keeps.

    Returns
    -------
    set of tasks that overwrite a donated block
    """
    overwriting: set[int] = set()
    g, plan, inputs = engine.graph, engine.plan, engine.table.inputs
    for t, dtype in kept:
        kernel = g.families[int(g.family_of[t])].kernel
        if kernel.name == "pick" and _changes_state(engine, donated, inputs[t][0], kernel.params[0]):
            overwriting.add(t)
        if kernel.name != "fused" or engine.outs[t] is not None:
            continue
        program = kernel.params[0]
        if program.reduction is not None:
            continue
        identity = tuple(range(program.ndim))
        for k, b in enumerate(inputs[t]):
            old = engine.blocks[b]
            if (b in donated and plan.last_use[b] == plan.position[t] and isinstance(old, np.ndarray)
                    and old.dtype == dtype and old.nbytes == g.out_bytes[t] and old.flags.writeable
                    and old.flags.c_contiguous
                    and inputs[t].count(b) == 1 and program.maps[k] == identity):
                engine.outs[t] = old
                donated.discard(b)
                overwriting.add(t)
                break
    return overwriting


def _changes_state(engine: Engine, donated: set[int], t: int, k: int) -> bool:
    """Whether part `k` of what task `t` makes is a state it may write over; if so, the task is told.

    A state that an update before `t` made, and only `t` reads, is the run's own: updates of one state in a row share its
    memory.
    """
    g, plan = engine.graph, engine.plan
    kernel = g.families[int(g.family_of[t])].kernel
    if kernel.name != "state.update" or k >= kernel.params[2]:
        return False
    operands = engine.table.inputs[t]
    b = operands[k]
    if plan.last_use[b] != plan.position[t] or operands.count(b) != 1:
        return False
    maker, old = g.families[int(g.family_of[b])].kernel, engine.blocks[b]
    if maker.name == "pick" and engine.table.n_readers[b] == 1:
        if not _changes_state(engine, donated, engine.table.inputs[b][0], maker.params[0]):
            return False
    elif b not in donated or not isinstance(old, np.ndarray) or not old.flags.writeable:
        return False
    engine.outs[t] = (engine.outs[t] or frozenset()) | {k}
    donated.discard(b)
    return True


def root(array: np.ndarray) -> int:
    """Identity of the memory behind an array."""
    base = array
    while isinstance(base.base, np.ndarray):
        base = base.base
    return id(base)


class Keeper:
    """Makes sure that blocks kept after a run share memory with nothing else: not with the user's arrays, not with
    blocks kept before (a later donation would overwrite both), not with read-only shared memory.

    `taken()` gives the arrays whose memory may not be shared; it is asked when the first block is kept.
    """

    def __init__(self, taken: Callable[[], Iterable[Any]]) -> None:
        self._taken = taken
        self.kept: set[int] = set()  # memory of the blocks kept so far

    @cached_property
    def taken(self) -> set[int]:
        return {root(b) for b in self._taken() if isinstance(b, np.ndarray)}

    @cached_property
    def arrays(self) -> set[int]:
        return set(map(id, self._taken()))

    def own(self, block: Any, donated: bool = False) -> Any:
        """`block`, or a copy if its memory is taken. `donated`: it was written over a block that was given up."""
        if isinstance(block, tuple):
            return tuple(self.own(part) for part in block)
        if not isinstance(block, np.ndarray):
            return block
        memory = root(block)
        if not donated and (not block.flags.writeable or memory in self.kept or self._is_taken(block, memory)):
            block = copied(block)
            memory = root(block)
        self.kept.add(memory)
        return block

    def _is_taken(self, block: np.ndarray, memory: int) -> bool:
        """A block with memory of its own was made by its task, unless it is one of the arrays itself: that is soon seen."""
        return memory in (self.arrays if block.base is None else self.taken)
