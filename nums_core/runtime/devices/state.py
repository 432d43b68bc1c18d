"""Updates on NumPy: a function that writes over its states where they were given up, and over copies where they were not.

`runtime.results.bind_donated` finds the states that nobody else reads and hands their numbers to the task as `out`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[..., Any]


def _update(function: Callable[..., Any], kwargs: tuple[tuple[str, Any], ...], n_states: int) -> Run:
    kw = dict(kwargs)

    def run(args: Any, blocks: list[Any], out: frozenset[int] | None = None) -> tuple[Any, ...]:
        states = [b if out is not None and k in out else np.array(b) for k, b in enumerate(blocks[:n_states])]
        made = function(*states, *blocks[n_states:], **kw)
        return (*states, *made)
    return run


KERNELS: dict[str, Callable[..., Run]] = {"update": _update}
