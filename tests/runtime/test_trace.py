"""Pictures and traces of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from nums_core.runtime.report import Report
from nums_core.runtime.trace import chrome_trace, timeline


@pytest.fixture
def report():
    spans = [(f"op {k % 12}", k % 2, k % 3, 0.001 * k, 0.001 * (k + 1), 5) for k in range(40)]
    memory = [(k % 2, 0.001 * k, 1e6 * k) for k in range(40)]
    return Report(run_s=0.04, n_tasks=200, bytes_moved=3e6, peak_bytes=np.array([38e6, 39e6]), spans=spans, memory=memory)


def test_chrome_trace(report, tmp_path):
    path = tmp_path / "run.json"
    chrome_trace(report, str(path))
    events = json.loads(path.read_text())["traceEvents"]
    ran = [e for e in events if e["ph"] == "X"]
    assert len(ran) == 40 and ran[3] == {"ph": "X", "name": "op 3", "pid": 1, "tid": 0, "ts": pytest.approx(3000.0),
                                         "dur": pytest.approx(1000.0), "args": {"tasks": 5}}
    assert len([e for e in events if e["ph"] == "C"]) == 40
    assert {e["args"]["name"] for e in events if e["name"] == "process_name"} == {"worker 0", "worker 1"}
    assert os.listdir(tmp_path) == ["run.json"]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_timeline(report, tmp_path, ending):
    path = tmp_path / f"run.{ending}"
    timeline(report, str(path))
    start = path.read_bytes()[:100]
    assert start.startswith(b"\x89PNG") if ending == "png" else b"<?xml" in start
    assert os.listdir(tmp_path) == [f"run.{ending}"]


def test_a_run_without_anything(tmp_path):
    timeline(Report(), str(tmp_path / "run.png"))
    chrome_trace(Report(), str(tmp_path / "run.json"))
    assert json.loads((tmp_path / "run.json").read_text())["traceEvents"] == []


def test_what_was_there_stays_if_writing_fails(report, tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    path.write_text("before")
    report.spans = [("op", 0, 0, 0.0, object(), 1)]
    with pytest.raises(TypeError):
        chrome_trace(report, str(path))
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["run.json"]


def test_a_folder_that_is_not_there(report, tmp_path):
    with pytest.raises(FileNotFoundError):
        chrome_trace(report, str(tmp_path / "no" / "run.json"))


def test_no_matplotlib():
    code = ("import sys; sys.modules['matplotlib'] = None; sys.modules['matplotlib.figure'] = None\n"
            "from nums_core.runtime.report import Report\nfrom nums_core.runtime.trace import timeline\n"
            "try:\n    timeline(Report(), 'x.png')\nexcept ImportError as e:\n    print(type(e).__name__, e)")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("MissingBackendError") and "pip install nums-core[demo]" in said
