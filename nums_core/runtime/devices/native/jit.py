"""From LLVM IR to a function of this process. The one module that imports llvmlite.

Compiled code lives as long as the process; whoever asks for a kernel keeps what `compile_function` gave.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nums_core.errors import MissingBackendError

try:
    import llvmlite
    from llvmlite import binding, ir
except ImportError as _error:
    raise MissingBackendError("native CPU kernels need the package llvmlite, which is not installed here; "
                              "pip install nums-core[llm]") from _error
if [int(n) for n in llvmlite.__version__.split(".")[:2]] < [0, 45]:  # before, pointers had types
    raise MissingBackendError(f"native CPU kernels need llvmlite 0.45 or newer, and {llvmlite.__version__} is installed; "
                              "pip install -U llvmlite")

# Where an ndarray, seen as a structure in memory, keeps the address of its elements: behind what every object begins with.
# Native functions take the address of that field. Asking NumPy for the address itself costs more than a small product.
DATA_OFFSET = object.__basicsize__

_lock = threading.Lock()
_engines: list[Any] = []  # they own the machine code


@dataclass(frozen=True)
class Target:
    """The processor that code is written for.

    Attributes
    ----------
    cpu, features : str
        As LLVM names them; features are "+avx2,-avx512f,...".
    lanes : int
        float32 in a vector. Wider than a register is legal: such a vector takes several.
    fma : bool
        Whether a·b + c is one instruction, which rounds once; otherwise it is two, which round twice.
    half : bool
        Whether float16 is converted by an instruction.
    """

    cpu: str
    features: str
    lanes: int
    fma: bool
    half: bool


@functools.cache
def host() -> Target:
    """This machine's processor.

    Raises
    ------
    MissingBackendError
        LLVM has no back end for it, the system forbids memory that is written and then executed, or this interpreter keeps
        its arrays otherwise.
    """
    sample = np.zeros(3)[1:]
    if ctypes.c_void_p.from_address(id(sample) + DATA_OFFSET).value != sample.ctypes.data:
        raise MissingBackendError("native CPU kernels need arrays laid out as in CPython; NumPy serves instead")
    try:
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        binding.check_jit_execution()
        has = binding.get_host_cpu_features()
    except (OSError, RuntimeError) as error:
        raise MissingBackendError(f"native CPU kernels cannot be made here: {error}; NumPy serves instead") from error
    arm = binding.get_process_triple().startswith(("aarch64", "arm64"))
    return Target(binding.get_host_cpu_name(), has.flatten(), 16 if has.get("avx512f") else 8,
                  arm or bool(has.get("fma")), arm or bool(has.get("f16c")))


def portable() -> Target:
    """The least that the architecture has: what runs on a processor nobody thought of."""
    arm = binding.get_process_triple().startswith(("aarch64", "arm64"))
    return Target("", "", 8, arm, arm)


def compile_function(module: Any, name: str, arg_types: Sequence[Any], target: Target) -> Callable[..., None]:
    """The function `name` of an `ir.Module`, compiled; its arguments are of these ctypes, and it returns nothing.

    An argument of type ARRAY is given as `array_argument(x)`. The function runs without the interpreter's lock, on memory that
    the caller keeps alive. 10 to 50 ms.
    """
    with _lock:  # LLVM's own state is not for several threads
        host()
        triple = binding.get_process_triple()
        module.triple = triple
        machine = binding.Target.from_triple(triple).create_target_machine(
            cpu=target.cpu, features=target.features, opt=3, codemodel="jitdefault", jit=True)
        parsed = binding.parse_assembly(str(module))
        parsed.verify()
        engine = binding.create_mcjit_compiler(parsed, machine)
        engine.finalize_object()
        _engines.append(engine)
        return ctypes.CFUNCTYPE(None, *arg_types)(engine.get_function_address(name))


ARRAY, INTEGER = ctypes.c_void_p, ctypes.c_int64


def array_argument(x: np.ndarray) -> int:
    """What a native function gets for an array; see `DATA_OFFSET`."""
    return id(x) + DATA_OFFSET


__all__ = ["ARRAY", "DATA_OFFSET", "INTEGER", "Target", "array_argument", "binding", "compile_function", "host", "ir",
           "portable"]
