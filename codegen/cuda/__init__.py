"""Kernels for NVIDIA GPUs: the loop IR as Python text, which Numba-CUDA compiles."""
