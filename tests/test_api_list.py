"""Every function of the K API is there, and is called as Keras' is."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from tensorc import backend as K

LISTED = Path(__file__).with_name("reference").joinpath("k_api.txt").read_text().splitlines()
"""Each function with its signature in Keras 2.3.1."""


@pytest.mark.parametrize("row", LISTED, ids=lambda row: row.partition("(")[0])
def test_signature(row):
    name = row.partition("(")[0]
    scope = {}
    exec(f"def {row}: pass", scope)
    wanted = parameters(scope[name])
    found = parameters(getattr(K, name))
    assert found[:len(wanted)] == wanted
    assert all(default is not inspect.Parameter.empty for _, _, default in found[len(wanted):])
    assert name in K.__all__


def parameters(function):
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]
