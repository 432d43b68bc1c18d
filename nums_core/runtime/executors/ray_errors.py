"""What Ray's exceptions mean for a run.

A row names classes of `ray.exceptions`. Names are compared instead of classes, since no version of Ray has all of them; the
class of an error is looked up first, then those above it.
"""

from __future__ import annotations

from typing import NamedTuple

from nums_core.errors import ConfigError, MemoryBudgetError, MissingBackendError, SpillError, WorkerLostError
from nums_core.runtime.executors.clustered import CallCancelled, WorkerGone


class Meaning(NamedTuple):
    """The error that is raised, and what its message adds to Ray's."""

    ours: type[Exception]
    remedy: str
    names: tuple[str, ...]


MEANINGS = (
    Meaning(CallCancelled, "", ("TaskCancelledError",)),
    # A process, a node or an object went away: the executor replaces the worker and repeats the run.
    Meaning(WorkerGone, "", (
        "RayActorError", "ActorDiedError", "ActorUnavailableError", "WorkerCrashedError", "LocalRayletDiedError",
        "NodeDiedError", "OutOfMemoryError", "ObjectLostError", "ObjectFetchTimedOutError", "ObjectFreedError",
        "OwnerDiedError", "ObjectReconstructionFailedError", "ObjectReconstructionFailedMaxAttemptsExceededError",
        "ObjectReconstructionFailedLineageEvictedError", "ReferenceCountingAssertionError", "PlasmaObjectNotAvailable",
        "GetTimeoutError", "RpcError", "RaySystemError")),
    Meaning(MemoryBudgetError, "Start the nodes with a larger object_store_memory, use smaller chunks (x.rechunk(...), or "
            "config block_bytes), or keep results on the workers with persist().", ("ObjectStoreFullError",)),
    Meaning(SpillError, "Free space in the folder where Ray spills objects, or choose another one "
            "(ray start --object-spilling-directory).", ("OutOfDiskError",)),
    Meaning(ConfigError, "The token of this cluster must be on every machine that joins it: in ~/.ray/auth_token, or in the "
            "file that RAY_AUTH_TOKEN_PATH names, with RAY_AUTH_MODE=token.", ("AuthenticationError",)),
    Meaning(ConfigError, "Check the runtime_env given to nums_core.init(..., ray=dict(runtime_env=...)), or of the job.",
            ("RuntimeEnvSetupError",)),
    Meaning(WorkerLostError, "The node it was meant for is gone, or takes no more work; see `ray status`, then "
            "nums_core.init(...) connects anew.",
            ("ActorUnschedulableError", "TaskUnschedulableError", "ActorPlacementGroupRemoved", "TaskPlacementGroupRemoved",
             "ActorHandleNotFoundError", "AsyncioActorExit")),
    Meaning(WorkerLostError, "This is not expected of Ray here; please report it with the versions of ray and nums_core.",
            ("RayError", "RayTaskError", "CrossLanguageError", "UserCodeException", "UnserializableException",
             "PendingCallsLimitExceeded", "ObjectRefStreamEndOfStreamError", "StreamingGeneratorReplayInconsistentError",
             "OufOfBandObjectRefSerializationException", "RayChannelError", "RayChannelTimeoutError",
             "RayCgraphCapacityExceeded", "RayDirectTransportError", "ActorAlreadyExistsError")),
)
_BY_NAME = {name: m for m in MEANINGS for name in m.names}


def meaning(kind: type[BaseException]) -> Meaning | None:
    """The row for a class of Ray's exceptions; None where it is not one."""
    return next((_BY_NAME[c.__name__] for c in kind.__mro__
                 if c.__module__.startswith("ray.") and c.__name__ in _BY_NAME), None)


def translated(error: BaseException) -> BaseException:
    """Our error for one of Ray's; the error itself where it is none.

    What a kernel raises never comes here (workers report it in their `Status`), so the cause of a RayTaskError is what
    went wrong around kernels: an argument that is lost, a result that does not pickle, or Ray's own trouble.
    """
    cause = getattr(error, "cause", None)
    if type(error).__name__.startswith("RayTaskError") and isinstance(cause, BaseException):
        return translated(cause)
    row = meaning(type(error))
    if row is None:
        return error
    missing = missing_module(error)
    if missing:
        return MissingBackendError(f"a worker cannot import {missing}. Install it on every node of the cluster, or send it "
                                   "along: nums_core.init(..., ray=dict(runtime_env={'py_modules': [...]}))")
    text = first_lines(error)
    return row.ours(f"{text}\n  {row.remedy}" if row.remedy else text)


def missing_module(error: BaseException) -> str:
    """The module that a worker looked for in vain when it read its arguments; "" where that is not what happened."""
    cause = getattr(error, "client_exc", None)
    return f"the module {cause.name!r}" if isinstance(cause, ModuleNotFoundError) else ""


def first_lines(error: BaseException) -> str:
    """The first lines of Ray's message, which say what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:4])[:400]
