"""Code that says where it comes from: the same instructions, and each linked to its statement."""

from pathlib import Path

import pytest

from tensorc.codegen.cpu import marks
from tensorc.codegen.cpu.assemble import assemble
from tensorc.codegen.cpu.compile import assembly, optimised
from tensorc.codegen.cpu.target import Target
from tensorc.ir.parse import parse
from tensorc.passes.context import Context
from tensorc.passes.pipeline import default

LOGSUMEXP = (Path(__file__).parents[1] / "examples/logsumexp.ir").read_text()
LAYER = """graph layer(x: f32[n,784]; w: variable f32[784,10], b: variable f32[10])
  %0: f32[n,10] = matmul(x, w) {transpose_a=false, transpose_b=false}
  %1: f32[n,10] = add(%0, b)
  %2: f32[n,10] = tanh(%1)
  %3: f32[10] = sum(%2) {axes=[0], keepdims=false}
  return %2, %3
"""
CONV = """graph c(x: f32[n,9,9,4], w: f32[3,3,4,16])
  %0: f32[n,7,7,16] = conv(x, w) {strides=[1,1], dilations=[1,1], low=[0,0], shape=[7,7], groups=1}
  %1: f32[n,7,7,16] = maximum(%0, 0.0:f32)
  return %1
"""
LOOP = """body body0(x0: f32[4], s0: f32[4])
  %0: f32[4] = tanh(s0)
  %1: f32[4] = add(%0, x0)
  return %1
graph loop(x: f32[n,4], s: f32[4])
  %0: f32[4] = scan(x, s) {body=@body0, sequences=1, states=1, length=n, reverse=false, result=0}
  return %0
"""


def assembled(text, marked):
    planned = default().run(parse(text)[0], Context())
    return assemble(planned, Target.host(), marked)


@pytest.mark.parametrize("text", [LOGSUMEXP, LAYER, CONV, LOOP], ids=["rows", "product", "convolution", "loop"])
def test_the_code_is_the_same_with_marks_and_without(text):
    plain, marked = assembled(text, False).text, assembled(text, True).text
    assert plain != marked
    assert marks.unmarked(marked) == plain

    machine = marks.assembly_functions(assembly(marks.located(marked), Target.host()))
    expected = marks.assembly_functions(assembly(plain, Target.host()))
    assert {name: [line for line, _ in listing] for name, listing in machine.items()} == \
        {name: [line for line, _ in listing] for name, listing in expected.items()}


@pytest.mark.parametrize("text", [LOGSUMEXP, LAYER, CONV, LOOP], ids=["rows", "product", "convolution", "loop"])
def test_every_statement_is_found_in_every_form_of_the_code(text):
    """Allowed to vanish are grids of one unit, and declarations of accumulators that become registers."""
    program = assembled(text, True)
    located = marks.located(program.text)
    forms = [marks.marked_functions(program.text), marks.located_functions(optimised(located, Target.host())),
             marks.assembly_functions(assembly(located, Target.host()))]
    for _, group in program.lowered:
        for lowered in group:
            phases = program.functions[lowered.kernel.name]
            lines = str(lowered.kernel).splitlines()
            wanted = {i for i, line in enumerate(lines, 1)
                      if not line.strip().startswith(("kernel ", "grid ", "acc ", "matmul ", "conv "))}
            for form in forms:
                listings = [listing for name, listing in form.items() if _part_of(name, phases)]
                found = {source for listing in listings for _, source in listing}
                assert wanted <= found, [lines[i - 1] for i in sorted(wanted - found)]
                assert max(found) <= len(lines)


def _part_of(name, phases):
    own = [*phases, *(f"{p}_body" for p in phases), *(f"{p}_epilogue_box" for p in phases),
           *(f"{p}_epilogue_box_body" for p in phases)]
    return name in own


def test_code_is_linked_to_the_statement_that_it_does():
    program = assembled(LOGSUMEXP, True)
    text = [line.strip() for line in str(program.lowered[0][1][0].kernel).splitlines()]
    optimal = marks.located_functions(optimised(marks.located(program.text), Target.host()))["k0"]
    maxima = {text[source - 1] for line, source in optimal if "@llvm.maximum" in line}
    assert maxima == {"acc acc4: f32 = max", "acc4 <- v6", "v7: f32 = maximum(acc4, -3.4028234663852886e+38:f32)"}
