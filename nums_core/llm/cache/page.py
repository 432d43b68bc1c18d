"""Pages: which are free, who shares them, and how a sequence's pages come to lie in one run.

Attention over pages in one run reads them where they are; over scattered ones it must gather. So a sequence grows into the
pages behind its last one, and pages behind a new sequence are *promised* to it: others take them only when nothing else
is left. A promise is never a reason to refuse.
"""

from __future__ import annotations

import numpy as np

from nums_core.errors import MemoryBudgetError


class OutOfPages(MemoryBudgetError):
    """More pages are wanted than are free."""


class PagePool:
    """Pages 0 to n_pages - 1 with reference counts. Every call costs O(n_pages) at most.

    Attributes
    ----------
    refs : int32 ndarray, shape (n_pages,)
        How many sequences hold each page.
    """

    def __init__(self, n_pages: int) -> None:
        self.n_pages = self.n_free = n_pages
        self.refs = np.zeros(n_pages, np.int32)
        self._promised = np.zeros(n_pages, bool)

    def take(self, n: int, *, after: int | None = None, want: int = 0) -> list[int]:
        """`n` free pages, in one run if possible.

        Parameters
        ----------
        after : int, optional
            The last page of the sequence that grows.
        want : int
            How many it may need in the end, for a new sequence.

        Raises
        ------
        OutOfPages
            Nothing has changed then.
        """
        if n > self.n_free:
            raise OutOfPages(f"{n} more pages are needed and {self.n_free} of {self.n_pages} are free; free() a sequence, or "
                             "make the cache larger")
        pages = [] if after is None else self._following(after, n)
        if len(pages) < n:
            pages += self._elsewhere(n - len(pages), max(want, n), pages)
        self.refs[pages] = 1
        self._promised[pages] = False
        self.n_free -= n
        if want > n and pages:
            self._promised[self._following(pages[-1], want - n)] = True
        return pages

    def share(self, pages: list[int]) -> None:
        """One more sequence holds these pages."""
        self.refs[pages] += 1

    def release(self, pages: list[int]) -> None:
        """One sequence less holds these pages; those nobody holds are free."""
        self.refs[pages] -= 1
        assert not (self.refs[pages] < 0).any(), "a page was freed twice"
        freed = [p for p in pages if not self.refs[p]]
        self.n_free += len(freed)
        for page in freed:  # what was promised behind it is open again
            self._promised[self._following(page, self.n_pages)] = False

    def _following(self, page: int, n: int) -> list[int]:
        """Up to `n` free pages right behind `page`."""
        after = self.refs[page + 1:page + 1 + n]
        used = np.flatnonzero(after)
        return list(range(page + 1, page + 1 + (int(used[0]) if len(used) else len(after))))

    def _elsewhere(self, n: int, want: int, taken: list[int]) -> list[int]:
        """`n` free pages, none of them `taken`: where `want` fit if there is such a run, then where `n` do, else several
        runs, the longest first. Promised pages come last."""
        free = self.refs == 0
        free[taken] = False
        open_runs = _runs(free & ~self._promised)
        for size in (want, n):
            fitting = [r for r in open_runs if r[1] - r[0] >= size]
            if fitting:
                start = min(fitting, key=lambda r: r[1] - r[0])[0]
                return list(range(start, start + n))
        pages = [p for a, b in sorted(open_runs, key=lambda r: r[0] - r[1]) for p in range(a, b)]
        if len(pages) < n:  # the far ends of what was promised
            pages += [p for a, b in _runs(free & self._promised) for p in range(a, b)][::-1][:n - len(pages)][::-1]
        return pages[:n]


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """[start, stop) of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
