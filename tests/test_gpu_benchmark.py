"""benchmarks/gpu.py, small, on a driver that has no GPU: every part of it runs, and what it writes can be read."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from fake_gpu import FakeGpu, forget, gpu

assert gpu
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import gpu as module

    return module


def test_every_part_runs(gpu: FakeGpu, benchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    rows = benchmark.main(["--tiny", "--out", str(out)])
    assert [row for row in rows if "error" in row] == []
    assert {row["part"] for row in rows} == set(benchmark.PARTS)
    assert all(row["seconds"] > 0 for row in rows)
    found = json.loads(out.read_text())
    assert found["rows"] == rows
    assert found["device"] in capsys.readouterr().out
    assert found["tiny"]
    assert {"tensorc", "numpy"} <= set(found["versions"])


def test_a_part_that_fails_leaves_the_others(gpu: FakeGpu, benchmark, monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    def fails(_):
        yield {"name": "one", "seconds": 1.0}
        raise ValueError("no such luck")

    monkeypatch.setitem(benchmark.PARTS, "memory", (fails, 0.5))
    rows = benchmark.main(["--tiny", "--only", "copy,memory,launches"])
    assert [row["part"] for row in rows if "error" in row] == ["memory"]
    assert "ValueError: no such luck" in capsys.readouterr().out
    assert rows[-1]["part"] == "launches"


def test_a_part_ends_when_its_time_is_spent(gpu: FakeGpu, benchmark) -> None:
    rows = benchmark.main(["--tiny", "--only", "memory,copy", "--budget", "0"])
    assert [row.get("error", "")[:8] for row in rows] == ["", "the time"] * 2


def test_without_a_gpu_it_says_so(gpu: FakeGpu, benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.library.fake_devices(0, 13000, 9)
    forget()
    try:
        with pytest.raises(SystemExit, match="1"):
            benchmark.main(["--tiny"])
    finally:
        gpu.library.fake_devices(1, 13000, 9)
        forget()
    assert "there is nothing to measure" in capsys.readouterr().err
