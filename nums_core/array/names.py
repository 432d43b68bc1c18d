"""Names of NumPy's that stand here as they are or nearly so: dtypes, constants, and helpers that take no arrays.

Where NumPy's own takes arrays (`result_type`, `can_cast`, ...) the one here looks only at dtypes, and computes nothing.
"""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
from numpy import (
    False_,
    ScalarType,
    True_,
    base_repr,
    binary_repr,
    bool_,
    broadcast_shapes,
    busdaycalendar,
    byte,
    bytes_,
    cdouble,
    character,
    clongdouble,
    complex64,
    complex128,
    complexfloating,
    csingle,
    datetime64,
    datetime_data,
    double,
    dtype,
    e,
    errstate,
    euler_gamma,
    exceptions,
    flexible,
    float16,
    float32,
    float64,
    floating,
    format_float_positional,
    format_float_scientific,
    generic,
    get_printoptions,
    getbufsize,
    geterr,
    geterrcall,
    half,
    index_exp,
    inexact,
    inf,
    int8,
    int16,
    int32,
    int64,
    int_,
    intc,
    integer,
    intp,
    iterable,
    little_endian,
    long,
    longdouble,
    longlong,
    memmap,
    min_scalar_type,
    mintypecode,
    nan,
    ndindex,
    newaxis,
    number,
    object_,
    pi,
    printoptions,
    promote_types,
    s_,
    sctypeDict,
    set_printoptions,
    setbufsize,
    seterr,
    seterrcall,
    short,
    show_config,
    signedinteger,
    single,
    str_,
    timedelta64,
    typecodes,
    typename,
    ubyte,
    ufunc,
    uint,
    uint8,
    uint16,
    uint32,
    uint64,
    uintc,
    uintp,
    ulong,
    ulonglong,
    unsignedinteger,
    ushort,
    void,
)
from numpy import bool as bool  # noqa: A004

from nums_core.array.array import Array, as_expr
from nums_core.array.interop import ArrayNamespaceInfo
from nums_core.errors import DTypeError
from nums_core.expr.grid import Chunks, normalize

ndarray = Array  # what `isinstance(x, np.ndarray)` asks of this namespace is whether x is one of its arrays


def _dtype_of(x: Any) -> Any:
    return x.dtype if isinstance(x, Array) else x


def result_type(*arrays_and_dtypes: Any) -> np.dtype:
    """The dtype that NumPy's promotion gives for arrays, dtypes and Python numbers (which are weak)."""
    return np.result_type(*map(_dtype_of, arrays_and_dtypes))


def can_cast(from_: Any, to: Any, casting: Any = "safe") -> builtins.bool:
    """Whether `from_`, a dtype or an array, may be cast to `to` under NumPy's rule."""
    return np.can_cast(_dtype_of(from_), _dtype_of(to), casting)


def common_type(*arrays: Any) -> Any:
    """The inexact scalar type that holds all of the arrays."""
    return np.common_type(*(np.empty(0, as_expr(a).dtype) for a in arrays))


def isdtype(dtype: Any, kind: Any) -> builtins.bool:
    """Whether a dtype is of a kind of the array API's ("real floating", "integral", ...)."""
    return np.isdtype(np.dtype(dtype), kind)


def issubdtype(arg1: Any, arg2: Any) -> builtins.bool:
    """Whether the first dtype lies below the second in NumPy's hierarchy."""
    return np.issubdtype(_dtype_of(arg1), _dtype_of(arg2))


def finfo(dtype: Any) -> Any:
    """Limits of a floating-point dtype, or of that of an array."""
    return np.finfo(_dtype_of(dtype))


def iinfo(type: Any) -> Any:  # noqa: A002
    """Limits of an integer dtype, or of that of an array."""
    return np.iinfo(_dtype_of(type))


def isscalar(element: Any) -> builtins.bool:
    """Whether `element` is a number, text or NumPy scalar; a 0-d array is not."""
    return np.isscalar(element)


def iscomplexobj(x: Any) -> builtins.bool:
    """Whether the dtype is complex, whatever the values."""
    return as_expr(x).dtype.kind == "c"


def isrealobj(x: Any) -> builtins.bool:
    """Whether the dtype is not complex."""
    return not iscomplexobj(x)


def isfortran(a: Any) -> builtins.bool:
    """False: blocks have no memory order that could be relied on."""
    return False


