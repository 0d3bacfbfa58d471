"""The examples run as a user would run them.  The accuracy that digits.py reaches in full is checked by .ci/run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run_example(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / name), *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "HOME": str(cwd), "PATH": ""},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def test_digits_learns_and_draws(tmp_path: Path) -> None:
    done = run_example("digits.py", "--seeds", "1", "--epochs", "12", "--out", "curve.png", cwd=tmp_path)

    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stdout + done.stderr
    accuracy = re.search(r"^median accuracy ([\d.]+)%", done.stdout, re.MULTILINE)
    assert accuracy is not None
    assert float(accuracy[1]) >= 97
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_digits_says_when_it_falls_short(tmp_path: Path) -> None:
    done = run_example("digits.py", "--seeds", "1", "--epochs", "1", "--out", "curve.png", cwd=tmp_path)

    assert "Traceback" not in done.stderr
    assert done.returncode == 1


def test_own_pass_fires(tmp_path: Path) -> None:
    done = run_example("own_pass.py", cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    exact, cheap = done.stdout.split("# and with HardSwish")
    assert "sigmoid" in exact
    assert "sigmoid" not in cheap
    assert float(cheap.split()[-1]) == pytest.approx(0.142, abs=0.001)
