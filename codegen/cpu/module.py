"""The kernels of one module: equal ones, as the layers of a deep network are, have their code made once."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from tensorc.codegen import loopir as ir
from tensorc.codegen.cpu import matmul
from tensorc.codegen.cpu.emit import emit, emit_box
from tensorc.codegen.cpu.marks import NO_MARKS, Marks, mark, marked
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.loopir import Work
from tensorc.codegen.loopverify import verify
from tensorc.codegen.signature import signature
from tensorc.ir.dims import Size

FORMULA = 2
"""The line of a matrix product's or a convolution's text that tells it; the epilogue follows."""


@dataclass(frozen=True)
class Code:
    """What runs a kernel: the functions to launch, one when the other is done, and the scratch bytes they share.

    Where it `keeps`, these bytes are to be the same, untouched, in the next call.
    """

    phases: tuple[str, ...]
    workspace: Size | None = None
    keeps: bool = False


class Module:
    """The LLVM IR of kernels, by name, as they are added; with `marks`, it says which lines of theirs it comes from."""

    def __init__(self, target: Target, marks: bool = False) -> None:
        self.target = target
        self.marks = marks
        self.texts: dict[str, str] = {}
        self._known: dict[Hashable, Code] = {}

    def add(self, kernel: Work) -> Code:
        """The code of a kernel: that of an equal one, or newly made.  Raises IRError for one that is not valid."""
        key = signature(kernel)
        if key not in self._known:
            self._known[key] = self._made(kernel)
        return self._known[key]

    def _made(self, kernel: Work) -> Code:
        if isinstance(kernel, ir.Kernel):
            self.texts[kernel.name] = emit(verify(kernel), self.target, marks=self._marks(kernel))
            return Code((kernel.name,))
        if isinstance(kernel, ir.Matmul):
            own, shared = matmul.emit_matmul(kernel, self.target), matmul.shared(kernel, self.target)
            code = Code(matmul.phases(kernel, self.target), matmul.workspace(kernel, self.target),
                        matmul.keeps(kernel, self.target))
        else:
            from tensorc.codegen.cpu import conv  # imported where a program has one

            own, shared = conv.emit_conv(kernel, self.target), conv.shared(kernel, self.target)
            code = Code(conv.phases(kernel, self.target), conv.workspace(kernel, self.target),
                        conv.keeps(kernel, self.target))
        self.texts.update(shared)
        self.texts[kernel.name] = marked(own, mark(FORMULA)) if self.marks else own
        if kernel.epilogue is not None:
            marks = self._marks(kernel.epilogue, FORMULA)
            self.texts[kernel.epilogue.name] = emit_box(verify(kernel.epilogue), self.target, marks)
        return code

    def _marks(self, kernel: ir.Kernel, above: int = 0) -> Marks:
        return Marks.of(kernel, above) if self.marks else NO_MARKS
