"""The command `tensorc`: shows what the compiler makes of the functions in a script, or of graphs written as text.

    tensorc --dump-ir train.py                      every K.function of the script, after all passes
    tensorc --dump-ir train.py:step --after all     one of them, after each pass
    tensorc --dump-ir net.ir --stage asm            graphs from text, down to assembly
    tensorc --devices                               what programs run on here

What a script prints goes to the standard error stream; the standard output holds the dump alone, and a dump of
graphs parses back.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes.util
import os
import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tensorc
from tensorc.errors import ArgumentError, IRError, TensorcError

if TYPE_CHECKING:
    from tensorc.ir.graph import Graph
    from tensorc.passes.manager import Pipeline
    from tensorc.runtime.program import Program

STAGES = ("graph", "loops", "llvm", "asm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status, 0 for success."""
    options = _parser().parse_args(arguments)
    try:
        if options.devices:
            print(devices())
            status = 0
        else:
            status = _dump(options)
        sys.stdout.flush()
    except TensorcError as error:
        print(f"tensorc: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader, such as `head`, has had enough; what is still buffered goes nowhere at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tensorc",
        description="Shows what the compiler makes of the functions in a script, or of graphs written as text.",
        epilog="What the script prints goes to the standard error stream.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--dump-ir", metavar="FILE[:NAME]", help="a Python script, or a .ir file; NAME is one function")
    what.add_argument("--devices", action="store_true", help="what programs run on here")
    what.add_argument("--version", action="version", version=f"tensorc {tensorc.__version__}")

    parser.add_argument("--after", metavar="PASS", help="the graph after this pass; `input` as built, `all` after each")
    parser.add_argument("--stage", choices=STAGES, default="graph", help="how far down to go (default: graph)")
    parser.add_argument("arguments", nargs="*", help="what the script finds in sys.argv, after `--`")
    return parser


@dataclass(frozen=True)
class _Shown:
    """A function to show: what it is called, its graph as it was built, the passes it goes through."""

    names: tuple[str, ...]
    graph: Graph
    pipeline: Pipeline


def _dump(options: argparse.Namespace) -> int:
    """`--dump-ir`: prints the functions of a file; returns the status of the script, 0 for text."""
    if options.after is not None and options.stage != "graph":
        raise ArgumentError(f"--after shows graphs; it has no meaning with --stage {options.stage}")

    path, name = _split(options.dump_ir)
    if path.suffix == ".ir":
        functions, status = _of_text(path), 0
    else:
        functions, status = _of_script(path, options.arguments)

    if status != 0 and not functions:
        return status
    for shown in _chosen(functions, name, path):
        _print(shown, options.after, options.stage)
    return status


def _split(file: str) -> tuple[Path, str | None]:
    """FILE[:NAME] → the file, which exists, and the name.  Raises ArgumentError."""
    if Path(file).is_file():
        return Path(file), None
    path, colon, name = file.rpartition(":")
    if colon and Path(path).is_file():
        return Path(path), name
    raise ArgumentError(f"there is no file {file}")


def _chosen(functions: list[_Shown], name: str | None, path: Path) -> list[_Shown]:
    """Those called `name`, or all.  Raises ArgumentError if there are none."""
    if not functions:
        raise ArgumentError(f"{path} makes no function: nothing to show")
    chosen = [shown for shown in functions if name is None or name in shown.names]
    if not chosen:
        known = list(dict.fromkeys(n for shown in functions for n in shown.names))
        raise ArgumentError(f"{path} has no function {name!r}; it has {', '.join(known)}")
    return chosen


def _of_text(path: Path) -> list[_Shown]:
    """The graphs of a .ir file.  Raises IRError naming the file, line and column."""
    from tensorc.ir.parse import parse
    from tensorc.passes.pipeline import default

    try:
        graphs = parse(path.read_text(encoding="utf-8"))
    except IRError as error:
        raise IRError(f"{path}: {error}") from None
    return [_Shown((graph.name,), graph, default()) for graph in graphs]


