"""A function at one stage of compilation: its graph after passes, its loops, its machine code."""

from __future__ import annotations

from tensorc.errors import ArgumentError
from tensorc.inspect.found import Found
from tensorc.inspect.history import INPUT, History, Stage, trace
from tensorc.inspect.paint import Paint
from tensorc.passes.context import Context
from tensorc.passes.manager import Pipeline, unknown
from tensorc.runtime.program import Program, program

ALL, CHANGED = "all", "changed"


def print_graphs(found: Found, after: str | None, paint: Paint) -> None:
    """The graph after one pass, `all` after each, `changed` after each that changed it, None after the last.

    Where a pass fails, what came before it is printed.
    Raises: ArgumentError for a pass that is not there; what a pass raises.
    """
    if after not in (ALL, CHANGED):
        print(paint.graph(titled(history_up_to(found, after).stages[-1])))
        return
    history = trace(found.graph, found.pipeline)
    before = ""
    for stage in history.stages:
        if stage.text != before:
            print(paint.graph(titled(stage)))
        elif after == ALL:
            print(paint.graph(f"# {stage.when}, as before\n"))
        before = stage.text
    if history.failure is not None:
        raise history.failure


def titled(stage: Stage) -> str:
    """The graph's text below a line that says when it is so."""
    return f"# {stage.when}\n{stage.text}"


def history_up_to(found: Found, after: str | None) -> History:
    """The history up to the pass `after`, or up to the end.

    Raises: ArgumentError for a pass that is not there; what a pass raises.
    """
    history = trace(found.graph, up_to(found.pipeline, after))
    if history.failure is not None:
        raise history.failure
    return history


def up_to(pipeline: Pipeline, after: str | None) -> Pipeline:
    """The passes up to the one called `after`, None of them for `input`, all for None.  Raises ArgumentError."""
    if after is None:
        return pipeline
    if after == INPUT:
        return Pipeline()
    if after not in pipeline.names:
        raise ArgumentError(unknown(after, (*pipeline.names, INPUT, ALL, CHANGED)))
    return pipeline.up_to(after)


def print_code(found: Found, stage: str) -> None:
    """The function's `loops`, `llvm`, `asm`, `cuda` or `ptx`.  Raises DeviceError where nothing makes PTX."""
    if stage in ("cuda", "ptx"):
        return print_cuda(found, stage)
    compiled = program(found.graph, found.pipeline)
    text = {"loops": lambda p: str(p.assembly.loops), "llvm": Program.llvm, "asm": Program.asm}[stage](compiled)
    return print(f"{';' if stage == 'llvm' else '#'} {found.graph.name}\n\n{text}")


def print_cuda(found: Found, stage: str) -> None:
    """The function's kernels for a GPU, as the text that Numba-CUDA compiles or as what becomes of it."""
    from tensorc.codegen.cuda.assemble import assemble
    from tensorc.codegen.cuda.compile import ptx

    assembly = assemble(found.pipeline.run(found.graph, Context("cuda")), libraries=True)
    if stage == "cuda":
        print(f"# {found.graph.name}\n\n{assembly}")
    else:
        print(f"// {found.graph.name}\n\n" + "\n".join(map(ptx, assembly.sources.values())))
