"""Thirteen everyday computations on arrays in memory, in NumPy, dask.array, dask-array and nums_core.

    python -m bench.workloads [--only NAME ...] [--libs NAME ...] [--repeat 5] [--scale 1.0]

0.8 GB of float64 each where the work is light; less where a byte takes long. The text is the same for all
libraries unless one lacks a name or has a clearly better way; each tries the same two ways of cutting the arrays
and keeps its faster.
"""

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy

from bench import harness
from bench.libraries import LIBRARIES, USUAL, Arrays, Chunks, Program, start

MIB = 2**20


def chain_sum(lib, x):
    return ((((x + 1) * 2 - 3) / 4).sum(),)


def mean_std(lib, x):
    return x.mean(axis=0), x.std(axis=1)


def gram(lib, x):
    return (x.T @ x,)


def matmul(lib, a, b):
    return (a @ b,)


def add_transpose(lib, x):
    return (x + x.T,)


def tensordot(lib, a, b):
    return (lib.np.tensordot(a, b, axes=((1, 2), (0, 1))),)


def mttkrp(lib, x, b, c):
    return (lib.np.einsum("ijk,jr,kr->ir", x, b, c, optimize=True),)


def mttkrp_by_hand(lib, x, b, c):
    """Contract the last axis as it lies in memory; einsum's own order copies the array first."""
    return (((x @ c) * b).sum(axis=1),)


def tsqr(lib, x):
    return tuple(lib.np.linalg.qr(x))


def svd(lib, x):
    return tuple(lib.np.linalg.svd(x, full_matrices=False))


def svd_in_dask(lib, x):
    return tuple(lib.np.linalg.svd(x))


def newton(lib, x, y):
    """Three Newton steps of logistic regression; the small system is solved in NumPy by everyone."""
    beta = numpy.zeros(x.shape[1])
    for _ in range(3):
        p = 1 / (1 + lib.np.exp(-(x @ beta)))
        gradient, hessian = lib.compute(x.T @ (y - p), x.T @ (x * (p * (1 - p))[:, None]))
        beta = beta + numpy.linalg.solve(hessian, gradient)
    return (beta,)


def cumsum(lib, x):
    return (lib.np.cumsum(x, axis=0),)


def mask(lib, x):
    return (x[x > 0],)


def stencil(lib, u):
    return (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:] - 4 * u[1:-1, 1:-1],)


def stencil_by_overlap(lib, u):
    """Slices that are off by one are cut anew in Dask; a halo around each block is its documented way."""

    def laplacian(b):
        out = numpy.empty_like(b)
        out[1:-1, 1:-1] = b[:-2, 1:-1] + b[2:, 1:-1] + b[1:-1, :-2] + b[1:-1, 2:] - 4 * b[1:-1, 1:-1]
        return out

    return (lib.np.map_overlap(laplacian, u, depth=1, boundary="none", dtype=u.dtype)[1:-1, 1:-1],)


def uniform(*shape: int) -> Callable[[numpy.random.Generator, float], numpy.ndarray]:
    """Values in [-0.5, 0.5); only the first axis shrinks with the scale."""

    def make(rng: numpy.random.Generator, scale: float) -> numpy.ndarray:
        x = rng.random((int(shape[0] * scale) or 1, *shape[1:]))
        x -= 0.5
        return x

    return make


def square(side: int) -> Callable[[numpy.random.Generator, float], numpy.ndarray]:
    return lambda rng, scale: uniform(int(side * scale**0.5), int(side * scale**0.5))(rng, 1.0)


def fixed(*shape: int) -> Callable[[numpy.random.Generator, float], numpy.ndarray]:
    return lambda rng, scale: uniform(*shape)(rng, 1.0)


def labels(length: int) -> Callable[[numpy.random.Generator, float], numpy.ndarray]:
    return lambda rng, scale: (rng.random(int(length * scale)) < 0.5).astype(float)


def auto(x: numpy.ndarray) -> Chunks:
    return "auto"


def auto_rows(x: numpy.ndarray) -> Chunks:
    return ("auto", *(-1,) * (x.ndim - 1))


def whole(x: numpy.ndarray) -> Chunks:
    return (-1,) * x.ndim


