"""Elementwise functions: one visible line each, from the table of operations."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from nums_core.array.array import Array, _apply, as_expr
from nums_core.array.ufunc import Ufunc, deliver
from nums_core.errors import DTypeError
from nums_core.expr import build
from nums_core.expr.node import Expr
from nums_core.ops.elementwise import ELEMENTWISE, UFUNCS


def elementwise(name: str) -> Callable[..., Any]:
    """The public function of an elementwise row."""
    if name in UFUNCS:
        return Ufunc(name)

    def function(*args: Any, **kwargs: Any) -> Array:
        return _apply(name, *args, kw=tuple(sorted(kwargs.items())))
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"`numpy.{name}`, lazily on blocks ({ELEMENTWISE[name].nin} operand(s))."
    return function


add = elementwise("add")
subtract = elementwise("subtract")
multiply = elementwise("multiply")
divide = elementwise("divide")
true_divide = divide
floor_divide = elementwise("floor_divide")
remainder = elementwise("remainder")
mod = remainder
fmod = elementwise("fmod")
divmod = elementwise("divmod")  # noqa: A001
power = elementwise("power")
pow = power  # noqa: A001
float_power = elementwise("float_power")
negative = elementwise("negative")
positive = elementwise("positive")
absolute = elementwise("absolute")
abs = absolute  # noqa: A001
fabs = elementwise("fabs")
sign = elementwise("sign")
signbit = elementwise("signbit")
copysign = elementwise("copysign")
heaviside = elementwise("heaviside")
reciprocal = elementwise("reciprocal")
square = elementwise("square")
sqrt = elementwise("sqrt")
cbrt = elementwise("cbrt")
exp = elementwise("exp")
exp2 = elementwise("exp2")
expm1 = elementwise("expm1")
log = elementwise("log")
log2 = elementwise("log2")
log10 = elementwise("log10")
log1p = elementwise("log1p")
logaddexp = elementwise("logaddexp")
logaddexp2 = elementwise("logaddexp2")
sin = elementwise("sin")
cos = elementwise("cos")
tan = elementwise("tan")
arcsin = elementwise("arcsin")
arccos = elementwise("arccos")
arctan = elementwise("arctan")
arctan2 = elementwise("arctan2")
asin, acos, atan, atan2 = arcsin, arccos, arctan, arctan2
sinh = elementwise("sinh")
cosh = elementwise("cosh")
tanh = elementwise("tanh")
arcsinh = elementwise("arcsinh")
arccosh = elementwise("arccosh")
arctanh = elementwise("arctanh")
asinh, acosh, atanh = arcsinh, arccosh, arctanh
hypot = elementwise("hypot")
degrees = elementwise("degrees")
radians = elementwise("radians")
deg2rad = elementwise("deg2rad")
rad2deg = elementwise("rad2deg")
floor = elementwise("floor")
ceil = elementwise("ceil")
trunc = elementwise("trunc")
rint = elementwise("rint")
modf = elementwise("modf")
frexp = elementwise("frexp")
ldexp = elementwise("ldexp")
nextafter = elementwise("nextafter")
spacing = elementwise("spacing")
gcd = elementwise("gcd")
lcm = elementwise("lcm")
maximum = elementwise("maximum")
minimum = elementwise("minimum")
fmax = elementwise("fmax")
fmin = elementwise("fmin")
equal = elementwise("equal")
not_equal = elementwise("not_equal")
less = elementwise("less")
less_equal = elementwise("less_equal")
greater = elementwise("greater")
greater_equal = elementwise("greater_equal")
logical_and = elementwise("logical_and")
logical_or = elementwise("logical_or")
logical_xor = elementwise("logical_xor")
logical_not = elementwise("logical_not")
bitwise_and = elementwise("bitwise_and")
bitwise_or = elementwise("bitwise_or")
bitwise_xor = elementwise("bitwise_xor")
bitwise_count = elementwise("bitwise_count")
invert = elementwise("invert")
bitwise_not = invert
bitwise_invert = invert
left_shift = elementwise("left_shift")
right_shift = elementwise("right_shift")
bitwise_left_shift, bitwise_right_shift = left_shift, right_shift
isfinite = elementwise("isfinite")
isinf = elementwise("isinf")
isnan = elementwise("isnan")
isnat = elementwise("isnat")
conj = elementwise("conjugate")
conjugate = conj
real = elementwise("real")
imag = elementwise("imag")
i0 = elementwise("i0")
sinc = elementwise("sinc")


def astype(x: Any, dtype: Any, casting: Any = "unsafe", **kwargs: Any) -> Array:
    """`x` in another dtype, under NumPy's casting rules."""
    e, dtype = as_expr(x), np.dtype(dtype)
    if not np.can_cast(e.dtype, dtype, casting):
        raise DTypeError(f"Cannot cast array data from {e.dtype!r} to {dtype!r} according to the rule {casting!r}; "
                         "use casting='unsafe' if losing digits is meant")
    if e.dtype.kind == "c" and dtype.kind not in "cb":
        warnings.warn("Casting complex values to real discards the imaginary part; take x.real if that is meant",
                      np.exceptions.ComplexWarning, stacklevel=3)
    return Array(build.cast(e, dtype))


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    """Elements of `x` where `condition`, else of `y`; with one argument, `nonzero(condition)`."""
    if (x is None) != (y is None):
        raise ValueError("either both or neither of x and y should be given; where(c) is nonzero(c)")
    if x is None:
        from nums_core.array.searching import nonzero

        return nonzero(condition)
    return _apply("where", condition, x, y)


