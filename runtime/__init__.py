"""Compiled programs at work: calls, variables, memory, threads."""

import time

if __name__ != "tensorc.runtime":
    raise ImportError(f"import this package as tensorc.runtime, not {__name__}")

IMPORTED = time.time()
"""When this process began to load the compiler: sources that are newer are not what it runs."""
