"""Fused graphs to loop IR, loop IR to machine code."""

if __name__ != "tensorc.codegen":
    raise ImportError(f"import this package as tensorc.codegen, not {__name__}")
