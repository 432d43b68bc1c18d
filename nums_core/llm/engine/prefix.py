"""Prefix reuse: which cached sequence already holds the beginning of a prompt, page by page.

A page is named by a hash of its own tokens and of the page before it, so that equal names mean equal beginnings: keys and
values depend on everything in front of them. Only whole pages are shared.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

DIGEST_BYTES = 16  # 128 bits: a collision among 2**40 pages has a chance below 1e-14


def page_names(tokens: Sequence[int], page_tokens: int, known: Sequence[bytes] = ()) -> Iterator[bytes]:
    """The names of the whole pages of `tokens` that follow those already `known`, in order."""
    name = known[-1] if known else b""
    for at in range(len(known) * page_tokens, len(tokens) - page_tokens + 1, page_tokens):
        page = np.asarray(tokens[at:at + page_tokens], np.int64).tobytes()
        name = hashlib.blake2b(name + page, digest_size=DIGEST_BYTES).digest()
        yield name


class PrefixIndex:
    """Owners of pages by the pages' names.

    Owners are the cache's own sequence numbers. Those that have ended may be *retained*, least recently used first, until
    somebody needs their pages.
    """

    def __init__(self, page_tokens: int) -> None:
        self.page_tokens = page_tokens
        self.owner: dict[bytes, Hashable] = {}
        self.names: dict[Hashable, list[bytes]] = {}
        self.retained: OrderedDict[Hashable, None] = OrderedDict()

    def find(self, tokens: Sequence[int]) -> tuple[Hashable | None, int]:
        """Who holds the longest beginning of `tokens`, and how many tokens of it. At least one token is left over: its
        logits are wanted."""
        best, n_tokens = None, 0
        for k, name in enumerate(page_names(tokens[:-1], self.page_tokens), 1):
            owner = self.owner.get(name)
            if owner is None:
                break
            best, n_tokens = owner, k * self.page_tokens
        if best in self.retained:
            self.retained.move_to_end(best)
        return best, n_tokens

    def record(self, owner: Hashable, tokens: Sequence[int]) -> None:
        """`owner` holds the keys and values of `tokens`. A page that has an owner already keeps it."""
        mine = self.names.setdefault(owner, [])
        if len(tokens) // self.page_tokens > len(mine):
            new = list(page_names(tokens, self.page_tokens, mine))
            for name in new:
                self.owner.setdefault(name, owner)
            mine += new

    def retain(self, owner: Hashable) -> bool:
        """`owner` has ended. Whether its pages are worth keeping: some prompt may find them."""
        if any(self.owner.get(name) == owner for name in self.names.get(owner, ())):
            self.retained[owner] = None
            return True
        self.forget(owner)
        return False

    def forget(self, owner: Hashable) -> None:
        """The pages of `owner` are given back."""
        for name in self.names.pop(owner, ()):
            if self.owner.get(name) == owner:
                del self.owner[name]
        self.retained.pop(owner, None)

    def oldest(self) -> Hashable | None:
        """The retained owner that nobody asked for longest."""
        return next(iter(self.retained), None)
