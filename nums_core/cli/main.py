"""`nums demo`, `nums info`, `nums generate`, `nums eval`: the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import nums_core
from nums_core.cli import eval as evaluate
from nums_core.cli import generate
from nums_core.errors import NumsError

COMMANDS = {"generate": generate, "eval": evaluate}  # modules with add_parser(commands) and run(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nums", description="NumPy arrays larger than a core, a GPU or a machine.")
    parser.add_argument("--version", action="version", version=f"nums_core {nums_core.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="logistic regression on 336,776 real flights, with pictures of the run")
    demo.add_argument("--ray", action="store_true", help="on a Ray cluster of four simulated nodes")
    demo.add_argument("--out", default="demo-out", help="folder for the pictures (default: %(default)s)")
    demo.add_argument("--rows", type=int, default=None, help="use only the first ROWS flights")
    commands.add_parser("info", help="what this installation can use")
    for command in COMMANDS.values():
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        if args.command == "demo":
            from nums_core.cli import demo

            return demo.run(args.out, on_ray=args.ray, rows=args.rows)
        if args.command in COMMANDS:
            return COMMANDS[args.command].run(args)
        return _info()
    except NumsError as error:
        print(f"nums: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("nums: interrupted", file=sys.stderr)
        return 130


def _info() -> int:
    import importlib.metadata
    import platform

    from nums_core.runtime.cluster import available_cpus
    from nums_core.runtime.executors.local import default_memory_bytes

    print(f"nums_core {nums_core.__version__}, Python {platform.python_version()}, {available_cpus()} cores, "
          f"{default_memory_bytes() / 2**30:.1f} GiB for blocks")
    for name in ("numpy", "scipy", "ray", "dask", "cupy-cuda13x", "zarr", "matplotlib"):
        try:
            print(f"  {name:14} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"  {name:14} not installed")
    return 0