def clip(a: Any, a_min: Any = None, a_max: Any = None, out: Any = None, *, min: Any = None,  # noqa: A002
         max: Any = None, **kwargs: Any) -> Array:  # noqa: A002
    """`a` limited to the interval [a_min, a_max]; either bound may be None. Python integers beyond the range of an
    integer dtype are no bound."""
    if (a_min is not None or a_max is not None) and (min is not None or max is not None):
        raise ValueError("Passing `min` or `max` keyword argument when `a_min` and `a_max` are provided is forbidden.")
    low, high = a_min if a_min is not None else min, a_max if a_max is not None else max
    x = Array(as_expr(a))
    if x.dtype.kind in "iu":
        limits = np.iinfo(x.dtype)
        low = None if type(low) is int and low <= limits.min else low
        high = None if type(high) is int and high >= limits.max else high
    if low is None and high is None:
        return positive(x, out=out, **kwargs)
    made = x if low is None else maximum(x, low)
    made = made if high is None else minimum(made, high)
    return deliver("clip", made, out, kwargs.get("where", True), kwargs.get("casting", "same_kind"))


def round(a: Any, decimals: int = 0, out: Any = None) -> Array:  # noqa: A001
    """`a` rounded to `decimals` digits, halves to even."""
    made = _apply("round", a, kw=(("decimals", operator.index(decimals)),))
    return deliver("round", made, out, True, "same_kind")


around = round


def fix(x: Any, out: Any = None) -> Array:
    """Rounded towards zero."""
    return trunc(x, out=out)


def angle(z: Any, deg: bool = False) -> Array:
    """Argument of complex numbers, radians (or degrees)."""
    return _apply("angle", z, kw=(("deg", bool(deg)),))


