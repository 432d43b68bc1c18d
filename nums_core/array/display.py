"""How an array shows itself in a notebook: what it is in words, and a drawing of its grid of blocks.

The drawing is to scale as far as it stays legible: extents are shown by their square root, so that a tall thin array is
still seen to be one. Axes before the last three are drawn side by side as one drawing with a count.
"""

from __future__ import annotations

import math
from typing import Any

from nums_core._util import format_bytes
from nums_core.array.array import Array
from nums_core.expr.grid import known

SIZE = 140.0  # longest edge, in pixels
LEAST = 12.0
MOST_LINES = 24  # more cuts than this are drawn as a few
DEPTH = (0.55, -0.4)  # how far one step into the page goes, right and up
_FILL, _SIDE, _TOP, _LINE = "#dbe7f3", "#b9cfe4", "#eef4fa", "#4a6785"

Point = tuple[float, float]


def html(x: Array) -> str:
    """Table and drawing of an array, as HTML. Nothing is computed."""
    rows = "".join(f"<tr><th style='text-align:left'>{name}</th><td>{a}</td><td>{b}</td></tr>" for name, a, b in _rows(x))
    table = ("<table style='border-collapse:collapse'><thead><tr><th></th><th style='text-align:left'>Array</th>"
             f"<th style='text-align:left'>Block</th></tr></thead><tbody>{rows}</tbody></table>")
    return f"<div style='display:flex;gap:24px;align-items:center'>{table}{svg(x)}</div>"


def _rows(x: Array) -> list[tuple[str, str, str]]:
    e = x.expr
    sizes = [max((c for c in cut if c == c), default=math.nan) for cut in e.chunks]
    whole, block = (_bytes(dims, e.dtype.itemsize) for dims in (e.shape, sizes))
    n = math.prod(e.grid)
    return [("Size", whole, block), ("Shape", _shape(e.shape), _shape(sizes)),
            ("Blocks", f"{n} ({' × '.join(map(str, e.grid)) or 'one'})", f"dtype {e.dtype}")]


def _bytes(dims: Any, itemsize: int) -> str:
    size = math.prod(dims) * itemsize
    return "not known yet" if size != size else format_bytes(size)


def _shape(dims: Any) -> str:
    names = ["?" if n != n else str(n) for n in dims]
    return f"({', '.join(names)}{',' if len(names) == 1 else ''})"


# -- the drawing ------------------------------------------------------------------------------------------------------

def svg(x: Array) -> str:
    """A drawing of the grid of blocks; empty for 0-d arrays and where extents are not known."""
    e = x.expr
    if not e.ndim or not known(e.chunks) or 0 in e.shape:
        return ""
    shown = e.chunks[-3:]
    edges = _edges([sum(c) for c in shown])
    cuts = [_cuts(c, edge) for c, edge in zip(shown, edges, strict=True)]
    body, width, height = _cuboid(edges, cuts) if len(shown) == 3 else _rectangle(edges, cuts)
    notes = f"<text x='4' y='14' font-size='12'>{math.prod(e.shape[:-3])} of these:</text>" if e.ndim > 3 else ""
    labels = _labels([sum(c) for c in shown], edges)
    return (f"<svg width='{width + 90:.0f}' height='{height + 50:.0f}' font-family='sans-serif' role='img' "
            f"aria-label='{e.ndim}-dimensional grid of {math.prod(e.grid)} blocks'>{notes}"
            f"<g transform='translate(10,24)' stroke='{_LINE}' stroke-width='1'>{body}</g>"
            f"<g transform='translate(10,24)' fill='#333' font-size='11'>{labels}</g></svg>")


def _edges(shape: list[int]) -> list[float]:
    """Length of each axis in the drawing, pixels."""
    roots = [math.sqrt(n) for n in shape]
    return [max(SIZE * r / max(roots), LEAST) for r in roots]


def _cuts(sizes: tuple[int, ...], edge: float) -> list[float]:
    """Where blocks begin and end along an axis, pixels; a few of them if there are many."""
    ends, total = [0.0], float(sum(sizes))
    for c in sizes:
        ends.append(ends[-1] + c * edge / total)
    step = -(-len(sizes) // MOST_LINES)
    return [*ends[:-1:step], ends[-1]]


def _line(a: Point, b: Point) -> str:
    return f"<line x1='{a[0]:.1f}' y1='{a[1]:.1f}' x2='{b[0]:.1f}' y2='{b[1]:.1f}'/>"


def _face(points: list[Point], fill: str) -> str:
    return f"<polygon points='{' '.join(f'{x:.1f},{y:.1f}' for x, y in points)}' fill='{fill}'/>"


def _rectangle(edges: list[float], cuts: list[list[float]]) -> tuple[str, float, float]:
    """One or two axes: rows go down, columns go right."""
    if len(edges) == 1:
        edges, cuts = [LEAST * 2, edges[0]], [[0.0, LEAST * 2], cuts[0]]
    height, width = edges
    parts = [_face([(0, 0), (width, 0), (width, height), (0, height)], _FILL)]
    parts += [_line((0, y), (width, y)) for y in cuts[0]] + [_line((x, 0), (x, height)) for x in cuts[1]]
    return "".join(parts), width, height


def _cuboid(edges: list[float], cuts: list[list[float]]) -> tuple[str, float, float]:
    """Three axes: the first goes into the page."""
    depth, height, width = edges
    dx, dy = depth * DEPTH[0], depth * DEPTH[1]
    base = -dy  # the front face lies lower by the depth
    front = [(0, base), (width, base), (width, base + height), (0, base + height)]
    back = [(x + dx, y + dy) for x, y in front]
    parts = [_face([front[0], front[1], back[1], back[0]], _TOP), _face([front[1], back[1], back[2], front[2]], _SIDE),
             _face(front, _FILL)]
    for y in cuts[1]:
        parts += [_line((0, base + y), (width, base + y)), _line((width, base + y), (width + dx, base + y + dy))]
    for x in cuts[2]:
        parts += [_line((x, base), (x, base + height)), _line((x, base), (x + dx, base + dy))]
    for z in cuts[0]:
        sx, sy = z * DEPTH[0], z * DEPTH[1]
        parts += [_line((sx, base + sy), (width + sx, base + sy)), _line((width + sx, base + sy),
                                                                         (width + sx, base + height + sy))]
    return "".join(parts), width + dx, base + height


def _labels(shape: list[int], edges: list[float]) -> str:
    """Extents beside the edges they belong to."""
    width = edges[-1]
    height = edges[-2] if len(edges) > 1 else LEAST * 2
    depth = edges[-3] if len(edges) > 2 else 0.0
    dx, base = depth * DEPTH[0], -depth * DEPTH[1]
    out = [f"<text x='{width / 2:.1f}' y='{base + height + 15:.1f}' text-anchor='middle'>{shape[-1]}</text>"]
    if len(shape) > 1:
        out.append(f"<text x='{width + dx + 5:.1f}' y='{base + height / 2:.1f}'>{shape[-2]}</text>")
    if len(shape) > 2:
        out.append(f"<text x='{dx / 2 - 6:.1f}' y='{base / 2:.1f}' text-anchor='end'>{shape[-3]}</text>")
    return "".join(out)
