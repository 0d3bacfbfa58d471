"""What holds for a whole session: the default float type, the fuzz factor, the order of image axes.

The first values come from `keras.json` in `$KERAS_HOME` or `~/.keras`, where there is one.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from tensorc import settings
from tensorc.errors import ArgumentError

FLOATS = ("float16", "float32", "float64")
FORMATS = ("channels_last", "channels_first")
_OLD_FORMATS = {"tf": "channels_last", "th": "channels_first"}

_F = TypeVar("_F")


class Settings(Protocol):
    """Where the values in force are kept."""

    floatx: str
    epsilon: float
    image_data_format: str


class _Own:
    """Settings kept here."""

    def __init__(self) -> None:
        self.floatx = "float32"
        self.epsilon = 1e-7
        self.image_data_format = "channels_last"


_config: Settings = _Own()


def keep_in(settings: Settings) -> None:
    """From now on, settings are kept there."""
    global _config
    _config = settings


def backend() -> str:
    """The name of this backend: 'tensorc'."""
    return "tensorc"


def epsilon() -> float:
    """The fuzz factor of losses and normalisation; 1e-7 unless set."""
    return _config.epsilon


def set_epsilon(e: float) -> None:
    """Sets the fuzz factor."""
    _config.epsilon = float(e)


def floatx() -> str:
    """The default float type: 'float16', 'float32' or 'float64'."""
    return _config.floatx


def set_floatx(floatx: str) -> None:
    """Sets the default float type.  Raises ArgumentError for any other name."""
    if floatx not in FLOATS:
        raise ArgumentError(f"K.set_floatx: unknown floatx {floatx!r}; it is one of {', '.join(FLOATS)}")
    _config.floatx = str(floatx)


def cast_to_floatx(x: Any) -> np.ndarray[Any, Any]:
    """An array as an array of floatx."""
    return np.asarray(x, dtype=_config.floatx)


def image_data_format() -> str:
    """The default order of image axes: 'channels_last' or 'channels_first'."""
    return _config.image_data_format


def set_image_data_format(data_format: str) -> None:
    """Sets the default order of image axes.  Raises ArgumentError for any other name."""
    if data_format not in FORMATS:
        raise ArgumentError(f"K.set_image_data_format: unknown data_format {data_format!r}; "
                            f"it is one of {', '.join(FORMATS)}")
    _config.image_data_format = str(data_format)


def normalize_data_format(value: str | None) -> str:
    """'channels_last' or 'channels_first': the default for None, the new name for the older 'tf' and 'th'.

    Raises: ArgumentError for anything else.
    """
    if value is None:
        return _config.image_data_format
    lowered = str(value).lower()
    lowered = _OLD_FORMATS.get(lowered, lowered)
    if lowered not in FORMATS:
        raise ArgumentError(f'data_format is one of "channels_first", "channels_last"; received {value!r}')
    return lowered


def symbolic(func: _F) -> _F:
    """`func` itself: everything is symbolic here.  A decorator of Keras 2.3.1."""
    return func


def eager(func: _F) -> _F:
    """`func` itself: nothing is eager here.  A decorator of Keras 2.3.1."""
    return func


def read_config(path: Path) -> None:
    """Takes floatx, epsilon and image_data_format from a keras.json; warns of values that are not valid."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if not isinstance(found, dict):
        return

    setters: dict[str, Callable[[Any], None]] = {"floatx": set_floatx, "epsilon": set_epsilon,
                                                 "image_data_format": set_image_data_format}
    for key, setter in setters.items():
        if key not in found:
            continue
        try:
            setter(found[key])
        except (TypeError, ValueError) as error:
            warnings.warn(f"{path}: {key} is ignored: {error}", stacklevel=2)


def config_path() -> Path:
    """Where keras.json is looked for."""
    home = settings.KERAS_HOME.text or os.path.join("~", ".keras")
    return Path(os.path.expanduser(home)) / "keras.json"


read_config(config_path())
