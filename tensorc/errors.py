"""What can go wrong.  Every error is a `TensorcError`, and also the built-in that Python users would catch."""

from __future__ import annotations


class TensorcError(Exception):
    """Base of all errors raised by tensorc."""


class ShapeError(TensorcError, ValueError):
    """Ranks or sizes that do not fit together."""


class DTypeError(TensorcError, TypeError):
    """A dtype an operation does not take."""


class ArgumentError(TensorcError, ValueError):
    """An argument outside its allowed values."""


class IndexRangeError(TensorcError, IndexError):
    """An index, computed or fed, that is outside its axis."""


class IRError(TensorcError, ValueError):
    """A graph or its text that is not valid."""


class RewriteError(TensorcError, RuntimeError):
    """A pass that broke its contract: changed a type or a value, or did not settle.

    Attributes:
        repro: the text of a small graph in which it does so; empty where none was looked for.
    """

    def __init__(self, message: str, repro: str = "") -> None:
        super().__init__(message)
        self.repro = repro


class CheckError(TensorcError, ArithmeticError):
    """A kernel that does not compute what its reference does, or makes a NaN, while TENSORC_CHECK=1."""


class InternalError(TensorcError, RuntimeError):
    """A fault of the compiler itself."""


class DeviceError(TensorcError, RuntimeError):
    """A device was asked for that is not there, or what makes code for it is not installed."""
