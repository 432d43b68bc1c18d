"""Every exception of Ray's means something to us."""

from __future__ import annotations

import inspect

import pytest

from nums_core.errors import ConfigError, MemoryBudgetError, MissingBackendError, NumsError, SpillError, WorkerLostError
from nums_core.runtime.executors.clustered import CallCancelled, WorkerGone
from nums_core.runtime.executors.ray_errors import MEANINGS, meaning, translated

exceptions = pytest.importorskip("ray.exceptions")
KINDS = [e for _, e in inspect.getmembers(exceptions, inspect.isclass)
         if issubclass(e, exceptions.RayError) and e.__module__ == "ray.exceptions"]
# A process, a node or an object that went away: the run can be repeated.
REPEATED = ["ActorDiedError", "ActorUnavailableError", "WorkerCrashedError", "NodeDiedError", "LocalRayletDiedError",
            "OwnerDiedError", "ObjectLostError", "ObjectReconstructionFailedError", "OutOfMemoryError", "RaySystemError"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_each_is_named(kind):
    """By its own name: a row for RayError alone would take in what nobody has thought about."""
    assert kind.__name__ in {name for m in MEANINGS for name in m.names}
    assert issubclass(meaning(kind).ours, (NumsError, WorkerGone, CallCancelled))


def test_names_are_given_once():
    names = [name for m in MEANINGS for name in m.names]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", REPEATED)
def test_losses_are_repeated(name):
    assert meaning(getattr(exceptions, name)).ours is WorkerGone


def test_an_exception_of_a_later_version_is_taken_for_the_class_above_it():
    later = type("NodeMeltedError", (exceptions.NodeDiedError,), {"__module__": "ray.exceptions"})
    assert meaning(later).ours is WorkerGone
    assert meaning(type("Unheard", (exceptions.RayError,), {"__module__": "ray.exceptions"})).ours is WorkerLostError


@pytest.mark.parametrize(("error", "kind", "said"), [
    (exceptions.ObjectStoreFullError("no room"), MemoryBudgetError, "no room.*\n.*larger object_store_memory"),
    (exceptions.OutOfDiskError("no room"), SpillError, "no room.*\n.*Free space"),
    (exceptions.AuthenticationError("no token"), ConfigError, "no token.*\n.*token of this cluster must be on every"),
    (exceptions.RuntimeEnvSetupError("no pip"), ConfigError, "no pip.*\n.*runtime_env"),
    (exceptions.ActorUnschedulableError("no such node"), WorkerLostError, r"no such node.*\n.*nums_core\.init"),
    (exceptions.TaskCancelledError(), CallCancelled, ""),
    (exceptions.NodeDiedError("node 3 died"), WorkerGone, "node 3 died$")])
def test_messages_name_the_way_out(error, kind, said):
    ours = translated(error)
    assert type(ours) is kind
    import re
    assert re.search(said, str(ours), re.DOTALL)


def task_error(cause):
    return exceptions.RayTaskError("step", "Traceback ...", cause, "actor", 1, "10.0.0.1")


def test_the_cause_of_a_task_error_decides():
    assert isinstance(translated(task_error(exceptions.TaskCancelledError())), CallCancelled)
    assert isinstance(translated(task_error(exceptions.ObjectLostError("ab" * 28, None, ""))), WorkerGone)
    disk = OSError(28, "No space left on device")
    assert translated(task_error(disk)) is disk


def test_a_module_that_workers_lack_is_named():
    """Ray wraps what went wrong while a worker read its arguments."""
    error = exceptions.RaySystemError(ModuleNotFoundError("No module named 'mine'", name="mine"), "Traceback ...")
    ours = translated(task_error(error))
    assert isinstance(ours, MissingBackendError)
    assert "'mine'" in str(ours) and "every node" in str(ours) and "runtime_env" in str(ours)


def test_what_is_not_rays_is_left_alone():
    error = ValueError("ours")
    assert translated(error) is error
