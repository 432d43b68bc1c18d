"""Automatic differentiation: derivatives as expressions, made of the expressions that the user's function built.

    value, gradient = value_and_grad(loss)(params, batch)
"""

from __future__ import annotations

from nums_core.nn.autodiff.api import checkpoint, grad, stop_gradient, value_and_grad, vjp
from nums_core.nn.autodiff.saved import saved

__all__ = ["checkpoint", "grad", "saved", "stop_gradient", "value_and_grad", "vjp"]
