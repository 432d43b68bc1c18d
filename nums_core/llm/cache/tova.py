"""TOVA: the token that the newest query attends least goes.

Source     Oren et al., "Transformers are Multi-State RNNs", arXiv 2401.06104: section 4 (token omission via attention).
Departs    The newest token itself always stays for a step (`recent`); optional sinks; positions true or by rank.
Checked    against a dense masked simulation, step by step (testing.cache).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nums_core.errors import ConfigError
from nums_core.llm.cache.policy import (
    Budget,
    Limits,
    check_budget,
    check_count,
    fading,
    tokens_of,
    unless_protected,
)


@dataclass(frozen=True)
class TOVA:
    """Keeps the `budget` tokens that the newest query attends most, averaged over all heads of a layer, so that all
    heads keep the same. Nothing is remembered from earlier queries.

    Parameters
    ----------
    budget : int (tokens) or float (fraction of the prompt)
    sinks : int, tokens
        First ones that are never dropped.
    recent : int, tokens
        Last ones that are never dropped.
    rolling : bool
        Rotate keys by their rank in the cache.

    Raises
    ------
    ConfigError
        A budget that sinks and recent tokens fill.
    """

    budget: Budget = 0.2
    sinks: int = 0
    recent: int = 1
    rolling: bool = False

    positioned = scored = True
    window = None

    def __post_init__(self) -> None:
        check_count("TOVA", "sinks", self.sinks)
        check_count("TOVA", "recent", self.recent, 1)
        check_budget("TOVA", "budget", self.budget, 1)
        if isinstance(self.budget, int) and self.budget < self.sinks + self.recent:
            raise ConfigError(f"TOVA: budget is {self.budget} tokens, and {self.sinks} sinks and {self.recent} recent tokens "
                              f"always stay; it must be at least {self.sinks + self.recent}")

    def limits(self, prompt_tokens: int) -> Limits:
        return Limits(max(tokens_of(self.budget, prompt_tokens), self.sinks + self.recent), self.recent)

    def slots(self, n_tokens: int, chunk: int) -> int:
        return self.limits(n_tokens).slots(n_tokens, chunk)

    def weights(self, n: int) -> tuple[float, np.ndarray]:
        """Only the last query counts."""
        return fading(0.0, n)

    def pooled(self, received: np.ndarray) -> np.ndarray:
        return np.broadcast_to(received.mean(axis=0), received.shape)

    def priority(self, score: np.ndarray | None, position: np.ndarray, recent_from: Any) -> np.ndarray:
        return unless_protected(score, position, self.sinks, recent_from)
