"""Pages: counts, runs, promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nums_core.errors import MemoryBudgetError
from nums_core.llm.cache.page import OutOfPages, PagePool


def test_a_sequence_grows_in_one_run_while_others_come():
    pool = PagePool(64)
    first = pool.take(3, want=8)
    second = pool.take(3, want=8)
    for _ in range(5):
        first += pool.take(1, after=first[-1])
        second += pool.take(1, after=second[-1])
    assert [np.diff(p).tolist() for p in (first, second)] == [[1] * 7] * 2


def test_a_promise_is_no_reason_to_refuse():
    pool = PagePool(8)
    first = pool.take(1, want=8)
    taken = pool.take(3)
    assert taken == [5, 6, 7]  # the far end of what was promised
    assert first + pool.take(4, after=0) == [0, 1, 2, 3, 4]
    assert pool.n_free == 0


def test_the_tightest_run_that_fits():
    pool = PagePool(12)
    pages = pool.take(12)
    pool.release(pages[1:4])
    pool.release(pages[6:11])
    assert pool.take(3) == [1, 2, 3]
    assert pool.take(3, want=5) == [6, 7, 8]


def test_several_runs_where_none_fits():
    pool = PagePool(10)
    pages = pool.take(10)
    pool.release(pages[1:3])
    pool.release(pages[5:8])
    assert pool.take(4) == [5, 6, 7, 1]


def test_out_of_pages_changes_nothing_and_says_what_to_do():
    pool = PagePool(4)
    pool.take(2)
    with pytest.raises(OutOfPages, match="3 more pages are needed and 2 of 4 are free; free"):
        pool.take(3)
    assert pool.n_free == 2 and issubclass(OutOfPages, MemoryBudgetError)


def test_shared_pages_are_free_after_the_last_release():
    pool = PagePool(4)
    pages = pool.take(2)
    pool.share(pages)
    pool.release(pages)
    assert pool.n_free == 2
    pool.release(pages)
    assert pool.n_free == 4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["take", "grow", "share", "release"]), st.integers(0, 6)), max_size=40))
def test_no_page_has_two_owners(actions):
    pool, owned = PagePool(20), []
    for action, n in actions:
        try:
            if action == "take":
                owned.append(pool.take(n, want=2 * n))
            elif owned and action == "grow":
                pages = owned[n % len(owned)]
                if pages and all(pool.refs[p] == 1 for p in pages):
                    pages += pool.take(n, after=pages[-1])
            elif owned and action == "share":
                pool.share(owned[n % len(owned)])
                owned.append(list(owned[n % len(owned)]))
            elif owned:
                pool.release(owned.pop(n % len(owned)))
        except OutOfPages:
            assert n > pool.n_free
    counts = np.bincount([p for pages in owned for p in pages], minlength=20)
    assert np.array_equal(counts, pool.refs)
    assert pool.n_free == int((counts == 0).sum())
    assert all(len(set(pages)) == len(pages) for pages in owned)
