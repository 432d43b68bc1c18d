"""A kernel's exception, turned into one that names the operation and the user's line."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from nums_core.errors import KernelError, NumsError
from nums_core.runtime.plan import Plan


@lru_cache(maxsize=256)
def _class_for(kind: type[Exception]) -> type[Exception]:
    """A KernelError that is also a `kind`, so that `except LinAlgError` still works."""
    try:
        return type(f"KernelError({kind.__name__})", (KernelError, kind), {"__module__": KernelError.__module__})
    except TypeError:  # two built-in layouts that do not combine
        return KernelError


def describe(block: Any) -> str:
    """Shape and dtype of an operand, for an error message."""
    if isinstance(block, tuple):
        return "(" + ", ".join(map(describe, block)) + ")"
    return f"{getattr(block, 'dtype', type(block).__name__)}{list(getattr(block, 'shape', ()))}"


def kernel_error(plan: Plan, task: int, error: Exception, operands: list[Any]) -> Exception:
    """The error to raise for `error`, met in task `task`."""
    if isinstance(error, NumsError):
        return error
    return error_from_text(type(error), failure_text(plan, task, error, operands))


def failure_text(plan: Plan, task: int, error: Exception, operands: list[Any]) -> str:
    f = plan.graph.families[int(plan.graph.family_of[task])]
    where = f"\n  written at {f.line}" if f.line else ""
    return (f"{type(error).__name__}: {error}\n  in operation {f.label or f.kernel.name!r}, block {task - f.start} of "
            f"{f.count}{where}\n  operands: {', '.join(map(describe, operands)) or 'none'}\n"
            "  The session is usable; correct the operation at that line and compute again.")


def error_from_text(kind: type[Exception], text: str) -> Exception:
    made = _class_for(kind)
    try:
        return made(text)
    except Exception:  # a class whose constructor wants more than a message
        return KernelError(text)
