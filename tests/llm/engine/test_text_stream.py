"""Growing text: stop strings end it wherever tokens happen to be cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nums_core.llm.engine.text import TextStream


class Letters:
    """A decoder whose tokens are pieces of text; the last `hold` characters come only at the end."""

    def __init__(self, pieces, hold=0):
        self.pieces, self.hold, self.kept = pieces, hold, ""

    def push(self, token_id):
        text = self.kept + self.pieces[token_id]
        cut = max(len(text) - self.hold, 0)
        self.kept = text[cut:]
        return text[:cut]

    def finish(self):
        text, self.kept = self.kept, ""
        return text


def shown(pieces, stops, hold=0):
    stream = TextStream(Letters(pieces, hold), stops)
    out = []
    for k in range(len(pieces)):
        out.append(stream.push(k))
        if stream.stopped:
            break
    out.append(stream.finish())
    assert stream.text == "".join(out)
    return stream, out


@pytest.mark.parametrize("hold", [0, 3])
@given(pieces=st.lists(st.text("ab#", max_size=4), max_size=12), stops=st.lists(st.text("ab#", min_size=1, max_size=3), max_size=3))
def test_text_ends_before_the_first_stop_string_that_is_whole(pieces, stops, hold):
    stream, _ = shown(pieces, stops, hold)
    whole = "".join(pieces)
    ends = [whole.find(s) for s in stops if s in whole]
    assert stream.stopped == bool(ends)
    if not ends:
        assert stream.text == whole
    else:  # tokens come one by one, so a longer stop string that begins earlier may be whole only later
        assert whole.startswith(stream.text)
        assert not any(s in stream.text for s in stops)
        assert any(whole.startswith(s, len(stream.text)) for s in stops)


def test_what_may_become_a_stop_string_is_held_back_and_no_more():
    _, out = shown(["one\n", "\nUs", "e it\n", "\nUser", ": x"], ["\n\nUser:"])
    assert out == ["one", "", "\n\nUse it", "", "", ""]


def test_nothing_is_held_back_without_stop_strings():
    _, out = shown(["a", "b", "c"], [])
    assert out == ["a", "b", "c", ""]
