"""Program: a small straight-line code over the blocks of one task; what a fused group of operations is.

Every value lives in one loop nest. An input block is brought into it by an *axis map*: entry `l` says which axis of the
block runs along loop `l`, or None where the block is broadcast. Transposing, adding axes and broadcasting are therefore
not instructions but maps, and cost nothing.

Values are numbered: inputs first, then constants, then one value an instruction; the last one is the result.
"""

from __future__ import annotations

from typing import Any, NamedTuple

AxisMap = tuple[int | None, ...]


class Instr(NamedTuple):
    """One elementwise operation: `op` is a row of `ops.elementwise`, `args` are value numbers."""

    op: str
    args: tuple[int, ...]
    dtype: str
    kw: tuple[tuple[str, Any], ...] = ()


class Reduction(NamedTuple):
    """What is done to the last value: a row of `ops.reductions`, over these loops."""

    name: str
    axes: tuple[int, ...]
    kw: tuple[tuple[str, Any], ...] = ()


class Program(NamedTuple):
    """Inputs by their axis maps, constants, instructions, and an optional reduction at the end.

    `dtypes` are those of the inputs. `ndim` is the number of loops.
    """

    ndim: int
    maps: tuple[AxisMap, ...]
    dtypes: tuple[str, ...]
    consts: tuple[Any, ...]
    instrs: tuple[Instr, ...]
    reduction: Reduction | None = None

    @property
    def n_inputs(self) -> int:
        return len(self.maps)

    def label(self) -> str:
        """Readable name: the operations in order, shortened."""
        names = [i.op for i in self.instrs] + ([self.reduction.name] if self.reduction else [])
        if len(names) > 4:
            names = [*names[:2], "..", names[-1]]
        return "+".join(names) or "copy"
