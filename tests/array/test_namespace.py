"""The public surface: every name promised is there, none by accident, and importing it costs little."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types

import numpy as np
import pytest

import nums_core.array as nc

# What numpy.__all__ has and this namespace has not, and why.
NOT_OFFERED = {
    "other packages": "char core ctypeslib dtypes emath f2py polynomial rec strings test testing typing",
    "matrices and records, which NumPy itself discourages": "asmatrix bmat matrix recarray record",
    "walks over memory": "broadcast flatiter nditer nested_iters",
    "polynomial objects": "poly1d",
    "about NumPy's build": "__version__ get_include info show_runtime",
    "text": "fromregex",
    "packages not written yet": "fft ma",
}

DASK_ONLY = """
    Array BlockView apply_gufunc argtopk as_gufunc atop blockwise coarsen compute from_array from_delayed from_npy_stack
    from_zarr gufunc isnull map_blocks map_overlap moment notnull persist push rechunk reduction reshape_blockwise shuffle
    store to_hdf5 to_npy_stack to_zarr topk unify_chunks normalize_chunks
""".split()

# The array API standard, version 2024.12, section by section.
ARRAY_API = """
    e inf nan newaxis pi
    arange asarray empty empty_like eye from_dlpack full full_like linspace meshgrid ones ones_like tril triu zeros zeros_like
    astype can_cast finfo iinfo isdtype result_type
    bool complex64 complex128 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64
    abs acos acosh add asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_invert bitwise_or
    bitwise_right_shift bitwise_xor ceil clip conj copysign cos cosh divide equal exp expm1 floor floor_divide greater
    greater_equal hypot imag isfinite isinf isnan less less_equal log log1p log2 log10 logaddexp logical_and logical_not
    logical_or logical_xor maximum minimum multiply negative nextafter not_equal positive pow real reciprocal remainder round
    sign signbit sin sinh square sqrt subtract tan tanh trunc
    take take_along_axis matmul matrix_transpose tensordot vecdot
    broadcast_arrays broadcast_to concat expand_dims flip moveaxis permute_dims repeat reshape roll squeeze stack tile unstack
    argmax argmin count_nonzero nonzero searchsorted where unique_all unique_counts unique_inverse unique_values
    argsort sort cumulative_prod cumulative_sum max mean min prod std sum var all any diff
    __array_namespace_info__ __array_api_version__
""".split()

OURS = "checkpoint explain from_dask jit last_report cumreduction from_hdf5 in1d sliding_window_view tune_chunks".split()
SUBPACKAGES = ["lib", "linalg", "random"]

METHODS = """
    A T all any argmax argmin argpartition argsort argtopk astype blocks checkpoint choose chunks chunksize clip compress compute
    compute_chunk_sizes conj conjugate copy cumprod cumsum device diagonal dot dtype explain fill flat flatten imag item
    itemsize mT map_blocks map_overlap max mean min moment nbytes ndim nonzero npartitions numblocks partition partitions
    persist prod put ravel real rechunk repeat reshape round searchsorted shape shuffle size sort squeeze std store sum swapaxes
    take to_dask to_device to_hdf5 to_svg to_zarr tobytes tofile tolist topk trace transpose var view vindex
""".split()


def test_numpys_names():
    missing = {n for n in np.__all__ if not hasattr(nc, n)}
    assert missing - set(" ".join(NOT_OFFERED.values()).split()) == set()


@pytest.mark.parametrize("names", [DASK_ONLY, ARRAY_API, OURS, SUBPACKAGES], ids=["dask", "array API", "ours", "packages"])
def test_promised_names(names):
    assert [n for n in names if not hasattr(nc, n)] == []


def test_promised_methods():
    assert [n for n in METHODS if not hasattr(nc.Array, n)] == []


def test_no_names_by_accident():
    promised = {*np.__all__, *DASK_ONLY, *ARRAY_API, *OURS}
    assert sorted(set(nc.__all__) - promised) == []
    assert len(nc.__all__) == len(set(nc.__all__))
    modules = {n for n, v in vars(nc).items() if isinstance(v, types.ModuleType)}
    accidental = {n for n in vars(nc) if not n.startswith("_")} - modules - set(nc.__all__)
    assert accidental == set()
    assert all(getattr(nc, m).__name__.startswith("nums_core.array.") for m in modules if not m.startswith("_")
               and m != "exceptions")


def test_methods_by_accident():
    public = {n for n in dir(nc.Array) if not n.startswith("_")}
    assert sorted(public - set(METHODS) - {"expr", "name"}) == []


def test_unknown_names():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        nc.nonsense  # noqa: B018
    assert "linalg" in dir(nc)


def test_families_say_what_they_export():
    for family in nc._FAMILIES:
        module = importlib.import_module(f"nums_core.array.{family}")
        assert [n for n in module.__all__ if not hasattr(module, n)] == []
        assert module.__doc__, family


def test_deferred_families_say_the_same_names_as_their_modules():
    for family, names in nc._DEFERRED.items():
        module = importlib.import_module(f"nums_core.array.{family}")
        assert list(names) == module.__all__
        assert module.__doc__, family
        assert all(getattr(nc, n) is getattr(module, n) for n in names)


def test_every_public_function_has_a_docstring():
    functions = {n: v for n in nc.__all__ if callable(v := getattr(nc, n)) and getattr(v, "__module__", "").startswith("nums_core")}
    assert [n for n, v in functions.items() if not v.__doc__] == []


# Heavy packages that must not be imported before they are used, and NumPy's own lazy ones.
HEAVY = ["cupy", "dask", "distributed", "fsspec", "h5py", "matplotlib", "numpy.f2py", "numpy.random", "numpy.testing", "opt_einsum",
         "pandas", "psutil", "pytest", "ray", "scipy", "threadpoolctl", "zarr", "nums_core.testing", "nums_core.array.random",
         "nums_core.array.linalg", "nums_core.array.display"]


def test_import_is_light():
    code = f"import sys, nums_core.array; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_star_import_is_like_numpys():
    scope: dict[str, object] = {}
    exec("from nums_core.array import *", scope)
    assert scope["sum"] is nc.sum
    assert "elementwise" not in scope
