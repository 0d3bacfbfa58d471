"""What the README and docs/ show is so: Python blocks run, and print the text after them; commands print theirs."""

import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
KERAS_SAYS = "Using tensorc.keras backend.\n"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str) -> list[Any]:
    """(text of the block, what it must print or None): for Python a `text` block that follows at once."""
    found = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        inside = [*BLOCK.finditer(text), None]
        for block, after in itertools.pairwise(inside):
            if block is None or block[1] != language:
                continue
            follows = after is not None and after[1] == "text" and not text[block.end() : after.start()].strip()
            line = text.count("\n", 0, block.start()) + 1
            found.append(pytest.param(block[2], after[2] if after and follows else None, id=f"{page.name}:{line}"))
    return found


def run_python(*arguments: str, cwd: Path, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=cwd,
        env={"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'examples' / 'swish'}", "HOME": str(home), "PATH": ""},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(("script", "printed"), blocks("python"))
def test_python_block(script: str, printed: str | None, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    (tmp_path / "example.py").write_text(script, encoding="utf-8")

    done = run_python("example.py", cwd=tmp_path, home=tmp_path)

    assert (done.returncode, done.stderr.replace(KERAS_SAYS, "")) == (0, "")
    if printed is None:
        return
    if request.config.getoption("--update-golden"):
        replace_everywhere(f"```text\n{printed}```", f"```text\n{done.stdout.rstrip()}\n```")
    else:
        assert done.stdout.rstrip() == printed.rstrip()


@pytest.mark.parametrize(("session", "_"), blocks("console"))
def test_command(session: str, _: None, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    command, _, printed = session.partition("\n")
    program, *arguments = shlex.split(command.removeprefix("$ "))
    assert program == "tensorc"

    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = run_python("-m", "tensorc", *arguments, cwd=tmp_path, home=tmp_path)

    assert done.returncode == 0, done.stderr
    if request.config.getoption("--update-golden"):
        replace_everywhere(f"```console\n{session}```", f"```console\n{command}\n{done.stdout.rstrip()}\n```")
    else:
        assert done.stdout.rstrip() == printed.rstrip()


def replace_everywhere(old: str, new: str) -> None:
    for page in pages():
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace(old, new), encoding="utf-8")


def test_examples_are_the_files_they_name() -> None:
    shown = re.compile(r"\[(examples/[\w/]+\.py)\]\([^)]*\):\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    scripts = [example for page in pages() for example in shown.findall(page.read_text(encoding="utf-8"))]

    assert [name for name, _ in scripts] == [
        "examples/layer.py", "examples/classifier.py",
        *(f"examples/swish/{name}.py" for name in ("model", "first", "swish", "test_swish")),
        "examples/theano_style.py",
    ]
    for name, script in scripts:
        assert script == (ROOT / name).read_text(encoding="utf-8")


def test_links_within_the_project_lead_somewhere() -> None:
    inside = re.compile(r"\]\((?!https?://|#)([^)#]+)")
    links = [
        (page, target)
        for page in [*pages(), *(ROOT / "examples").rglob("*.md"), *(ROOT / "tests").rglob("*.md")]
        for target in inside.findall(page.read_text(encoding="utf-8"))
    ]

    assert [(str(page), target) for page, target in links if not (page.parent / target).exists()] == []
