"""A function at one stage of compilation: its graph after passes, its loops, its machine code."""

from __future__ import annotations

from tensorc.inspect.found import Found
from tensorc.ir.graph import Graph
from tensorc.ir.text import dump
from tensorc.passes.manager import Context
from tensorc.runtime.program import Program, program


def print_graphs(found: Found, after: str | None) -> None:
    """The graph after one pass, `all` after each, None after the last.

    `all` prints as the passes go, so that where one of them fails, those before it can be seen.
    Raises: ArgumentError for a pass that is not there.
    """
    if after == "input":
        return print(f"# as it was built\n{dump(found.graph)}")
    if after != "all":
        pipeline = found.pipeline if after is None else found.pipeline.up_to(after)
        graph = pipeline.run(found.graph, context := Context())
        return print(f"# after {pipeline.names[-1]}\n{dump(graph, notes=context.notes)}")

    before = ""

    def observe(name: str, graph: Graph) -> None:
        nonlocal before
        title = "as it was built" if name == "input" else f"after {name}"
        text = dump(graph, notes=context.notes)
        print(f"# {title}, as before\n" if text == before else f"# {title}\n{text}")
        before = text

    context = Context(observers=(observe,))
    found.pipeline.run(found.graph, context)
    return None


def print_code(found: Found, stage: str) -> None:
    """The function's `loops`, `llvm` or `asm`."""
    compiled = program(found.graph, found.pipeline)
    text = {"loops": lambda p: str(p.assembly.loops), "llvm": Program.llvm, "asm": Program.asm}[stage](compiled)
    print(f"{';' if stage == 'llvm' else '#'} {found.graph.name}\n\n{text}")
