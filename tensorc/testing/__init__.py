"""Tests for passes: what a rewrite or a graph pass does to a graph, where it does nothing, and that values stay.

    from tensorc.testing import check_numbers, check_silent, check_text

    check_text(Swish(), "graph f(x: f32[n]) …", "graph f(x: f32[n]) …")
    check_silent(Swish(), "graph f(x: f64[n]) …", because="f64")
    check_numbers(Swish())

Each takes a pass, the name of one, or a list of them, and raises an AssertionError that names the rule, with a graph in
which it does wrong.
"""

from __future__ import annotations

from tensorc.testing.checks import check_graph, check_numbers, check_silent, check_text

__all__ = ["check_graph", "check_numbers", "check_silent", "check_text"]
