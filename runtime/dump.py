"""Functions written to a folder as they are compiled: what TENSORC_DUMP asks for.

    dumps/03-train/00-input.ir      the graph as it was built
                   01-loops.ir      after each pass, in order
                   …
                   loops.txt        the kernels in the loop language
                   program.ll       LLVM IR, as it was made
                   program.s        machine code
                   kernels.py       in place of both, for a GPU
                   values.npz       what the first call found: inputs, variables and keys of random streams
                   repro.py         compiles the graph again, runs it on these and compares with the references
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tensorc.codegen.cpu.assemble import assemble
from tensorc.codegen.cpu.compile import assembly as machine_text
from tensorc.codegen.cpu.target import Target
from tensorc.ir.graph import Graph, Location, all_nodes
from tensorc.ir.text import dump
from tensorc.passes.context import Context
from tensorc.passes.manager import Pipeline
from tensorc.passes.pipeline import default
from tensorc.runtime.program import size_symbols

SIZE = 8
"""What a size is, in the script, where no call has said."""

VALUES = "values.npz"

SCRIPT = '''\
"""The function `{name}`{where}.

Run this file to compile it again, run it {on}, and compare with its references in NumPy.
With TENSORC_CHECK=1 in the environment, the first kernel that differs is named.
{passes}"""

from pathlib import Path

from tensorc.ir.parse import parse
from tensorc.runtime.replay import replay
{definitions}
GRAPH = """\\
{graph}"""

VALUES = Path(__file__).with_name("{values}")  # made up at these sizes where the file is missing
SIZES = {sizes}
DEVICE = "{device}"  # where it ran: "cpu" or "cuda"

if __name__ == "__main__":
    raise SystemExit(replay(parse(GRAPH)[-1], VALUES, SIZES, device=DEVICE))
'''


def write(folder: Path, graph: Graph, pipeline: Pipeline | None, where: Location | None,
          values: Mapping[str, np.ndarray[Any, Any]] | None, device: str = "cpu") -> Path:
    """Writes a function into a folder of its own within `folder`, which is returned.

    A pass that fails leaves what was written before it.

    Args:
        pipeline: its passes; None for the default ones.
        where: the user's line that made it.
        values: of each parameter by name, what the call finds that it is compiled for; None where there is no call.
        device: what it runs on.

    Raises: OSError for a folder that cannot be written to; what a pass raises.
    """
    own = _fresh(folder, graph.name)
    graph = replace(graph, name=re.sub(r"\W|^(?=\d)", "_", graph.name))  # a name that the text can be read by
    passes = pipeline or default()
    (own / "repro.py").write_text(_script(graph, passes, where, values, device), encoding="utf-8")
    if values is not None:
        np.savez(own / VALUES, **values)  # type: ignore[arg-type]

    numbers = itertools.count()

    def observe(name: str, after: Graph) -> None:
        text = dump(after, notes=context.notes)
        (own / f"{next(numbers):02}-{_as_name(name)}.ir").write_text(text, encoding="utf-8")

    context = Context(device, observers=(observe,))
    for name, text in _code(passes.run(graph, context), device):
        (own / name).write_text(text, encoding="utf-8")
    return own


def _code(planned: Graph, device: str) -> Iterator[tuple[str, str]]:
    """What becomes of the graph after all passes, by the names of files."""
    if device == "cuda":
        from tensorc.codegen.cuda.assemble import assemble as assemble_for_gpu
        from tensorc.runtime.cuda.libraries.calls import are_wanted

        on_gpu = assemble_for_gpu(planned, libraries=are_wanted())
        yield "loops.txt", str(on_gpu.loops)
        yield "kernels.py", str(on_gpu)
        return
    assembly = assemble(planned, Target.host())
    yield "loops.txt", str(assembly.loops)
    yield "program.ll", assembly.text
    yield "program.s", machine_text(assembly.text, Target.host())


def _fresh(folder: Path, name: str) -> Path:
    """A new folder NN-NAME; several processes may ask at once."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = [int(m[1]) for each in folder.iterdir() if (m := re.match(r"(\d+)-", each.name))]
    for number in itertools.count(max(taken, default=0) + 1):
        own = folder / f"{number:02}-{_as_name(name)}"
        try:
            own.mkdir()
        except FileExistsError:
            continue
        return own
    raise AssertionError


def _as_name(text: str) -> str:
    return re.sub(r"[^\w.+-]", "_", text)


def _script(graph: Graph, passes: Pipeline, where: Location | None,
            values: Mapping[str, np.ndarray[Any, Any]] | None, device: str) -> str:
    own = "" if passes is default() else (f"\nIts passes were {', '.join(passes.names)}.\n"
                                          f"Those that are not the compiler's own go to replay as `passes`.\n")
    return SCRIPT.format(
        name=graph.name,
        where=f", made at {where}" if where else "",
        on="on values that are made up" if values is None else "on what its first call found",
        passes=own,
        definitions=_definitions(graph),
        graph=dump(graph).replace("\\", "\\\\").replace('"""', '\\"\\"\\"'),
        values=VALUES,
        device=device,
        sizes=repr(dict.fromkeys(size_symbols(graph), SIZE)).replace("'", '"'),
    )


def _definitions(graph: Graph) -> str:
    """What defines the operations of users again, each once, those in bodies included."""
    found = dict.fromkeys(n.op.definition() for n in all_nodes(graph) if n.op.definition is not None)
    return "".join(f"\n{text}" for text in found)
