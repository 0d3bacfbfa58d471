"""The package as a whole: what it contains, who imports whom, and that it works wherever it is put."""

import ast
import functools
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("tensorc", "passes", "codegen", "runtime")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LONGEST_FILE = 600

# Who may import whom, at the top of a file or inside a function.  A module's layer is the longest prefix listed.
LAYERS = {
    "tensorc": {"backend"},
    "tensorc.errors": set(),
    "tensorc.settings": {"errors"},
    "tensorc.ir": {"errors"},
    "tensorc.ir.parse": {"errors", "ir", "ops"},  # text names operations, so reading it needs them
    "tensorc.ops": {"errors", "ir"},
    "tensorc.autodiff": {"errors", "ir", "ops", "autodiff_loops"},
    "tensorc.autodiff_loops": {"ir", "ops"},
    "tensorc.passes": {"errors", "settings", "ir", "ops"},
    "tensorc.codegen": {"errors", "settings", "ir", "ops"},
    "tensorc.runtime": {"errors", "settings", "ir", "ops", "passes", "codegen"},
    "tensorc.backend": {"errors", "settings", "ir", "ops", "autodiff", "runtime"},
    "tensorc.custom": {"errors", "ir", "ops", "autodiff", "backend", "codegen", "runtime"},
    "tensorc.keras": {"backend"},
    "tensorc.testing": {"errors", "ir", "ir.parse", "ops", "autodiff", "passes", "runtime"},
    "tensorc.inspect": {"errors", "settings", "ir", "ir.parse", "ops", "passes", "codegen", "runtime"},
    "tensorc.authoring": {"errors", "passes"},
    "tensorc.cli": {"authoring", "errors", "settings", "ir", "passes", "codegen", "runtime", "inspect"},
    "tensorc.__main__": {"cli"},
}
HOLDS_MEMORY = {f"tensorc.backend.{name}" for name in ("functions", "leaves", "sparse_leaves", "variables", "random")}


def source_files() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] != "tensorc":
        parts = ("tensorc", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in source_files()}


def layer(module: str) -> str:
    while module not in LAYERS:
        module = module.rpartition(".")[0]
    return module


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(module: str, *, at_start: bool = False) -> Iterator[str]:
    """The modules of this package that `module` imports; with `at_start`, only those needed to import it."""
    pending: list[ast.AST] = [tree(module)]
    while pending:
        node = pending.pop()
        if at_start and (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or only_for_types(node)):
            continue
        pending.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are written in full, line {node.lineno}"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in MODULES:
                    yield inner
                elif node.module in MODULES:
                    yield str(node.module)


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def run_python(*arguments: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter whose only way to tensorc is `path`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def test_every_package_of_the_tree_is_declared() -> None:
    declared = PROJECT["tool"]["setuptools"]["packages"]
    found = {module for module, path in MODULES.items() if path.name == "__init__.py"}

    assert len(set(declared)) == len(declared)
    assert set(declared) == found


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for path in source_files()}

    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_no_file_is_too_long() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in source_files()}

    assert {str(path): lines for path, lines in lengths.items() if lines > LONGEST_FILE} == {}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_one_way(module: str) -> None:
    here = layer(module)
    allowed = {here, "tensorc"} | {f"tensorc.{name}" for name in LAYERS[here]}
    if here == "tensorc.backend" and module not in HOLDS_MEMORY:
        allowed -= {"tensorc.runtime"}

    assert sorted({name for name in imports(module) if layer(name) not in allowed}) == []


def test_no_module_needs_itself() -> None:
    needs = {module: sorted(set(imports(module, at_start=True)) - {module}) for module in MODULES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " imports ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in needs[module]:
                visit(other, (*path, module))
            done.add(module)

    for module in sorted(MODULES):
        visit(module, ())


@pytest.mark.parametrize("statement", ["import tensorc", "from tensorc import backend", "from tensorc import custom"])
def test_import_is_light(statement: str) -> None:
    heavy = ("numba", "llvmlite", "networkx", "scipy", "matplotlib")
    script = f"import sys; {statement}; print([name for name in {heavy} if name in sys.modules])"

    done = run_python("-c", script, cwd=ROOT, path=ROOT)

    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("folder", ["passes", "codegen", "runtime"])
def test_mapped_folders_have_one_name(folder: str) -> None:
    done = run_python("-c", f"import {folder}", cwd=ROOT, path=ROOT)

    assert f"ImportError: import this package as tensorc.{folder}, not {folder}" in done.stderr


def test_a_checkout_works_uninstalled_beside_modules_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "runtime.py").write_text("mine = True\n")
    script = "import runtime, tensorc.runtime\nprint(runtime.mine, tensorc.runtime.__name__)\n"
    (tmp_path / "main.py").write_text(script)

    done = run_python("main.py", cwd=tmp_path, path=ROOT)

    assert (done.stdout, done.stderr) == ("True tensorc.runtime\n", "")


def _files_of_the_page() -> set[str]:
    folder = ROOT / "tensorc/inspect/page"
    return {f"tensorc/inspect/page/{path.name}" for path in folder.iterdir() if path.suffix in (".html", ".css", ".js")}


def test_the_wheel_holds_everything_and_works_alone(tmp_path: Path) -> None:
    tree, site = tmp_path / "tree", tmp_path / "site"
    tree.mkdir()
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)

    built = run_python("-c", f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})", cwd=tree)
    wheels = list(tmp_path.glob("tensorc-*.whl"))
    assert len(wheels) == 1, built.stderr
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = set(wheel.namelist())
        wheel.extractall(site)

    expected = {module.replace(".", "/") + ("/__init__" if path.name == "__init__.py" else "") + ".py"
                for module, path in MODULES.items()}
    expected |= {"tensorc/py.typed", *_files_of_the_page()}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith("licenses/LICENSE") for name in names)

    script = "import tensorc, tensorc.passes, tensorc.codegen.cpu, tensorc.runtime; print(tensorc.__path__)"
    alone = run_python("-c", script, cwd=tmp_path, path=site)
    assert (alone.stdout, alone.stderr) == (f"{[str(site / 'tensorc')]}\n", "")
