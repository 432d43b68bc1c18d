"""BLAS and block parallelism never multiply: inside a run each kernel has one BLAS thread.

One thread a kernel also makes a product's bits independent of how many cores a machine has (law 3). Block parallelism
then does what BLAS threads would have done.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_depth = 0
_restore: Any = None
_controller: Any = None
_seen = 0

# Importing one of these may load a BLAS of its own, which the controller must find anew.
_WITH_BLAS = ("numpy", "scipy.linalg", "torch", "sklearn")


def _libraries() -> int:
    return sum(name in sys.modules for name in _WITH_BLAS)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread; nested and concurrent uses share one limit, which the last to leave lifts."""
    global _depth, _restore, _controller, _seen
    with _lock:
        if _depth == 0:
            if _controller is None or _seen != _libraries():
                from threadpoolctl import ThreadpoolController

                _controller, _seen = ThreadpoolController(), _libraries()
            _restore = _controller.limit(limits=1, user_api="blas")
            _restore.__enter__()
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _restore.__exit__(None, None, None)
