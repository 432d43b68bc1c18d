"""Line search on a convex function that costs a pass over the data, however many step sizes are tried in it.

Source     Nocedal, Wright, "Numerical Optimization", 2nd ed. 2006: (3.6a) sufficient decrease; (3.59) the least of the
           cubic through two values and slopes
Departs    step sizes 2^-8 .. 2^4 are tried in one pass; the least of the function lies between two of them whose slopes
           differ in sign, since it is convex
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SUFFICIENT = 1e-4
SIZES = 2.0 ** np.array([-8, -5, -3, -2, -1, 0, 1, 2, 4])
Along = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def decreases(value: float, before: float, slope: float, t: float = 1.0) -> bool:
    """(3.6a), with what rounding may add to a sum."""
    return bool(value <= before + SUFFICIENT * t * slope + 16 * np.finfo(float).eps * abs(before))


def best_size(along: Along, value: float, slope: float) -> float:
    """The step size near which the function is least, 0 if it falls nowhere: one pass.

    `value` and `slope` (< 0) are those at t = 0."""
    values, slopes = along(SIZES)
    t, f, s = (np.concatenate([[a], b]) for a, b in ((0.0, SIZES), (value, values), (slope, slopes)))
    fits = np.isfinite(f) & np.isfinite(s)
    t, f, s = t[fits], f[fits], s[fits]
    k = int(np.argmin(f))
    if k == 0 and len(t) > 1 and not s[1] > 0:
        return 0.0
    low = k if s[k] < 0 else k - 1  # the least lies between this one and the next
    if 0 <= low < len(t) - 1 and (k == 0 or max(f[low], f[low + 1]) <= value):
        return cubic_least(t[low], f[low], s[low], t[low + 1], f[low + 1], s[low + 1])
    return float(t[k])  # nothing is known of the other side but that it is steep


def cubic_least(t0: float, f0: float, s0: float, t1: float, f1: float, s1: float) -> float:
    """(3.59): where the cubic with values f and slopes s at t0 < t1 is least, within 1/20 of either end."""
    d1 = s0 + s1 - 3 * (f0 - f1) / (t0 - t1)
    d2 = np.sqrt(max(d1 * d1 - s0 * s1, 0.0))
    low, high = t0 + (t1 - t0) / 20, t1 - (t1 - t0) / 20
    bottom = s1 - s0 + 2 * d2
    t = t1 - (t1 - t0) * (s1 + d2 - d1) / bottom if bottom else (t0 + t1) / 2
    return float(min(max(t, low), high)) if np.isfinite(t) else float((t0 + t1) / 2)
