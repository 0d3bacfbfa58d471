"""The learning phase, and what a session can forget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from tensorc.backend import names
from tensorc.backend.control import switch
from tensorc.backend.leaves import Placeholder
from tensorc.backend.provenance import public, uses
from tensorc.backend.tensor import Tensor
from tensorc.errors import ArgumentError
from tensorc.ir.types import TensorType, i32


class _Session:
    """What lives until `K.clear_session`."""

    phase: Placeholder | int | None = None


_session = _Session()


def learning_phase() -> Placeholder | int:
    """0 in test, 1 in training: a scalar placeholder that is 0 where it is not fed, or the int that was set."""
    if _session.phase is None:
        _session.phase = Placeholder(TensorType(i32, ()), "learning_phase", default=np.zeros((), np.int32))
    return _session.phase


def set_learning_phase(value: int) -> None:
    """Fixes the phase for all that is built from now on.  Raises ArgumentError for anything but 0 and 1."""
    if value not in (0, 1):
        raise ArgumentError(f"K.set_learning_phase: the phase is 0 or 1, not {value!r}")
    _session.phase = int(value)


@public("K.in_train_phase")
def in_train_phase(x: Any, alt: Any, training: Any = None) -> Any:
    """x in training, alt in test.

    Args:
        x, alt: tensors, or functions that make them.
        training: the phase; the learning phase for None, and then the result carries `_uses_learning_phase`
            unless the phase is fixed.
    """
    symbolic = training is None
    phase = learning_phase() if training is None else training
    if not isinstance(phase, Tensor):
        return _value(x if phase else alt)

    uses(phase)
    chosen = switch(phase, x, alt)
    if symbolic:
        chosen._uses_learning_phase = True
    return chosen


@public("K.in_test_phase")
def in_test_phase(x: Any, alt: Any, training: Any = None) -> Any:
    """x in test, alt in training: `K.in_train_phase` with its branches exchanged."""
    return in_train_phase(alt, x, training=training)


def clear_session() -> None:
    """Forgets the unique ids, the names taken and the learning phase."""
    names.reset_uids()
    names.forget_names()
    _session.phase = None


def manual_variable_initialization(value: bool) -> None:
    """Does nothing: a variable has its value from the moment it is made.  Keras 2.3.1 has the function."""


def get_session() -> NoReturn:
    """Raises RuntimeError: there are no sessions."""
    raise RuntimeError("K.get_session: tensorc has no sessions; K.function, K.eval and K.get_value compute values")


def set_session(session: object) -> NoReturn:
    """Raises RuntimeError: there are no sessions."""
    raise RuntimeError("K.set_session: tensorc has no sessions; K.function, K.eval and K.get_value compute values")


def _value(x: Any | Callable[[], Any]) -> Any:
    return x() if callable(x) else x
