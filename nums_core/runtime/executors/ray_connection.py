"""This process's connection to Ray, of which there is one at a time."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nums_core.errors import ConfigError, MissingBackendError
from nums_core.runtime.cluster import available_cpus
from nums_core.runtime.executors.ray_errors import translated

try:
    import ray
except ImportError as _error:
    raise MissingBackendError("computing on Ray needs the package ray, which is not installed here; "
                              "pip install nums-core[ray]") from _error

CLIENT = "client"
REACH_S = 5.0  # for a connection to the address of a cluster


@contextmanager
def ours() -> Iterator[None]:
    """Ray's exceptions leave as ours."""
    try:
        yield
    except ray.exceptions.RayError as error:
        raise translated(error) from error


def connection() -> str:
    """What this process is connected to Ray by: "" for not at all, CLIENT, or cluster and job."""
    if _is_client():
        return CLIENT
    if not ray.is_initialized():
        return ""
    context = ray.get_runtime_context()
    return f"{context.gcs_address} {context.get_job_id()}"


def _is_client() -> bool:
    from ray.util.client import ray as client

    return bool(client.is_connected())


def on_node(node_id: str, soft: bool = False) -> Any:
    """The strategy that puts an actor or a task on a node; `soft`: on another one where it is gone."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=soft)


def connect(address: str | None, num_workers: int, options: dict[str, Any]) -> bool:
    """Connect to Ray unless this process is; whether that was done here."""
    if ray.is_initialized():
        _check_same_cluster(address)
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options = {"logging_level": logging.WARNING} | options
    if address is None:
        # Refs that a worker's death has left behind, and nobody reads, are no news.
        os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
        # address="local": a cluster named in RAY_ADDRESS is joined only where the user asks for it.
        ray.init(address="local", **{"num_cpus": num_workers or available_cpus(), "include_dashboard": False} | options)
        return True
    _check_reachable(address)
    try:
        with ours():
            ray.init(address=address, **options)
    except ConnectionError as error:
        if "AuthenticationError" in str(error.__cause__):
            raise translated(ray.exceptions.AuthenticationError(f"the cluster at {address!r} refused this process")) from error
        raise ConfigError(_NOBODY.format(address, error)) from error
    except ValueError as error:
        if "ray[client]" in str(error):
            raise MissingBackendError(f"the address {address!r} needs Ray's client, which is not installed here; "
                                      "pip install ray[client]") from error
        raise
    return True


_NOBODY = ("no Ray cluster answers at {!r}: {}. Start one with `ray start --head`, or leave the address out to start one on "
           "this machine")


def _check_reachable(address: str) -> None:
    """Somebody listens at the address. Ray itself would try for ten minutes."""
    host, _, port = (os.environ.get("RAY_ADDRESS", "") if address == "auto" else address).rpartition(":")
    host = host.removeprefix("ray://")
    if not host or not port.isdecimal():
        return  # for Ray to find, or to refuse
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_S).close()
    except OSError as error:
        raise ConfigError(_NOBODY.format(address, error)) from error


def _check_same_cluster(address: str | None) -> None:
    """A process has one connection to Ray; another cluster cannot be named while it is open."""
    if address in (None, "auto") or _is_client():
        return
    here = ray.get_runtime_context().gcs_address
    if address != here:
        raise ConfigError(f"this process is connected to the Ray cluster at {here} already, so it cannot join {address!r}; "
                          "call ray.shutdown() first, or leave the address out to use that cluster")
