"""Policies: which tokens a head keeps when a sequence has more than its budget.

A policy says how many are kept (`limits`), how the attention that a key receives becomes its score (`weights`, `pooled`), and
what is dropped first (`priority`). The kernel does the rest, the same for all: it appends, attends, adds up and evicts.

    Full      everything
    Window    the first `sinks` tokens and the last `window`
    H2O       the last `recent` tokens and the `heavy` that received most attention
    TOVA      the `budget` tokens that the newest query attends most
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from nums_core.errors import ConfigError

NO_LIMIT = 2**31 - 1
Budget = int | float


class Limits(NamedTuple):
    """A policy's sizes for one sequence.

    Attributes
    ----------
    budget : int, tokens
        That each head keeps.
    recent : int, tokens
        Newest ones that are never dropped.
    """

    budget: int
    recent: int

    def slots(self, n_tokens: int, chunk: int) -> int:
        """Slots that a sequence of `n_tokens` needs, if at most `chunk` of them are new in one step."""
        return min(n_tokens, self.budget + max(chunk, 1))


class Policy(Protocol):
    """What a policy must say. Frozen and hashable: it is part of a compiled step.

    Attributes
    ----------
    positioned : bool
        Slots change hands, so the true position of each is stored.
    scored : bool
        A score of each slot is stored.
    rolling : bool
        Keys are stored unrotated and rotated by their rank among the held ones, not by their true position.
    window : int or None, tokens
        A query sees no more keys than that, its own among them, beside the sinks.
    sinks : int, tokens
        First ones that are never dropped.
    """

    @property
    def positioned(self) -> bool: ...

    @property
    def scored(self) -> bool: ...

    @property
    def rolling(self) -> bool: ...

    @property
    def window(self) -> int | None: ...

    @property
    def sinks(self) -> int: ...

    def limits(self, prompt_tokens: int) -> Limits:
        """Sizes for a sequence with such a prompt."""
        ...

    def slots(self, n_tokens: int, chunk: int) -> int:
        """Slots that a sequence needs whose prompt has `n_tokens`, read in chunks of `chunk`."""
        ...

    def weights(self, n: int) -> tuple[float, np.ndarray]:
        """What becomes of scores in a step of `n` queries: score = carry * score + sum_i weight[i] * probability[i].
        (carry, float32 weights (n,))"""
        ...

    def pooled(self, received: np.ndarray) -> np.ndarray:
        """What each head takes as its own of `received` (kv_heads, m), the probability that each key received from the
        queries of each KV head's group."""
        ...

    def priority(self, score: np.ndarray | None, position: np.ndarray, recent_from: Any) -> np.ndarray:
        """What is kept longest, float32 (kv_heads, m); the least goes first, the oldest among equals. Infinite where a
        token must stay. `recent_from` is the position from which tokens are recent."""
        ...


def unless_protected(score: Any, position: np.ndarray, sinks: int, recent_from: Any) -> np.ndarray:
    """`score`, infinite for the first `sinks` tokens and for those from position `recent_from` on."""
    may_go = position < recent_from
    if sinks:
        may_go &= position >= sinks
    return np.where(may_go, score, np.float32(np.inf))


@lru_cache(maxsize=256)
def fading(decay: float, n: int) -> tuple[float, np.ndarray]:
    """`Policy.weights` of scores that are multiplied by `decay` before each query."""
    powers = np.power(float(decay), np.arange(n, -1, -1), dtype=np.float64)
    weights = powers[1:].astype(np.float32)
    weights.flags.writeable = False
    return float(powers[0]), weights


def tokens_of(budget: Budget, prompt_tokens: int) -> int:
    """A budget in tokens; a float is a fraction of the prompt."""
    return int(budget * prompt_tokens) if isinstance(budget, float) else budget


def check_budget(owner: str, name: str, budget: Budget, least: int) -> None:
    """A number of tokens of at least `least`, or a fraction between 0 and 1."""
    if isinstance(budget, bool) or not isinstance(budget, (int, float)):
        raise ConfigError(f"{owner}: {name} is {budget!r}; it must be a number of tokens (an int), or a fraction of the prompt "
                          "(a float)")
    if isinstance(budget, float) and not 0.0 < budget <= 1.0:
        tokens = int(budget) if 1.0 < budget < NO_LIMIT else least
        raise ConfigError(f"{owner}: {name} is {budget}; a fraction of the prompt lies above 0 and is at most 1. For a number "
                          f"of tokens give an int, as in {name}={tokens}")
    if isinstance(budget, int) and budget < least:
        raise ConfigError(f"{owner}: {name} is {budget} tokens, which is too small; it must be at least {least}")


def check_count(owner: str, name: str, count: int, least: int = 0) -> None:
    """A whole number of at least `least`."""
    if isinstance(count, bool) or not isinstance(count, int) or count < least:
        raise ConfigError(f"{owner}: {name} is {count!r}; it must be a whole number of at least {least}")
