"""Small helpers that belong to no floor."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class SourceLine(NamedTuple):
    """Where in the user's code an operation was written."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def user_line() -> SourceLine | None:
    """The nearest frame outside this package: the line the user wrote. About 1 us."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_HERE):
            return SourceLine(file, frame.f_lineno)
        frame = frame.f_back  # type: ignore[assignment]
    return None


def format_bytes(n: float) -> str:
    """``1536`` -> ``'1.5 KiB'``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(n) < 1024 or unit == "TiB":
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    raise AssertionError("unreachable")


def format_seconds(s: float) -> str:
    """``0.0021`` -> ``'2.1 ms'``."""
    if s < 1e-3:
        return f"{s * 1e6:.0f} us"
    return f"{s * 1e3:.1f} ms" if s < 1 else f"{s:.2f} s"
