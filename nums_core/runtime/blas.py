"""BLAS and block parallelism never multiply: inside a run each kernel has one BLAS thread.

One thread a kernel also makes a product's bits independent of how many cores a machine has (law 3). Block parallelism
then does what BLAS threads would have done.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_depth = 0
_restore: Any = None
_controller: Any = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread; nested and concurrent uses share one limit, which the last to leave lifts."""
    global _depth, _restore, _controller
    with _lock:
        if _depth == 0:
            if _controller is None:
                from threadpoolctl import ThreadpoolController

                _controller = ThreadpoolController()
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
