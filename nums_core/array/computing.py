"""compute, persist, jit on arrays: several at once share one plan."""

from __future__ import annotations

from typing import Any

from nums_core import session
from nums_core.array.array import Array
from nums_core.expr import marks
from nums_core.session import jit as jit  # noqa: PLC0414
from nums_core.session import last_report as last_report  # noqa: PLC0414


def compute(*arrays: Any, **kwargs: Any) -> tuple[Any, ...]:
    """The values of all arguments, computed in one run; what they share is computed once.

    Arrays may stand inside tuples, lists and dicts; other arguments pass through. 0-d arrays become NumPy scalars.
    """
    flat, nesting = session.flatten(arrays)
    which = [i for i, x in enumerate(flat) if isinstance(x, Array)]
    values = session.evaluate([flat[i].expr for i in which]) if which else []
    for i, v in zip(which, values, strict=True):
        flat[i] = v[()] if v.ndim == 0 else v
    return session.unflatten(flat, nesting)


def persist(*arrays: Any, **kwargs: Any) -> tuple[Any, ...]:
    """The same arrays with their blocks computed and kept where they were made, in one run."""
    flat, nesting = session.flatten(arrays)
    which = [i for i, x in enumerate(flat) if isinstance(x, Array)]
    made = session.keep([flat[i].expr for i in which]) if which else []
    for i, e in zip(which, made, strict=True):
        flat[i] = Array(marks.kept(e, flat[i].expr))
    return session.unflatten(flat, nesting)


def explain(*arrays: Array) -> Any:
    """The Plan that `compute(*arrays)` would run."""
    return session.current().explain([a.expr for a in arrays])


__all__ = ["compute", "explain", "jit", "last_report", "persist"]
