"""A run as a picture and as a Chrome trace, from its Report.

    chrome_trace(report, "run.json")   open in chrome://tracing or ui.perfetto.dev
    timeline(report, "run.png")        a lane for each worker's thread, and below it the bytes each worker holds
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from typing import Any

from nums_core._util import format_bytes, format_seconds
from nums_core.errors import MissingBackendError
from nums_core.runtime.report import Report

Span = tuple[str, int, int, float, float, int]
COLOURS = 10  # of matplotlib's default cycle, C0 .. C9
MOST_NAMED = 9  # labels in the legend; the rest are drawn in grey


def chrome_trace(report: Report, path: str) -> None:
    """Write the spans and the memory of `report` as trace events; times in microseconds from the run's start."""
    events: list[dict[str, Any]] = []
    for worker in sorted({s[1] for s in report.spans} | {m[0] for m in report.memory}):
        events.append({"ph": "M", "name": "process_name", "pid": worker, "args": {"name": f"worker {worker}"}})
    for worker, thread in _lanes(report.spans):
        events.append({"ph": "M", "name": "thread_name", "pid": worker, "tid": thread,
                       "args": {"name": f"thread {thread}"}})
    for label, worker, thread, start, stop, n_tasks in report.spans:
        events.append({"ph": "X", "name": label or "tasks", "pid": worker, "tid": thread, "ts": start * 1e6,
                       "dur": (stop - start) * 1e6, "args": {"tasks": n_tasks}})
    for worker, at, n_bytes in report.memory:
        events.append({"ph": "C", "name": "blocks", "pid": worker, "ts": at * 1e6, "args": {"bytes": n_bytes}})
    with _replacing(path) as part, open(part, "w", encoding="utf-8") as file:
        json.dump({"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"report": report.text()}}, file)


def timeline(report: Report, path: str) -> None:
    """Draw `report`; the ending of `path` chooses the format (.png, .svg, .pdf).

    Raises
    ------
    MissingBackendError
        Matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingBackendError("drawing a timeline needs the package matplotlib, which is not installed here; "
                                  "pip install nums-core[demo]") from error
    lanes = _lanes(report.spans)
    height = 1.6 + 0.28 * max(len(lanes), 1) + (1.8 if report.memory else 0.0)
    figure = Figure(figsize=(11, height), layout="constrained")
    FigureCanvasAgg(figure)
    if report.memory:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[max(0.28 * len(lanes), 0.5) + 0.6, 1.6])
        _draw_memory(below, report)
        below.set_xlabel("ms from the run's start")
    else:
        above = figure.subplots()
        above.set_xlabel("ms from the run's start")
    _draw_lanes(above, report, lanes)
    with _replacing(path) as part:
        figure.savefig(part, dpi=130, format=os.path.splitext(path)[1].lstrip(".") or "png")


def _lanes(spans: list[Span]) -> list[tuple[int, int]]:
    return sorted({(s[1], s[2]) for s in spans})


def _draw_lanes(axes: Any, report: Report, lanes: list[tuple[int, int]]) -> None:
    place = {lane: k for k, lane in enumerate(lanes)}
    took: dict[str, float] = {}
    for label, _, _, start, stop, _ in report.spans:
        took[label] = took.get(label, 0.0) + stop - start
    named = sorted(took, key=lambda label: -took[label])[:MOST_NAMED]
    groups = [(label or "tasks", f"C{k % COLOURS}", [s for s in report.spans if s[0] == label])
              for k, label in enumerate(named)]
    groups.append(("others", "0.6", [s for s in report.spans if s[0] not in named]))
    for label, colour, mine in groups:
        if mine:
            axes.barh([place[s[1], s[2]] for s in mine], [1e3 * (s[4] - s[3]) for s in mine],
                      left=[1e3 * s[3] for s in mine], height=0.8, color=colour, edgecolor="white", linewidth=0.3,
                      label=label)
    axes.set_yticks(range(len(lanes)), [f"worker {w}" if t == 0 else f"thread {t}" for w, t in lanes])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_title(f"{report.n_tasks} tasks in {format_seconds(report.run_s)}; moved "
                   f"{format_bytes(report.bytes_moved)}; peak {format_bytes(float(report.peak_bytes.max(initial=0.0)))}",
                   loc="left", fontsize=10)
    if took:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)


def _draw_memory(axes: Any, report: Report) -> None:
    scale = 2**20
    for worker in sorted({m[0] for m in report.memory}):
        mine = sorted((at, n) for w, at, n in report.memory if w == worker)
        axes.step([0.0, *(1e3 * at for at, _ in mine)], [0.0, *(n / scale for _, n in mine)],
                  where="post", label=f"worker {worker}", color=f"C{worker % COLOURS}")
    axes.set_ylabel("blocks, MiB")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[str]:
    """A temporary name beside `path` that takes its place if all goes well, and vanishes otherwise."""
    folder, name = os.path.split(os.path.abspath(path))
    handle, part = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    os.close(handle)
    try:
        yield part
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
