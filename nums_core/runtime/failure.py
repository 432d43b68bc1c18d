"""A kernel's exception, turned into one that names the operation and the user's line."""

from __future__ import annotations

import pickle
from functools import lru_cache
from typing import Any

from nums_core.errors import KernelError, NumsError
from nums_core.runtime.plan import Plan


@lru_cache(maxsize=256)
def _class_for(kind: type[Exception]) -> type[Exception]:
    """A KernelError that is also a `kind`, so that `except LinAlgError` still works."""
    try:
        return type(f"KernelError({kind.__name__})", (KernelError, kind),  # kinds whose text comes from attributes lack them
                    {"__module__": KernelError.__module__, "__str__": Exception.__str__})
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
    text = failure_text(plan, task, f"{type(error).__name__}: {error}", list(map(describe, operands)))
    return error_from_text(type(error), text)


def failure_text(plan: Plan, task: int, what: str, operands: list[str]) -> str:
    """What happened, in which operation and block, where the user wrote it, and on what."""
    f = plan.graph.families[int(plan.graph.family_of[task])]
    where = f"\n  written at {f.line}" if f.line else ""
    return (f"{what}\n  in operation {f.label or f.kernel.name!r}, block {task - f.start} of "
            f"{f.count}{where}\n  operands: {', '.join(operands) or 'none'}\n"
            "  The session is usable; correct the operation at that line and compute again.")


def error_from_text(kind: type[Exception], text: str) -> Exception:
    made = _class_for(kind)  # type: ignore[arg-type]
    try:
        return made(text)
    except Exception:  # a class whose constructor wants more than a message
        return KernelError(text)


class RemoteFailure:
    """A kernel's exception on its way from a worker: picklable, whatever the exception holds."""

    def __init__(self, task: int, error: Exception, operands: list[Any]) -> None:
        self.task = task
        self.what = f"{type(error).__name__}: {error}"
        self.operands = list(map(describe, operands))
        import traceback

        self.trace = "".join(traceback.format_exception(error))
        self.kind, self.error = _travels(error)

    def raised(self, plan: Plan, task: int) -> Exception:
        """The error to raise; `task` is the task's id in `plan`, or -1 where no kernel failed. Its cause is the exception
        itself, if that can be pickled."""
        cause = _arrived(self.error)
        if isinstance(cause, NumsError) or (isinstance(cause, Exception) and task < 0):
            cause.add_note(f"On the worker:\n{self.trace}")
            return cause
        if task < 0:
            return RuntimeError(f"{self.what}\nOn the worker:\n{self.trace}")
        kind = _arrived(self.kind)
        made = error_from_text(kind if isinstance(kind, type) else RuntimeError,
                               failure_text(plan, task, self.what, self.operands))
        made.__cause__ = cause if isinstance(cause, Exception) else RuntimeError(self.what)
        made.__cause__.add_note(f"On the worker:\n{self.trace}")
        return made


def _travels(error: Exception) -> tuple[bytes, bytes]:
    """The class of `error`, or its nearest base that can be pickled; and the exception, if it can."""
    import cloudpickle

    kinds = []
    for kind in type(error).__mro__:
        try:
            kinds.append(cloudpickle.dumps(kind))
            break
        except Exception:
            continue
    try:
        whole = cloudpickle.dumps(error)
        pickle.loads(whole)
    except Exception:
        whole = b""
    return kinds[0], whole


def _arrived(data: bytes) -> Any:
    try:
        return pickle.loads(data)
    except Exception:
        return None
