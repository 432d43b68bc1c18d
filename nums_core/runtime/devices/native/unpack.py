"""Blocks of quantised weights as vectors of float32 in registers, one function a format (`ops.quantize` has the layouts).

A block is unpacked as *groups* of 16 or 32 neighbouring elements that share a scale and an offset:

    element = scale · value + offset

Values are small integers, and scales have 11 to 19 significant bits, so the product is exact or rounded once: with or without
fused multiply-add the element is the one that NumPy's codec gives, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from nums_core.ops.quantize import LAYOUTS
from nums_core.runtime.devices.native.emit import F32, I8, I16, I32, I64, Emitter, Value

UNIT = 32  # elements at least that one step of a loop takes


class Group(NamedTuple):
    """Neighbouring elements of a block.

    Attributes
    ----------
    at : int
        Number of the first one in the block.
    values : list of vectors
    scale, offset : vector, every lane the same; None for 1 and for 0
    """

    at: int
    values: list[Value]
    scale: Value | None
    offset: Value | None


def unit(form: str) -> tuple[int, int]:
    """Elements and bytes of one step: a block, or 32 elements of a format without blocks."""
    elements, layout = LAYOUTS[form]
    times = max(UNIT // elements, 1)
    return elements * times, layout.itemsize * times


def has_offset(form: str) -> bool:
    return form in ("q4_1", "q4_k")


def elements(e: Emitter, group: Group) -> list[Value]:
    """The elements themselves."""
    if group.scale is None:
        return group.values
    if group.offset is None:
        return [e.build.fmul(group.scale, v) for v in group.values]
    return [e.multiply_add(group.scale, v, group.offset) for v in group.values]


# -- formats without blocks -------------------------------------------------------------------------------------------

def _f32(e: Emitter, p: Value) -> Iterator[Group]:
    yield Group(0, [e.floats(p, 4 * k) for k in range(0, UNIT, e.lanes)], None, None)


def _f16(e: Emitter, p: Value) -> Iterator[Group]:
    yield Group(0, [e.halves(p, 2 * k, e.lanes) for k in range(0, UNIT, e.lanes)], None, None)


def _bf16(e: Emitter, p: Value) -> Iterator[Group]:
    bits = [e.build.zext(e.load(e.vector(I16), p, 2 * k), e.vector(I32)) for k in range(0, UNIT, e.lanes)]
    yield Group(0, [e.build.bitcast(e.shifted(x, 16), e.vector(F32)) for x in bits], None, None)


# -- blocks of 32 -----------------------------------------------------------------------------------------------------

def _q8_0(e: Emitter, p: Value) -> Iterator[Group]:
    d = e.lane(e.halves(p, 0, 2), 0)
    yield Group(0, [e.number(e.integers(p, 2 + k, signed=True)) for k in range(0, 32, e.lanes)], d, None)


def _q4_0(e: Emitter, p: Value) -> Iterator[Group]:
    d = e.lane(e.halves(p, 0, 2), 0)
    low, high = _nibbles(e, p, 2, 16, less=8)  # not as an offset: the sign of a zero would be another
    yield Group(0, low + high, d, None)


def _q4_1(e: Emitter, p: Value) -> Iterator[Group]:
    scales = e.halves(p, 0, 2)
    low, high = _nibbles(e, p, 4, 16)
    yield Group(0, low + high, e.lane(scales, 0), e.lane(scales, 1))


def _nibbles(e: Emitter, p: Value, at: int, count: int, less: int = 0) -> tuple[list[Value], list[Value]]:
    """The low and the high halves of `count` bytes, minus `less`."""
    wide = [e.integers(p, at + k) for k in range(0, count, e.lanes)]
    number = lambda x: e.number(e.build.sub(x, e.filled(less, x)) if less else x)
    return [number(e.masked(x, 15)) for x in wide], [number(e.shifted(x, -4)) for x in wide]


# -- blocks of 256 ----------------------------------------------------------------------------------------------------

def _q4_k(e: Emitter, p: Value) -> Iterator[Group]:
    scales = e.halves(p, 0, 2)
    s, m = _scales_of_q4_k(e, p)
    s = e.build.fmul(_first(e, scales, 0), s)
    m = e.build.fmul(e.build.fneg(_first(e, scales, 1)), m)
    for k in range(4):
        for j, values in enumerate(_nibbles(e, p, 16 + 32 * k, 32)):
            yield Group(64 * k + 32 * j, values, e.lane(s, 2 * k + j), e.lane(m, 2 * k + j))


def _first(e: Emitter, pair: Value, k: int) -> Value:
    """Element `k` of a pair, eight times."""
    return e.chosen(pair, [k] * 8)


def _scales_of_q4_k(e: Emitter, p: Value) -> tuple[Value, Value]:
    """Scales and minima, eight each, from the twelve bytes that hold them in six bits each (see `ops.quantize`). The bytes are
    taken four at a time, as one integer."""
    b = e.build
    first, second, low = (e.load(I32, p, 4 + 4 * k) for k in range(3))

    def eight(early: Value, late: Value) -> Value:
        upper = e.shifted(e.masked(e.shifted(early, -6), 0x03030303), 4)
        both = b.or_(b.zext(e.masked(early, 0x3F3F3F3F), I64),
                     e.shifted(b.zext(b.or_(e.masked(late, 0x0F0F0F0F), upper), I64), 32))
        return e.number(b.zext(b.bitcast(both, e.vector(I8, 8)), e.vector(I32, 8)))

    return eight(first, low), eight(second, e.shifted(low, -4))


def _q6_k(e: Emitter, p: Value) -> Iterator[Group]:
    d = e.halves(p, 208, 1)
    scales = e.number(e.build.sext(e.load(e.vector(I8, 16), p, 192), e.vector(I32, 16)))
    scales = e.build.fmul(e.chosen(d, [0] * 16), scales)
    for half in range(2):
        for quarter, q in enumerate(_levels_of_q6_k(e, p, half)):
            values = [e.chosen(q, range(k, k + e.lanes)) for k in range(0, 32, e.lanes)]
            values = [e.number(e.build.sext(x, e.vector(I32))) for x in values]
            for column in range(2):
                k = 8 * half + 2 * quarter + column
                mine = values[column * len(values) // 2:(column + 1) * len(values) // 2]
                yield Group(16 * k, mine, e.lane(scales, k), None)


def _levels_of_q6_k(e: Emitter, p: Value, half: int) -> list[Value]:
    """Half a block: four times 32 numbers from -32 to 31, as int8. Their lower four bits are the nibbles of two runs of bytes,
    their upper two are in a third."""
    first, second, upper = (e.load(e.vector(I8, 32), p, at) for at in (64 * half, 64 * half + 32, 128 + 32 * half))
    low = [e.masked(first, 15), e.masked(second, 15), e.shifted(first, -4), e.shifted(second, -4)]
    levels = [e.build.or_(x, e.masked(e.shifted(upper, bits), 48)) for x, bits in zip(low, (4, 2, 0, -2), strict=True)]
    return [e.build.sub(q, e.filled(32, q)) for q in levels]


UNPACK: dict[str, Callable[[Emitter, Value], Iterator[Group]]] = {
    "f32": _f32, "f16": _f16, "bf16": _bf16, "q8_0": _q8_0, "q4_0": _q4_0, "q4_1": _q4_1, "q4_k": _q4_k, "q6_k": _q6_k,
}

__all__ = ["UNIT", "UNPACK", "Group", "elements", "has_offset", "unit"]
