"""Kernels of one module: code is made once for equal ones, and for each of those that differ in anything else."""

from dataclasses import replace

import pytest

from tensorc.codegen import loopir as ir
from tensorc.codegen.cpu.assemble import assemble
from tensorc.codegen.cpu.module import Module
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.signature import signature
from tensorc.ir import dims
from tensorc.ir.parse import parse
from tensorc.ir.types import f32, f64
from tensorc.passes.pipeline import default

N = dims.symbol("n")
X, Y = ir.Buffer("x", f32, (N,)), ir.Buffer("y", f32, (N,), "out")


def kernel(name="k0", x=X, y=Y, value=1.0, fn="add", sizes=("n",)):
    result = ir.Call(fn, (ir.Load(x.name, (dims.symbol("i"),), f32), ir.Num(value, f32)), f32)
    return ir.Kernel(name, sizes, (x, y), (("i", N),), (ir.Store(y.name, (dims.symbol("i"),), result),))


def test_names_make_no_difference():
    other = kernel("k7", replace(X, name="variable"), replace(Y, name="t3"))
    assert signature(other) == signature(kernel())
    module = Module(Target.host())
    assert module.add(other) == module.add(kernel())
    assert list(module.texts) == ["k7"]


OTHERS = {
    "a literal": kernel(value=2.0),
    "the function": kernel(fn="mul"),
    "an order of sizes": kernel(sizes=("m", "n")),
    "a role": kernel(y=replace(Y, role="inout")),
    "a shape": kernel(x=replace(X, shape=(dims.symbol("m"),))),
    "a dtype": kernel(y=replace(Y, dtype=f64)),
    "the order of buffers": replace(kernel(), buffers=(Y, X)),
}


@pytest.mark.parametrize("what", OTHERS)
def test_anything_else_does(what):
    assert signature(OTHERS[what]) != signature(kernel())


def test_zeros_differ_in_their_sign_and_nan_is_nan():
    assert signature(kernel(value=0.0)) != signature(kernel(value=-0.0))
    assert signature(kernel(value=float("nan"))) == signature(kernel(value=float("nan")))


def test_convolutions_differ_in_their_geometry():
    x, w, y = ir.Buffer("x", f32, (N, 8, 3)), ir.Buffer("w", f32, (3, 3, 4)), ir.Buffer("y", f32, (N, 8, 4), "out")
    conv = ir.Conv("forward", "k0", ("n",), (x, w, y), (1,), (1,), (1,))
    assert signature(replace(conv, name="k1")) == signature(conv)
    for other in (replace(conv, kind="input_gradient"), replace(conv, strides=(2,)), replace(conv, low=(0,)),
                  replace(conv, epilogue=kernel())):
        assert signature(other) != signature(conv)


def test_equal_layers_of_a_network_share_their_kernels():
    layers = "".join(f"%{i} = conv(%{i - 1}, w{i}) {{strides=[1], dilations=[1], low=[1], shape=[8], groups=1}}\n"
                     for i in range(1, 5))
    weights = ", ".join(f"w{i}: variable f32[3,4,4]" for i in range(1, 5))
    (graph,) = parse(f"graph g(x: f32[n,8,4]; {weights})\n%0 = neg(x)\n{layers}return %4\n")
    spec = assemble(default().run(graph), Target.host()).spec
    convolved = [launch.kernel for step in spec.steps for launch in step if not launch.kernel.endswith("_pack")][1:]
    assert len(convolved) == 4
    assert len(set(convolved)) == 1
