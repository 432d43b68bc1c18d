"""What a derivative keeps of the forward pass: the values that its backward part reads, with their lines and bytes.

    print(saved(loss)(params, batch))           # the place to look before wrapping a part in `checkpoint`

A value that several operations read is counted once. Values that fusion makes again on the fly (casts, transposes, sums
of operands that are kept anyway) may be listed and cost nothing: the plan's peak is what counts.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nums_core._util import format_bytes
from nums_core.expr.node import Expr, postorder
from nums_core.nn import tree
from nums_core.nn.autodiff.api import value_and_grad
from nums_core.nn.autodiff.reverse import SOURCES, name_of


class Saved(NamedTuple):
    """One value that waits for the backward pass.

    Attributes
    ----------
    op : str
        The operation that made it.
    shape, dtype, nbytes
    line : str
        The user's line that built it.
    readers : tuple of str
        Operations of the backward pass that read it.
    """

    op: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    line: str
    readers: tuple[str, ...]


class Kept(list[Saved]):
    """Values that are kept, largest first; prints as a table."""

    @property
    def nbytes(self) -> int:
        """Of all of them."""
        return sum(s.nbytes for s in self)

    def __repr__(self) -> str:
        rows = [f"{len(self)} values, {format_bytes(self.nbytes)}, kept for the backward pass"]
        rows += [f"  {format_bytes(s.nbytes):>10}  {s.op:14} {s.dtype}{list(s.shape)}  for {', '.join(s.readers)}  "
                 f"{s.line}" for s in self]
        return "\n".join(rows)


def saved(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Kept]:
    """From the arguments of `f`: what `value_and_grad(f, argnums, has_aux)` keeps; computes nothing."""
    both = value_and_grad(f, argnums, has_aux)

    @functools.wraps(f)
    def look(*args: Any, **kwargs: Any) -> Kept:
        value, gradient = both(*args, **kwargs)
        return _kept([x.expr for x in tree.flatten(value)[0] if hasattr(x, "expr")],
                     [x.expr for x in tree.flatten(gradient)[0]])
    return look


def _kept(forward: Sequence[Expr], backward: Sequence[Expr]) -> Kept:
    made = {id(n): n for n in postorder(forward)}
    readers: dict[int, set[str]] = {}
    for node in postorder(backward):
        if id(node) not in made:
            for a in node.args:
                if id(a) in made and a.op not in SOURCES:
                    readers.setdefault(id(a), set()).add(name_of(node))
    found = [Saved(name_of(n), n.shape, str(n.dtype), math.prod(n.shape) * n.dtype.itemsize, str(n.line or ""),
                   tuple(sorted(readers[k]))) for k, n in made.items() if k in readers]
    return Kept(sorted(found, key=lambda s: -s.nbytes))


__all__ = ["Kept", "Saved", "saved"]
