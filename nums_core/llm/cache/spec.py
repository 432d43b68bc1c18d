"""What is static about a cache: sizes of heads and pages, the policy, how vectors are stored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nums_core.llm.cache.policy import Policy
from nums_core.llm.cache.quantized import Codec, mixing


@dataclass(frozen=True)
class CacheSpec:
    """Part of a compiled step: frozen and hashable.

    Attributes
    ----------
    window : int, tokens, or None
        Of the model itself (Mistral): a query sees that many keys at most, its own among them.
    scale : float
        Of the products of queries and keys.
    """

    policy: Policy
    codec: Codec
    n_heads: int
    n_kv_heads: int
    head_dim: int
    page_tokens: int
    window: int | None
    scale: float

    @cached_property
    def narrowest(self) -> int | None:
        """Keys that a query sees at most: the narrower window of model and policy."""
        return min((w for w in (self.window, self.policy.window) if w is not None), default=None)

    @cached_property
    def mixing(self) -> np.ndarray | None:
        """What queries, keys and values are multiplied by so that few bits tell more; results are multiplied back. Not where
        keys are yet to be rotated: the two do not commute."""
        return mixing(self.head_dim) if self.codec.coarse and not self.policy.rolling else None

    @cached_property
    def n_states(self) -> int:
        """Arrays of a layer."""
        return 2 * self.codec.n_parts + self.policy.positioned + self.policy.scored

    def layout(self, n_slots: int) -> list[tuple[tuple[int, ...], np.dtype]]:
        """Shape and dtype of each array of a layer: parts of keys, of values, positions, scores."""
        parts = [((self.n_kv_heads, n_slots, width), dtype) for width, dtype in self.codec.parts(self.head_dim)]
        extra = [np.dtype(np.int32)] * self.policy.positioned + [np.dtype(np.float32)] * self.policy.scored
        return [*parts, *parts, *(((self.n_kv_heads, n_slots), dtype) for dtype in extra)]
