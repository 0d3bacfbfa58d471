"""The functions of a file: those that a script makes when it runs, in whatever library, or the graphs of a text."""

from __future__ import annotations

import contextlib
import difflib
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tensorc.errors import ArgumentError, IRError

if TYPE_CHECKING:
    from tensorc.ir.graph import Graph, Location
    from tensorc.passes.manager import Pipeline
    from tensorc.runtime.function import Function


@dataclass(frozen=True)
class Found:
    """A function of a file.

    Attributes:
        names: what it is called: its own name last, the script's variables that hold it before that.
        graph: as it was built.
        pipeline: the passes it goes through.
        where: the user's line that made it; None for a graph of a text.
        function: the runtime's function, to be called; None for a graph of a text.
        inputs: those of its last call, where they were asked for and there was one.
    """

    names: tuple[str, ...]
    graph: Graph
    pipeline: Pipeline
    where: Location | None = None
    function: Function | None = field(default=None, repr=False)
    inputs: Sequence[object] | None = field(default=None, repr=False)


Hear = Callable[[int, Found], None]


def functions_of(path: Path, arguments: Sequence[str] = (), *, inputs: bool = False,
                 hear: Hear | None = None) -> tuple[list[Found], int]:
    """The functions of a file in the order they are made, and the exit status of its script (0 for a .ir file).

    Args:
        path: a .ir file, or a script, which is run as `python path arguments` would; what it prints goes to the
            standard error stream, and an error that it ends with is printed there as Python would.
        inputs: whether the inputs of calls are wanted.
        hear: is told of each function of a script as soon as it is made, with its number, counted from 1; what it is
            assigned to is not known then.  What it raises ends the script.

    Raises: IRError for a text that is not valid, naming file, line and column; what `hear` raises.
    """
    return (_of_text(path), 0) if path.suffix == ".ir" else _of_script(path, arguments, inputs, hear)


def located(file: str) -> tuple[Path, str | None]:
    """FILE[:NAME] → the file, which exists, and the name.  Raises ArgumentError."""
    path, colon, name = file.rpartition(":")
    candidates = [(Path(file), None), (Path(path), name)] if colon else [(Path(file), None)]
    for candidate, function in candidates:
        if candidate.is_file():
            return candidate, function
        if candidate.is_dir():
            raise ArgumentError(f"{candidate} is a directory; a Python script or a .ir file is wanted")
    missing = Path(path if colon and "/" not in name else file)
    beside = missing.parent.iterdir() if missing.parent.is_dir() else ()
    near = difflib.get_close_matches(missing.name, [p.name for p in beside], n=3)
    hint = f"; did you mean {' or '.join(str(missing.with_name(n)) for n in near)}?" if near else ""
    raise ArgumentError(f"there is no file {missing}{hint}")


def chosen(functions: Sequence[Found], name: str | None, path: Path) -> list[Found]:
    """Those called `name`, or the one at that number, counted from 1; all for None.

    Raises: ArgumentError if there are none.
    """
    if not functions:
        what = "holds no graph" if path.suffix == ".ir" else "makes no function"
        raise ArgumentError(f"{path} {what}: nothing to show")
    if name is None:
        return list(functions)
    called = [found for found in functions if name in found.names]
    if called:
        return called
    if name.isdecimal() and 0 < int(name) <= len(functions):
        return [functions[int(name) - 1]]
    known = list(dict.fromkeys(n for found in functions for n in found.names))
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known)}"
    raise ArgumentError(f"{path} has no function {name!r}; {hint}")


def _of_text(path: Path) -> list[Found]:
    from tensorc.ir.parse import parse
    from tensorc.passes.choice import chosen as chosen_passes
    from tensorc.passes.pipeline import default

    try:
        graphs = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArgumentError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise IRError(f"{path}: this is no text in UTF-8") from None
    except IRError as error:
        raise IRError(f"{path}: {error}") from None
    return [Found((graph.name,), graph, chosen_passes() or default()) for graph in graphs]


class _Stop(BaseException):
    """Ends a script, whatever errors it catches."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _of_script(path: Path, arguments: Sequence[str], inputs: bool, hear: Hear | None) -> tuple[list[Found], int]:
    """A function answers to its own name, and to the names of the script's variables that hold it."""
    from tensorc.runtime.function import hearing, keeping_inputs

    made: list[Found] = []
    output = sys.stdout

    def found(function: Function) -> None:
        made.append(Found((function.name,), function.graph, function.pipeline, function.where, function))
        if hear is not None:
            try:
                with contextlib.redirect_stdout(output):
                    hear(len(made), made[-1])
            except Exception as error:
                raise _Stop(error) from None

    try:
        with hearing(found), contextlib.ExitStack() as stack:
            calls = stack.enter_context(keeping_inputs()) if inputs else {}
            stack.enter_context(_as_main(path, arguments))
            status, variables = _run(path)
    except _Stop as stop:
        raise stop.error from None

    def held(each: Found) -> Found:
        by = [name for name, value in variables.items() if getattr(value, "compiled", None) is each.function]
        return replace(each, names=tuple(dict.fromkeys((*by, *each.names))),
                       inputs=calls.get(each.function) if each.function else None)

    return list(map(held, made)), status


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
