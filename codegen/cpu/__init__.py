"""Kernels for CPUs: explicitly vectorised LLVM IR, compiled through llvmlite."""
