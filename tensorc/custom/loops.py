"""The kernel that a node of a user's operation becomes, before anything is compiled."""

from __future__ import annotations

from tensorc.codegen import loopir as ir
from tensorc.codegen.writing import Workshop
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.node import Node, symbols_of
from tensorc.ir.types import DType


def kernel_of(node: Node) -> ir.Kernel:
    """The kernel of a node whose operation writes its loops, on buffers called x0, x1, … and out."""
    assert callable(node.op.kernel)
    taken = set().union(*map(symbols_of, (node, *node.args)))

    def claim(wish: str) -> str:
        while wish in taken:
            wish += "_"
        taken.add(wish)
        return wish

    operands = [ir.Buffer(claim(f"x{i}"), a.dtype, a.shape) for i, a in enumerate(node.args)]
    out = ir.Buffer(claim("out"), node.dtype, node.shape, "out")
    more: list[ir.Buffer] = []

    def scratch(wish: str, dtype: DType, shape: tuple[Size, ...]) -> ir.Buffer:
        more.append(ir.Buffer(claim(wish), dtype, shape, "scratch"))
        return more[-1]

    grid, body = node.op.kernel(Workshop(node, operands, out, claim, scratch))
    buffers = (*operands, out, *more)
    sizes = tuple(sorted({s for b in buffers for size in b.shape for s in dims.symbols(size)}))
    return ir.Kernel(node.op.name, sizes, buffers, grid, body)