def rows(nbytes: int) -> Callable[[numpy.ndarray], Chunks]:
    return lambda x: (min(len(x), max(1, nbytes // x[0].nbytes)), *(-1,) * (x.ndim - 1))


def blocks_of(length: int) -> Callable[[numpy.ndarray], Chunks]:
    return lambda x: (length, *(-1,) * (x.ndim - 1))


def tiles(side: int) -> Callable[[numpy.ndarray], Chunks]:
    return lambda x: (side,) * x.ndim


Cut = Callable[[numpy.ndarray], Chunks] | tuple[Callable[[numpy.ndarray], Chunks], ...]  # for all inputs, or for each
ROWS = {"auto": auto_rows, "32 MiB": rows(32 * MIB)}
SHORT_ROWS = {"auto": auto_rows, "4 MiB": rows(4 * MIB)}
TILES = {"auto": auto, "1024²": tiles(1024)}
SMALL_TILES = {"1024²": tiles(1024), "2048²": tiles(2048)}  # "auto" makes one block of 4096² in Dask


def positive_diagonal(results: Arrays) -> Arrays:
    """QR is unique once the diagonal of R is positive."""
    q, r = results
    sign = numpy.where(numpy.diag(r) < 0, -1.0, 1.0)
    return q * sign, r * sign[:, None]


def positive_rows(results: Arrays) -> Arrays:
    """SVD (of distinct singular values) is unique once the largest entry of each right vector is positive."""
    u, s, vt = results
    sign = numpy.sign(vt[numpy.arange(len(vt)), abs(vt).argmax(axis=1)])
    return u * sign, s, vt * sign[:, None]


@dataclass(frozen=True)
class Workload:
    """A program, how its inputs are made and may be cut, and where a library needs a text of its own."""

    program: Program
    inputs: tuple[Callable[[numpy.random.Generator, float], numpy.ndarray], ...]
    cuts: Mapping[str, Cut]
    own: dict[str, Program] = field(default_factory=dict)
    canonical: Callable[[Arrays], Arrays] = tuple
    rtol: float = 1e-9

    def in_library(self, name: str, arrays: Arrays) -> harness.Start:
        cuts = {}
        for label, cut in self.cuts.items():
            each = cut if isinstance(cut, tuple) else (cut,) * len(arrays)
            cuts[label] = tuple(chunks(x) for chunks, x in zip(each, arrays, strict=True))
        return start(name, self.own.get(name, self.program), arrays, cuts)


BY_OVERLAP = {"dask": stencil_by_overlap, "dask-array": stencil_by_overlap}
MTTKRP_BY_HAND = {"numpy": mttkrp_by_hand, "dask": mttkrp_by_hand, "dask-array": mttkrp_by_hand}
SVD_IN_DASK = {"dask": svd_in_dask, "dask-array": svd_in_dask}
WORKLOADS = {
    "chain_sum": Workload(chain_sum, (uniform(100_000_000),), SHORT_ROWS),
    "mean_std": Workload(mean_std, (uniform(100_000, 1_000),), ROWS),
    "gram": Workload(gram, (uniform(1_000_000, 100),), ROWS),
    "matmul": Workload(matmul, (square(4096), square(4096)), SMALL_TILES),
    "add_transpose": Workload(add_transpose, (square(10_000),), TILES),
    "tensordot": Workload(
        tensordot,
        (uniform(400, 512, 512), fixed(512, 512, 64)),
        {"auto": (auto, auto), "(-1, 64, -1)": (lambda x: (-1, 64, -1), blocks_of(64))},
    ),
    "mttkrp": Workload(
        mttkrp,
        (uniform(400, 500, 500), fixed(500, 32), fixed(500, 32)),
        {"auto": (auto, auto, auto), "32 MiB": (rows(32 * MIB), whole, whole)},
        MTTKRP_BY_HAND,
    ),
    "tsqr": Workload(tsqr, (uniform(600_000, 50),), SHORT_ROWS, canonical=positive_diagonal),
    "svd": Workload(svd, (uniform(300_000, 50),), SHORT_ROWS, SVD_IN_DASK, canonical=positive_rows, rtol=1e-6),
    "newton": Workload(
        newton,
        (uniform(1_000_000, 50), labels(1_000_000)),
        {
            "auto": (auto_rows, blocks_of(128 * MIB // 400)),
            "32 MiB": (rows(32 * MIB), blocks_of(32 * MIB // 400)),
        },
    ),
    "cumsum": Workload(cumsum, (uniform(100_000_000),), SHORT_ROWS),
    "mask": Workload(mask, (uniform(100_000_000),), SHORT_ROWS),
    "stencil": Workload(stencil, (square(10_000),), TILES, BY_OVERLAP),
}


def run(name: str, libraries: list[str], repeat: int, scale: float) -> dict[str, harness.Timing]:
    """Race `libraries` on one workload and print a line for each."""
    workload = WORKLOADS[name]
    rng = numpy.random.default_rng(harness.SEED)
    arrays = tuple(make(rng, scale) for make in workload.inputs)
    numpy_library = LIBRARIES["numpy"]()
    expected = workload.canonical(workload.program(numpy_library, *arrays))
    agrees = harness.agrees_with(expected, rtol=workload.rtol)
    starts = {library: workload.in_library(library, arrays) for library in libraries}
    timings = harness.race(starts, lambda result: agrees(workload.canonical(result)), repeat=repeat)
    print(f"\n{name}  ({', '.join(str(x.shape) for x in arrays)})")
    for library, timing in timings.items():
        print(f"  {library:<14}{timing}")
    harness.print_ratios(timings, indent="  ")
    return timings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="NAME")
    parser.add_argument("--libs", nargs="+", choices=LIBRARIES, default=USUAL, metavar="NAME")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size of the data")
    options = parser.parse_args()
    print(harness.heading())
    results = {name: run(name, options.libs, options.repeat, options.scale) for name in options.only}
    print()
    for library in options.libs:
        ratios = [timings[library].median / timings["nums"].median for timings in results.values() if "nums" in timings]
        ratios = [ratio for ratio in ratios if math.isfinite(ratio)]
        if ratios and library != "nums":
            print(f"nums is {harness.geometric_mean(ratios):.2f} times as fast as {library} (mean of {len(ratios)})")
    harness.record("workloads", scale=options.scale, repeat=options.repeat, results=results)
    return harness.failures(*results.values())


if __name__ == "__main__":
    raise SystemExit(main())
