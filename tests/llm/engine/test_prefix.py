"""Which pages a prompt finds."""

from hypothesis import given
from hypothesis import strategies as st

from nums_core.llm.engine.prefix import PrefixIndex, page_names

tokens = st.lists(st.integers(0, 3), max_size=24)


@given(tokens, tokens)
def test_names_of_pages_are_equal_exactly_as_long_as_beginnings_are(a, b):
    names_a, names_b = list(page_names(a, 4)), list(page_names(b, 4))
    assert len(names_a) == len(a) // 4
    same = [x == y for x, y in zip(names_a, names_b)]
    assert same == [a[:4 * k] == b[:4 * k] for k in range(1, len(same) + 1)]
    assert list(page_names(a, 4, names_a[:2])) == names_a[2:]


@given(st.lists(tokens, max_size=6), tokens)
def test_the_longest_beginning_that_somebody_holds_is_found(held, prompt):
    index = PrefixIndex(4)
    for owner, t in enumerate(held):
        for n in range(len(t) + 1):  # as it grows
            index.record(owner, t[:n])
    owner, n = index.find(prompt)
    want = max((4 * k for t in held for k in range(1, (len(prompt) - 1) // 4 + 1)
                if len(t) >= 4 * k and t[:4 * k] == prompt[:4 * k]), default=0)
    assert n == want and n < max(len(prompt), 1)
    assert (owner is None) == (n == 0)
    if n:
        assert held[owner][:n] == prompt[:n]


def test_an_owner_is_forgotten_with_its_pages():
    index = PrefixIndex(2)
    index.record("a", [1, 2, 3, 4])
    index.forget("a")
    assert index.find([1, 2, 3, 4, 5]) == (None, 0)
    assert not index.owner and not index.names


def test_only_owners_of_a_page_are_retained_and_the_longest_unused_goes_first():
    index = PrefixIndex(2)
    index.record("a", [1, 2, 3])
    index.record("b", [1, 2, 9])  # its only whole page is a's
    index.record("c", [5, 6])
    assert index.retain("a") and index.retain("c") and not index.retain("b")
    assert index.oldest() == "a"
    assert index.find([1, 2, 7]) == ("a", 2)  # a use makes it young
    assert index.oldest() == "c"
    index.forget("c")
    index.forget("a")
    assert index.oldest() is None
