"""Every Python block of the README and of docs/ runs, and prints what the block after it shows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def scripts() -> list[object]:
    """(Python text, what it must print or None) of each block; the output is a `text` block that follows at once."""
    found: list[object] = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        blocks = list(BLOCK.finditer(text))
        for number, block in enumerate(blocks):
            if block[1] != "python":
                continue
            after = blocks[number + 1] if number + 1 < len(blocks) else None
            follows = after is not None and after[1] == "text" and not text[block.end() : after.start()].strip()
            name = f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, block.start()) + 1}"
            found.append(pytest.param(block[2], after[2] if after and follows else None, id=name))
    return found


@pytest.mark.parametrize(("script", "printed"), scripts())
def test_block_runs(script: str, printed: str | None, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(script, encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-W", "error", "example.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )

    assert done.stderr == ""
    assert done.returncode == 0
    if printed is not None:
        assert done.stdout == printed


def test_links_within_the_project_lead_somewhere() -> None:
    inside = re.compile(r"\]\((?!https?://|#)([^)#]+)")
    links = [
        (page, target)
        for page in [*pages(), *(ROOT / "examples").rglob("*.md"), *(ROOT / "tests").rglob("*.md")]
        for target in inside.findall(page.read_text(encoding="utf-8"))
    ]

    assert [(str(page), target) for page, target in links if not (page.parent / target).exists()] == []
