"""Graph to graph: rewrites, fusion, layout, buffers."""

if __name__ != "tensorc.passes":
    raise ImportError(f"import this package as tensorc.passes, not {__name__}")