def nan_to_num(x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Array:
    """NaN and infinities replaced by numbers; infinities by the largest ones, if none are given."""
    return _apply("nan_to_num", x, kw=(("nan", _bits(nan)), ("neginf", _bits(neginf)), ("posinf", _bits(posinf))))


def _bits(value: Any) -> Any:
    """A number as a NumPy scalar whose sign of zero is not lost in comparing expressions."""
    return Signed(value) if isinstance(value, float) and value == 0 and np.signbit(value) else value


class Signed(float):
    """-0.0, unequal to 0.0."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signed)

    def __hash__(self) -> int:
        return hash("-0.0")


def isclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Array:
    """|a - b| <= atol + rtol |b|, element by element."""
    a, b = _weak(a, b), _weak(b, a)
    return _apply("isclose", a, b, kw=(("atol", atol), ("equal_nan", equal_nan), ("rtol", rtol)))


def _weak(value: Any, other: Any) -> Any:
    """A Python number in the dtype of the floating-point array it meets."""
    dtype = getattr(other, "dtype", None)
    if not isinstance(value, (int, float)) or dtype is None or dtype.kind not in "fc":
        return value
    with np.errstate(all="ignore"):
        return np.asarray(value).astype(dtype)[()]


def isreal(x: Any) -> Array:
    """Whether the imaginary part is zero."""
    e = as_expr(x)
    return equal(imag(x), 0) if e.dtype.kind == "c" else _constantly(e, True)


def iscomplex(x: Any) -> Array:
    """Whether the imaginary part is not zero."""
    e = as_expr(x)
    return not_equal(imag(x), 0) if e.dtype.kind == "c" else _constantly(e, False)


def _constantly(e: Expr, value: bool) -> Array:
    return Array(build.full(value, e.shape, bool, e.chunks))


def isposinf(x: Any, out: Any = None) -> Array:
    """Whether elements are +infinity."""
    return logical_and(isinf(x), logical_not(signbit(x)), out=out)


def isneginf(x: Any, out: Any = None) -> Array:
    """Whether elements are -infinity."""
    return logical_and(isinf(x), signbit(x), out=out)


def isnull(x: Any) -> Array:
    """dask's name for NaN or NaT."""
    x = Array(as_expr(x))
    return isnat(x) if x.dtype.kind in "mM" else isnan(x)


def notnull(x: Any) -> Array:
    """dask's name for neither NaN nor NaT."""
    return logical_not(isnull(x))


def frompyfunc(func: Callable[..., Any], nin: int, nout: int) -> Callable[..., Any]:
    """`func` of scalars, element by element; results are objects, as NumPy's are: `f(x).astype(float)`. Slow: it runs in
    Python."""
    f = np.frompyfunc(func, nin, nout)

    def function(*args: Any) -> Any:
        from nums_core.array.interop import array_ufunc

        if len(args) != nin:
            raise TypeError(f"{function.__name__}() takes {nin} positional arguments but {len(args)} were given")
        return array_ufunc(f, "__call__", (Array(as_expr(args[0])), *args[1:]), {})
    function.__name__ = getattr(func, "__name__", "frompyfunc")
    return function


__all__ = [
    "abs", "absolute", "acos", "acosh", "add", "angle", "arccos", "arccosh", "arcsin", "arcsinh", "arctan",
    "arctan2", "arctanh", "around", "asin", "asinh", "astype", "atan", "atan2", "atanh", "bitwise_and",
    "bitwise_count", "bitwise_invert", "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift",
    "bitwise_xor", "cbrt", "ceil", "clip", "conj", "conjugate", "copysign", "cos", "cosh", "deg2rad", "degrees",
    "divide", "divmod", "equal", "exp", "exp2", "expm1", "fabs", "fix", "float_power", "floor", "floor_divide",
    "fmax", "fmin", "fmod", "frexp", "frompyfunc", "gcd", "greater", "greater_equal", "heaviside", "hypot", "i0",
    "imag", "invert", "isclose", "iscomplex", "isfinite", "isinf", "isnan", "isnat", "isneginf", "isnull",
    "isposinf", "isreal", "lcm", "ldexp", "left_shift", "less", "less_equal", "log", "log10", "log1p", "log2",
    "logaddexp", "logaddexp2", "logical_and", "logical_not", "logical_or", "logical_xor", "maximum", "minimum",
    "mod", "modf", "multiply", "nan_to_num", "negative", "nextafter", "not_equal", "notnull", "positive", "pow",
    "power", "rad2deg", "radians", "real", "reciprocal", "remainder", "right_shift", "rint", "round", "sign",
    "signbit", "sin", "sinc", "sinh", "spacing", "sqrt", "square", "subtract", "tan", "tanh", "true_divide",
    "trunc", "where",
]
