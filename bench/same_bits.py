"""Every workload on local threads (1, 2, 7) and on Ray: are the results identical, bit for bit?

    python -m bench.same_bits [--scale 0.02] [--only NAME ...] [--no-ray]
"""

import argparse

import numpy

import nums_core
from bench import harness
from bench.libraries import LIBRARIES
from bench.workloads import WORKLOADS


def places(ray: bool) -> dict[str, dict[str, object]]:
    """Where to run, by name: arguments of `nums_core.init`."""
    found: dict[str, dict[str, object]] = {f"{n} thread(s)": {"threads": n} for n in (1, 2, 7)}
    if ray:
        found["Ray, 2 workers"] = {"ray": {"num_workers": 2}}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.02)
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="NAME")
    parser.add_argument("--no-ray", action="store_true")
    options = parser.parse_args()
    print(harness.heading())
    first: dict[str, list[bytes]] = {}
    differ: dict[str, list[str]] = {name: [] for name in options.only}
    where = places(not options.no_ray)
    for place, arguments in where.items():
        nums_core.init(**arguments)  # type: ignore[arg-type]
        library = LIBRARIES["nums"]()
        for name in options.only:
            work = WORKLOADS[name]
            rng = numpy.random.default_rng(harness.SEED)
            inputs = [make(rng, options.scale) for make in work.inputs]
            arrays = [library.array(x, tuple(-(-n // 5) for n in x.shape)) for x in inputs]
            bits = [numpy.asarray(r).tobytes() for r in library.compute(*work.program(library, *arrays))]
            if first.setdefault(name, bits) != bits:
                differ[name].append(place)
    nums_core.shutdown()
    for name in options.only:
        verdict = f"DIFFERENT on {', '.join(differ[name])}" if differ[name] else f"identical on {', '.join(where)}"
        print(f"{name:<15} {verdict}")
    return int(any(differ.values()))


if __name__ == "__main__":
    raise SystemExit(main())
