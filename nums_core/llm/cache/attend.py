"""CacheAttend: the attention of a model that reads and writes a cache; one update of a layer's states."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nums_core.array.array import Array
from nums_core.errors import ShapeError
from nums_core.expr import build
from nums_core.llm.cache.batch import Batch
from nums_core.llm.cache.kernel import attend_layer
from nums_core.llm.cache.rotation import Rotation, the_same
from nums_core.llm.cache.spec import CacheSpec


class CacheAttend:
    """`attend(layer, q, k, v, rotary)` over a cache, for use inside a jitted step; see `kv_cache`.

    Parameters
    ----------
    spec : CacheSpec
        `cache.spec`.
    states : tuple of tuple of Array
        `cache.states`, an argument of the step that is donated.
    batch : Batch of Array
        `cache.batch(work).arrays()`.

    Attributes
    ----------
    states : tuple of tuple of Array
        After every layer was called: the new states.
    """

    def __init__(self, spec: CacheSpec, states: Sequence[Sequence[Array]], batch: Batch) -> None:
        self.spec, self._states, self.batch = spec, [tuple(s) for s in states], batch

    @property
    def states(self) -> tuple[tuple[Array, ...], ...]:
        return tuple(self._states)

    def __call__(self, layer: int, q: Array, k: Array, v: Array, rotary: Any = None) -> Array:
        """Append k and v, attend, and let the policy evict.

        Parameters
        ----------
        q : Array, shape (n_rows, heads, head_dim)
        k, v : Array, shape (n_rows, kv_heads, head_dim)
            Not rotated.
        rotary : Rotary or None

        Returns
        -------
        Array, shape of `q`, float32; zeros for padding
        """
        spec = self.spec
        wanted = [(spec.n_heads, spec.head_dim), *[(spec.n_kv_heads, spec.head_dim)] * 2]
        if [x.shape[1:] for x in (q, k, v)] != wanted or not len(q) == len(k) == len(v):
            raise ShapeError(f"q, k and v are {q.shape}, {k.shape} and {v.shape}; this cache takes (rows, heads, head_dim), "
                             f"with {wanted[0]} for q and {wanted[1]} for k and v: flatten the tokens of all sequences "
                             "into rows")
        batch = [x.expr for x in self.batch[:5]]
        slots = self.batch.tables.shape[1] * spec.page_tokens / 4  # keys that a row sees: a guess, for the scheduler
        rotation = None if rotary is None else the_same(Rotation(rotary, spec.head_dim))
        made, (out,) = build.update(attend_layer, [s.expr for s in self._states[layer]], [q.expr, k.expr, v.expr, *batch],
                                    [(q.shape, "f4")], (("spec", spec), ("rotation", rotation)), "attend",
                                    4.0 * math.prod(q.shape) * slots)
        self._states[layer] = tuple(map(Array, made))
        return Array(out)
