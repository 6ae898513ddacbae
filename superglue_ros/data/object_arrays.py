"""NumPy archives with arrays of Python objects, read without executing code from them.

``numpy.load(allow_pickle=True)`` executes arbitrary code from a file. Data sets with lists of
paths, with None for missing ones, need only arrays, strings and None: nothing else is allowed
here.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from superglue_ros.errors import DataError

_ALLOWED = {
    (module, name)
    for name in ("_reconstruct", "scalar")
    for module in ("numpy.core.multiarray", "numpy._core.multiarray")
} | {("numpy", "ndarray"), ("numpy", "dtype")}
_ERRORS = (
    OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, IndexError, MemoryError,
    pickle.UnpicklingError, zipfile.BadZipFile, NotImplementedError, ImportError,
)  # fmt: skip


def load_object_arrays(path: str | Path) -> dict[str, NDArray[Any]]:
    """All arrays of an ``.npz`` file by name. Raises :class:`DataError`."""
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    arrays[name.removesuffix(".npy")] = _read(file)
    except _ERRORS as error:
        raise DataError(f"{path} cannot be read as a NumPy archive: {error}") from error
    return arrays


def _read(file: Any) -> NDArray[Any]:
    version = npy.read_magic(file)
    headers: dict[tuple[int, int], Callable[[Any], Any]] = {
        (1, 0): npy.read_array_header_1_0,
        (2, 0): npy.read_array_header_2_0,
    }
    if version not in headers:
        raise ValueError(f"version {version} of the array format is unknown")
    shape, fortran, dtype = headers[version](file)
    if not dtype.hasobject:
        values = np.frombuffer(file.read(), dtype)
        return values.reshape(shape, order="F" if fortran else "C")
    array = _Restricted(file).load()
    if not isinstance(array, np.ndarray):
        raise ValueError("an object that is no array")
    return array.reshape(shape)


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data needs")
        return super().find_class(module, name)