def _of_script(path: Path, arguments: Sequence[str]) -> tuple[list[_Shown], int]:
    """The K.functions that a script made, in its order, and the exit status it ended with.

    A function answers to its own name, and to the names of the script's variables that hold it.
    """
    from tensorc.runtime.function import recording

    with recording() as functions, _as_main(path, arguments):
        status, variables = _run(path)

    shown = []
    for function in functions:
        held_by = [name for name, value in variables.items() if getattr(value, "compiled", None) is function]
        shown.append(_Shown((*held_by, function.name), function.graph, function.pipeline))
    return shown, status


@contextlib.contextmanager
def _as_main(path: Path, arguments: Sequence[str]) -> Iterator[None]:
    """sys.argv and sys.path as `python path arguments` would set them, and print() to the standard error stream."""
    argv, search = sys.argv, sys.path[:]
    sys.argv = [str(path), *arguments]
    sys.path.insert(0, str(path.resolve().parent))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.argv, sys.path[:] = argv, search


def _run(path: Path) -> tuple[int, dict[str, object]]:
    """Runs a script: its exit status, and its variables where it came to its end.

    An error is reported as Python would, without the frames of this command.
    """
    try:
        return 0, runpy.run_path(str(path), run_name="__main__")
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0, {}
        print(stop.code, file=sys.stderr)
    except Exception as error:
        own = error.__traceback__
        while own is not None and own.tb_frame.f_code.co_filename != str(path):
            own = own.tb_next
        traceback.print_exception(error.with_traceback(own))
    return 1, {}


def _print(shown: _Shown, after: str | None, stage: str) -> None:
    """A function at the stage asked for."""
    from tensorc.runtime.program import Program, program

    if stage == "graph":
        return _print_graphs(shown, after)

    compiled = program(shown.graph, shown.pipeline)
    text = {"loops": _loops, "llvm": Program.llvm, "asm": Program.asm}[stage](compiled)
    return print(f"{';' if stage == 'llvm' else '#'} {shown.graph.name}\n\n{text}")


def _print_graphs(shown: _Shown, after: str | None) -> None:
    """The graph after one pass, after each, or after the last.

    `all` prints as the passes go, so that where one of them fails, those before it can be seen.
    Raises: ArgumentError for a pass that is not there.
    """
    from tensorc.ir.text import dump
    from tensorc.passes.manager import Context

    if after == "input":
        return print(f"# as it was built\n{dump(shown.graph)}")
    if after != "all":
        pipeline = shown.pipeline if after is None else shown.pipeline.up_to(after)
        graph = pipeline.run(shown.graph, context := Context())
        return print(f"# after {pipeline.names[-1]}\n{dump(graph, notes=context.notes)}")

    before = ""

    def observe(name: str, graph: Graph) -> None:
        nonlocal before
        title = "as it was built" if name == "input" else f"after {name}"
        text = dump(graph, notes=context.notes)
        print(f"# {title}, as before\n" if text == before else f"# {title}\n{text}")
        before = text

    context = Context(observers=(observe,))
    shown.pipeline.run(shown.graph, context)
    return None


def _loops(compiled: Program) -> str:
    """The kernels in the order they run."""
    kernels = [lowered.kernel for _, group in compiled.assembly.lowered for lowered in group]
    return "\n".join(map(str, kernels))


def devices() -> str:
    """What programs run on: the processor with its vectors and threads, and what became of the GPU."""
    from tensorc.codegen.cpu.target import Target
    from tensorc.runtime.threads import num_threads

    target = Target.host()
    threads = num_threads()
    driver = ctypes.util.find_library("cuda")
    return "\n".join([
        f"cpu   {target.cpu} ({target.architecture}), vectors of {target.bits} bits, "
        f"{threads} thread{'s' if threads > 1 else ''}",
        "cuda  " + ("a driver is there, but this version makes no code for it" if driver else "no driver found"),
    ])