def shares_memory(a: Any, b: Any, max_work: Any = None) -> builtins.bool:
    """False for Arrays: a change of one is never seen through another."""
    return not (isinstance(a, Array) or isinstance(b, Array)) and np.shares_memory(a, b, max_work)


may_share_memory = shares_memory


def array_repr(arr: Any, max_line_width: Any = None, precision: Any = None, suppress_small: Any = None) -> str:
    """The values as text that would make them; computes."""
    return np.array_repr(_values(arr), max_line_width, precision, suppress_small)


def array_str(a: Any, max_line_width: Any = None, precision: Any = None, suppress_small: Any = None) -> str:
    """The values as text; computes."""
    return np.array_str(_values(a), max_line_width, precision, suppress_small)


def array2string(a: Any, *args: Any, **kwargs: Any) -> str:
    """The values as text, with NumPy's formatting options; computes."""
    return np.array2string(_values(a), *args, **kwargs)


def _values(x: Any) -> np.ndarray:
    return np.asarray(x)


def normalize_chunks(chunks: Any, shape: Any = None, limit: Any = None, dtype: Any = None,
                     previous_chunks: Chunks | None = None) -> Chunks:
    """Chunks as a tuple of tuples; see `Array.rechunk` for the forms they may have.

    Parameters
    ----------
    shape : tuple of int; if left out, `chunks` must be the extents of every block
    limit : int or text, bytes
        Of a block, for "auto".
    """
    from nums_core import config

    if shape is None:
        if not all(isinstance(c, (tuple, list)) for c in chunks):
            raise ValueError("normalize_chunks() needs the shape unless chunks list every block, as in ((2, 2), (3,))")
        shape = tuple(sum(c) for c in chunks)
    shape = shape if isinstance(shape, tuple) else tuple(np.atleast_1d(shape).tolist())
    if dtype is None and "auto" in (chunks if isinstance(chunks, tuple) else (chunks,)) and limit is None:
        raise DTypeError("chunks='auto' needs the dtype to know a block's size; pass dtype=")
    with config.set(**({} if limit is None else {"block_bytes": limit})):
        return normalize(chunks, shape, np.dtype(dtype if dtype is not None else float), previous_chunks)


def __array_namespace_info__() -> ArrayNamespaceInfo:  # noqa: N807
    """Capabilities, devices and dtypes, in the array API's form."""
    return ArrayNamespaceInfo()


__array_api_version__ = "2024.12"

__all__ = [
    "False_", "ScalarType", "True_", "array2string", "array_repr", "array_str", "base_repr", "binary_repr", "bool",
    "bool_", "broadcast_shapes", "busdaycalendar", "byte", "bytes_", "can_cast", "cdouble", "character",
    "clongdouble", "common_type", "complex128", "complex64", "complexfloating", "csingle", "datetime64",
    "datetime_data", "double", "dtype", "e", "errstate", "euler_gamma", "exceptions", "finfo", "flexible",
    "float16", "float32", "float64", "floating", "format_float_positional", "format_float_scientific", "generic",
    "get_printoptions", "getbufsize", "geterr", "geterrcall", "half", "iinfo", "index_exp", "inexact", "inf",
    "int16", "int32", "int64", "int8", "int_", "intc", "integer", "intp", "iscomplexobj", "isdtype", "isfortran",
    "isrealobj", "isscalar", "issubdtype", "iterable", "little_endian", "long", "longdouble", "longlong",
    "may_share_memory", "memmap", "min_scalar_type", "mintypecode", "nan", "ndarray", "ndindex", "newaxis",
    "normalize_chunks", "number", "object_", "pi", "printoptions", "promote_types", "result_type", "s_",
    "sctypeDict", "set_printoptions", "setbufsize", "seterr", "seterrcall", "shares_memory", "short", "show_config",
    "signedinteger", "single", "str_", "timedelta64", "typecodes", "typename", "ubyte", "ufunc", "uint", "uint16",
    "uint32", "uint64", "uint8", "uintc", "uintp", "ulong", "ulonglong", "unsignedinteger", "ushort", "void",
    "__array_api_version__", "__array_namespace_info__",
]

# Widths that only some machines have.
for _name in ("complex192", "complex256", "float96", "float128"):
    if hasattr(np, _name):
        globals()[_name] = getattr(np, _name)
        __all__ += [_name]
