"""Writing LLVM IR: one function over vectors of float32 and packed bytes.

Addresses are a pointer and an offset in bytes; loads take any alignment, as blocks of a model file have none. No fast-math
flag is ever set: what is written is what runs, in this order, so the same input gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nums_core.runtime.devices.native.jit import ARRAY, Target, compile_function, ir

Value = Any  # an llvmlite value

I8, I16, I32, I64 = (ir.IntType(n) for n in (8, 16, 32, 64))
F16, F32, POINTER = ir.HalfType(), ir.FloatType(), ir.PointerType()


class Emitter:
    """The body of one function, written from its start to its end.

    Attributes
    ----------
    args : list of values
        The function's arguments: the address of the elements for an ARRAY, a 64-bit integer for an INTEGER.
    lanes : int
    """

    def __init__(self, name: str, arg_types: Sequence[Any], target: Target) -> None:
        self.module = ir.Module(name)
        kinds = [POINTER if t is ARRAY else I64 for t in arg_types]
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), kinds), name)
        self.arg_types, self.name = arg_types, name
        self.lanes, self.target = target.lanes, target
        self.build = ir.IRBuilder(function.append_basic_block())
        self._intrinsics: dict[str, Any] = {}
        self.args = [self.load(POINTER, a) if t is ARRAY else a for a, t in zip(function.args, arg_types, strict=True)]

    # -- values -------------------------------------------------------------------------------------------------------

    def vector(self, element: Any, count: int | None = None) -> Any:
        """The type of a vector, by default of `lanes` elements."""
        return ir.VectorType(element, count or self.lanes)

    def int64(self, n: int) -> Value:
        return ir.Constant(I64, n)

    def zeros(self) -> Value:
        return ir.Constant(self.vector(F32), 0.0)

    def filled(self, value: Any, like: Value) -> Value:
        """A constant of the type of `like`, the same number in every element."""
        return ir.Constant(like.type, value)

    def splat(self, scalar: Value) -> Value:
        """A float in every lane."""
        one = self.build.insert_element(ir.Constant(self.vector(F32), ir.Undefined), scalar, ir.Constant(I32, 0))
        return self.chosen(one, [0] * self.lanes)

    def chosen(self, vector: Value, which: Sequence[int]) -> Value:
        """Elements of a vector by their numbers."""
        mask = ir.Constant(self.vector(I32, len(which)), [ir.Constant(I32, k) for k in which])
        return self.build.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)

    def lane(self, vector: Value, k: int) -> Value:
        """Element `k` in every lane."""
        return self.chosen(vector, [k] * self.lanes)

    # -- memory -------------------------------------------------------------------------------------------------------

    def at(self, pointer: Value, offset: Value | int) -> Value:
        """The address `offset` bytes further."""
        if isinstance(offset, int):
            if not offset:
                return pointer
            offset = self.int64(offset)
        return self.build.gep(pointer, [offset], source_etype=I8)

    def load(self, kind: Any, pointer: Value, offset: Value | int = 0) -> Value:
        return self.build.load(self.at(pointer, offset), align=1, typ=kind)

    def prefetch(self, pointer: Value, offset: int) -> None:
        """Ask for memory that will be read soon; it need not exist."""
        hints = [ir.Constant(I32, k) for k in (0, 3, 1)]  # to read, keep in all caches, data
        self._call("llvm.prefetch.p0", ir.VoidType(), [self.at(pointer, offset), *hints])

    def aligned(self, pointer: Value, to_bytes: int) -> Value:
        """The next address that is a multiple of a power of two."""
        number = self.build.add(self.build.ptrtoint(pointer, I64), self.int64(to_bytes - 1))
        return self.build.inttoptr(self.build.and_(number, self.int64(-to_bytes)), POINTER)

    def store(self, value: Value, pointer: Value, offset: Value | int = 0) -> None:
        self.build.store(value, self.at(pointer, offset), align=1)

    def floats(self, pointer: Value, offset: Value | int = 0) -> Value:
        """`lanes` float32."""
        return self.load(self.vector(F32), pointer, offset)

    def halves(self, pointer: Value, offset: int, count: int) -> Value:
        """`count` float16, as float32."""
        if self.target.half:
            return self.build.fpext(self.load(self.vector(F16, count), pointer, offset), self.vector(F32, count))
        return self._halves_by_bits(self.load(self.vector(I16, count), pointer, offset), count)

    def _halves_by_bits(self, x: Value, count: int) -> Value:
        """float16 to float32 by integer arithmetic and one exact product: the exponent is re-biased by 2^112, which also makes
        subnormal numbers right; infinities and NaN get the exponent of all ones."""
        b, wide = self.build, self.vector(I32, count)
        x = b.zext(x, wide)
        magnitude = b.shl(b.and_(x, self.filled(0x7FFF, x)), self.filled(13, x))
        scale = b.bitcast(self.filled(0x77800000, x), self.vector(F32, count))
        number = b.bitcast(b.fmul(b.bitcast(magnitude, self.vector(F32, count)), scale), wide)
        exponent = b.and_(x, self.filled(0x7C00, x))
        special = b.icmp_unsigned("==", exponent, self.filled(0x7C00, x))
        number = b.select(special, b.or_(magnitude, self.filled(0x7F800000, x)), number)
        sign = b.shl(b.and_(x, self.filled(0x8000, x)), self.filled(16, x))
        return b.bitcast(b.or_(number, sign), self.vector(F32, count))

    def integers(self, pointer: Value, offset: int, signed: bool = False) -> Value:
        """`lanes` bytes, as int32."""
        narrow = self.load(self.vector(I8), pointer, offset)
        return (self.build.sext if signed else self.build.zext)(narrow, self.vector(I32))

    # -- arithmetic ---------------------------------------------------------------------------------------------------

    def number(self, integers: Value) -> Value:
        """Signed integers as float32."""
        return self.build.sitofp(integers, self.vector(F32, integers.type.count))

    def masked(self, integers: Value, mask: int) -> Value:
        return self.build.and_(integers, self.filled(mask, integers))

    def shifted(self, integers: Value, bits: int) -> Value:
        """Shifted left, or right where `bits` is negative; zeros come in."""
        shift = self.build.shl if bits >= 0 else self.build.lshr
        return shift(integers, self.filled(abs(bits), integers)) if bits else integers

    def multiply_add(self, a: Value, b: Value, c: Value) -> Value:
        """a·b + c, in one rounding where the processor has it."""
        if not self.target.fma:
            return self.build.fadd(self.build.fmul(a, b), c)
        return self._call(f"llvm.fma.v{a.type.count}f32", a.type, [a, b, c])

    def _call(self, name: str, result: Any, args: Sequence[Value]) -> Value:
        """An instruction that LLVM spells as a function."""
        if name not in self._intrinsics:
            self._intrinsics[name] = ir.Function(self.module, ir.FunctionType(result, [a.type for a in args]), name)
        return self.build.call(self._intrinsics[name], list(args))

    def total(self, vector: Value) -> Value:
        """The sum of all lanes, by halves."""
        n = vector.type.count
        while n > 1:
            n //= 2
            vector = self.build.fadd(self.chosen(vector, range(n)), self.chosen(vector, range(n, 2 * n)))
        return self.build.extract_element(vector, ir.Constant(I32, 0))

    # -- control ------------------------------------------------------------------------------------------------------

    def loop(self, start: Value, stop: Value, step: int, body: Callable[..., Sequence[Value] | None],
             carried: Sequence[Value] = ()) -> list[Value]:
        """for i in range(start, stop, step): carried = body(i, carried). Returns what is carried out."""
        b = self.build
        before, head = b.block, b.append_basic_block("head")
        inside, after = b.append_basic_block("body"), b.append_basic_block("after")
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(I64)
        values = [b.phi(v.type) for v in carried]
        b.cbranch(b.icmp_signed("<", i, stop), inside, after)
        b.position_at_end(inside)
        made = list(body(i, values) or ())
        following = b.add(i, self.int64(step))
        for phi, first, then in zip([i, *values], [start, *carried], [following, *made], strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(then, b.block)
        b.branch(head)
        b.position_at_end(after)
        return values

    def compiled(self) -> Callable[..., None]:
        """End the function and compile it."""
        self.build.ret_void()
        return compile_function(self.module, self.name, self.arg_types, self.target)


__all__ = ["F32", "I16", "I32", "I64", "I8", "Emitter", "Value"]
