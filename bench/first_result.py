"""From starting Python to the first number: the whole process, each library against plain NumPy, in turn.

    python -m bench.first_result [--libs NAME ...] [--runs 15]
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

from bench import harness

PROGRAMS = {
    "numpy": "import numpy as np; np.ones((100, 100)).sum()",
    "dask": "import dask.array as np; np.ones((100, 100)).sum().compute()",
    "dask-array": "import dask_array as np; np.ones((100, 100)).sum().compute()",
    "nums": "import nums_core.array as np; np.ones((100, 100)).sum().compute()",
}


def seconds_of(program: str) -> float:
    # Installed packages are byte-compiled; a checkout must be allowed to be.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, env=env)
    return time.perf_counter() - begin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libs", nargs="+", choices=PROGRAMS, default=["numpy", "nums"], metavar="NAME")
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    print(harness.heading())
    for name in options.libs:
        seconds_of(PROGRAMS[name])  # byte-compiles, fills the file cache
    seconds: dict[str, list[float]] = {name: [] for name in options.libs}
    for _ in range(options.runs):
        for name in options.libs:
            seconds[name].append(seconds_of(PROGRAMS[name]))
    base = statistics.median(seconds.get("numpy", [float("nan")]))
    for name in options.libs:
        print(f"{name:<11}{harness.spread(seconds[name])}  {statistics.median(seconds[name]) / base:6.2f} times NumPy")
    harness.record("first_result", runs=options.runs, seconds=seconds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
