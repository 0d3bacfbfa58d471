"""Compiled programs at work: calls, variables, memory, threads."""

if __name__ != "tensorc.runtime":
    raise ImportError(f"import this package as tensorc.runtime, not {__name__}")
