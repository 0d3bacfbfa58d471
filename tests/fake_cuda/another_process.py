"""A program on the GPU that is not there, in a process of its own: compiled with `make`, from the store with `load`."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from fake_gpu import FakeGpu, built

from tensorc import backend as K
from tensorc.codegen.cuda import compile as compiler
from tensorc.runtime.cuda import driver


def no_compiler(*_: object) -> None:
    raise AssertionError("what is in the store is compiled again")


gpu = FakeGpu()
driver.NAMES = (str(built()),)
compiler.cubins = gpu.cubins if sys.argv[1] == "make" else no_compiler

x, w = K.placeholder((None, 5)), K.variable(np.arange(10).reshape(5, 2))
function = K.function([x], [K.softmax(K.dot(x, w) + [1, 2])], [(w, w * 2)], device="cuda")
for kernel in function.compiled.program.code.values():
    gpu.know(kernel)
print(function([np.ones((3, 5), np.float32)])[0].tolist(), function.compiled.program.compiled)
gpu.check()
assert not {"numba", "tensorc.passes.pipeline", "tensorc.codegen.cuda.emit"} & set(sys.modules) or sys.argv[1] == "make"
