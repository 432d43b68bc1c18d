"""The bytes that tokens stand for, and text from them token by token.

Tokens are not characters: one character may take several tokens, and one token may end inside a character. So text is made
from bytes, and a byte is held back until its character is complete or can no longer become one.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Protocol

SPACE = "\u2581"  # how SentencePiece writes a space
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # how SentencePiece writes a byte that no token covers


class Spelling(Protocol):
    """How the text of a token spells its bytes."""

    strips_space: bool

    def __call__(self, text: str) -> bytes: ...


@cache
def byte_alphabet() -> Mapping[str, int]:
    """The character that GPT-2 writes for each byte: itself where that is printable, else one from U+0100 on.

    Source: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, section 2.2 (byte-level BPE).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (b for b in range(256) if b not in printable)
    return {chr(b): b for b in sorted(printable)} | {chr(0x100 + k): b for k, b in enumerate(others)}


class ByteLevel:
    """Byte-level BPE: a character a byte. Text outside that alphabet stands for itself."""

    strips_space = False

    def __call__(self, text: str) -> bytes:
        alphabet = byte_alphabet()
        try:
            return bytes([alphabet[c] for c in text])
        except KeyError:
            return text.encode("utf-8", "replace")


class SentencePiece:
    """`▁` for a space and `<0x0A>` for a byte. The space put before the first word is not part of the text."""

    def __init__(self, strips_space: bool = True, byte_fallback: bool = True) -> None:
        self.strips_space, self.byte_fallback = strips_space, byte_fallback

    def __call__(self, text: str) -> bytes:
        if self.byte_fallback and (match := _BYTE.fullmatch(text)):
            return bytes([int(match[1], 16)])
        return text.replace(SPACE, " ").encode("utf-8", "replace")


def spelling_of(decoder: Any) -> Spelling | None:
    """The spelling that the `decoder` of a tokenizer.json undoes; None where it is another one."""
    steps = _steps(decoder)
    kinds = {step.get("type") for step in steps}
    if "ByteLevel" in kinds:
        return ByteLevel()
    if not steps or not kinds <= {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}:
        return None
    replaced = [s for s in steps if s["type"] == "Replace"]
    if any(s.get("pattern") != {"String": SPACE} or s.get("content") != " " for s in replaced):
        return None
    strips = any((s["type"] == "Strip" and s.get("start")) or (
        s["type"] == "Metaspace" and s.get("prepend_scheme", "always") != "never") for s in steps)
    return SentencePiece(strips, "ByteFallback" in kinds)


def _steps(decoder: Any) -> list[dict[str, Any]]:
    if not isinstance(decoder, dict):
        return []
    if decoder.get("type") == "Sequence":
        return [step for part in decoder.get("decoders", ()) for step in _steps(part)]
    return [decoder]


class Decoder:
    """Text of tokens as they come. All that `push` and `finish` return together is the text of all the tokens.

    Parameters
    ----------
    table : list of bytes, one a token id
    hidden : set of token ids
        Special tokens: they are not part of the text.
    strips_space : bool
        Whether one space at the beginning is left out.

    Notes
    -----
    Bytes that are no UTF-8 become U+FFFD, one for each longest part that could have begun a character, as soon as the
    byte that decides it has come; at most three bytes are ever held back.
    """

    def __init__(self, table: list[bytes], hidden: Iterable[int] = (), strips_space: bool = False) -> None:
        self._table, self._hidden = table, frozenset(hidden)
        self._strip = strips_space
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The text that one more token completes; "" while a character is incomplete. Unknown ids have no text."""
        if not 0 <= token_id < len(self._table) or token_id in self._hidden:
            return ""
        return self._begun(self._utf8.decode(self._table[token_id]))

    def finish(self) -> str:
        """What was held back; there are no more tokens."""
        return self._begun(self._utf8.decode(b"", True))

    def _begun(self, text: str) -> str:
        if self._strip and text:
            self._strip = False
            return text.removeprefix(" ")
        return text
