"""Full: every token is kept. Attention is exact, memory grows with the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nums_core.llm.cache.policy import NO_LIMIT, Limits, fading


@dataclass(frozen=True)
class Full:
    """Keeps everything. A slot's number is its token's position, so that nothing beside keys and values is stored."""

    positioned = scored = rolling = False
    window = None
    sinks = 0

    def limits(self, prompt_tokens: int) -> Limits:
        return Limits(NO_LIMIT, 0)

    def slots(self, n_tokens: int, chunk: int) -> int:
        return n_tokens

    def weights(self, n: int) -> tuple[float, np.ndarray]:
        return fading(1.0, n)

    def pooled(self, received: np.ndarray) -> np.ndarray:
        return received

    def priority(self, score: np.ndarray | None, position: np.ndarray, recent_from: Any) -> np.ndarray:
        raise AssertionError("the full cache drops nothing")
