"""Text of generated tokens as it grows: what may be shown now, and where a stop string ends it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Decoder(Protocol):
    """Turns token ids into text one by one; holds back bytes that are not a whole character yet."""

    def push(self, token_id: int) -> str: ...

    def finish(self) -> str: ...


class TextStream:
    """Text up to the first stop string.

    Text that may turn out to be the beginning of a stop string is held back until the next tokens decide.

    Parameters
    ----------
    decoder : Decoder
    stops : strings
        None may be empty.
    """

    def __init__(self, decoder: Decoder, stops: Sequence[str] = ()) -> None:
        self.decoder, self.stops = decoder, tuple(stops)
        self.held, self.parts = "", [""]
        self.stopped = False

    @property
    def text(self) -> str:
        """All that was shown."""
        if len(self.parts) > 1:
            self.parts = ["".join(self.parts)]
        return self.parts[0]

    def push(self, token_id: int) -> str:
        """The text that one more token lets us show."""
        return self._show(self.decoder.push(token_id))

    def finish(self) -> str:
        """The text that was held back; there are no more tokens."""
        return "" if self.stopped else self._show(self.decoder.finish(), last=True)

    def _show(self, new: str, last: bool = False) -> str:
        held = self.held + new
        found = [at for s in self.stops if (at := held.find(s)) >= 0]
        if found:
            self.stopped = True
            show, self.held = held[:min(found)], ""
        else:
            keep = 0 if last else self._undecided(held)
            show, self.held = held[:len(held) - keep], held[len(held) - keep:]
        self.parts.append(show)
        return show

    def _undecided(self, held: str) -> int:
        """Characters at the end of `held` that a stop string may begin with."""
        longest = min(max(map(len, self.stops), default=1) - 1, len(held))
        return next((n for n in range(longest, 0, -1) if any(s.startswith(held[-n:]) for s in self.stops)), 0)
