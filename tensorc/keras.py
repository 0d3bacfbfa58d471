"""The module that Keras 2.3.1 runs on: `KERAS_BACKEND=tensorc.keras`.

It offers the names of `tensorc.backend`.  When Keras is what imports it, and only then, it also

- leaves floatx, epsilon and the order of image axes to Keras, which keeps them itself;
- gives back to Python, NumPy and h5py what they had in 2019 and Keras uses.  Each is something that is an error
  in the libraries of today, so whatever else runs in the process goes on as before.
"""

import collections
import collections.abc
import os
import sys
from types import ModuleType
from typing import Any

import numpy as np

from tensorc.backend import *  # noqa: F403  Keras takes all that it finds
from tensorc.backend import config


class KerasSettings:
    """The settings that `common`, which is the module `keras.backend.common`, keeps."""

    def __init__(self, common: Any) -> None:
        self._common = common

    @property
    def floatx(self) -> str:
        name: str = self._common.floatx()
        return name

    @floatx.setter
    def floatx(self, name: str) -> None:
        self._common.set_floatx(name)

    @property
    def epsilon(self) -> float:
        value: float = self._common.epsilon()
        return value

    @epsilon.setter
    def epsilon(self, value: float) -> None:
        self._common.set_epsilon(value)

    @property
    def image_data_format(self) -> str:
        name: str = self._common.image_data_format()
        return name

    @image_data_format.setter
    def image_data_format(self, name: str) -> None:
        self._common.set_image_data_format(name)


class Text(str):
    """The text of an HDF5 attribute.  It was bytes in h5py 2, so Keras decodes it."""

    __slots__ = ()

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The text itself, which h5py 3 has decoded."""
        return str(self)


def restore_collections() -> None:
    """The abstract classes that left `collections` for `collections.abc`; Keras asks what is a Mapping or Sequence."""
    for name in collections.abc.__all__:
        if not hasattr(collections, name):
            setattr(collections, name, getattr(collections.abc, name))


def restore_numpy() -> None:
    """The spellings that NumPy 2 dropped: Inf in callbacks, string_ where files are read, unicode_ for sequences."""
    for name, value in {"Inf": np.inf, "string_": np.bytes_, "unicode_": np.str_}.items():
        if not hasattr(np, name):
            setattr(np, name, value)


def restore_h5py() -> None:
    """What h5py 2 had: text in attributes that can be decoded, `File.fid`, and new files where no mode is given."""
    try:
        import h5py
    except ImportError:     # Keras does without until it is to save
        return
    read, opened = h5py.AttributeManager.__getitem__, h5py.File.__init__

    def getitem(attributes: Any, name: Any) -> Any:
        value = read(attributes, name)
        if isinstance(value, np.ndarray) and value.dtype == object:
            return np.frompyfunc(_decodable, 1, 1)(value)
        return _decodable(value)

    def init(file: Any, name: Any, *mode: Any, **options: Any) -> None:
        try:
            opened(file, name, *mode, **options)
        except OSError:
            missing = isinstance(name, str | bytes | os.PathLike) and not os.path.exists(name)
            if mode or "mode" in options or not missing:
                raise
            opened(file, name, mode="w-", **options)

    h5py.AttributeManager.__getitem__ = getitem
    h5py.File.__init__ = init
    if not hasattr(h5py.File, "fid"):
        h5py.File.fid = property(lambda file: file.id)


def _decodable(value: Any) -> Any:
    return Text(value) if type(value) is str else value


loader: ModuleType | None = sys.modules.get("keras.backend.load_backend")
if getattr(loader, "_BACKEND", None) == __name__:
    config.keep_in(KerasSettings(sys.modules["keras.backend.common"]))
    restore_collections()
    restore_numpy()
    restore_h5py()
