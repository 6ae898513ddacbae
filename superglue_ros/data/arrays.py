"""NumPy archives (``.npz``), read without executing code from them and within a bound of memory.

``numpy.load`` allocates what a header declares, raises errors of five libraries on damage, and with
``allow_pickle=True`` executes arbitrary code. Data sets with lists of paths, with None for missing
ones, need only arrays, strings and None: nothing else is allowed here.
"""

from __future__ import annotations

import pickle
import sys
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from superglue_ros.errors import DataError
from superglue_ros.files import open_regular

MAX_BYTES = 256 << 20
"""Of all arrays that are read, unpacked."""
_MAX_FILE = 4 << 30

_ALLOWED = {
    (module, name)
    for name in ("_reconstruct", "scalar")
    for module in ("numpy.core.multiarray", "numpy._core.multiarray")
} | {("numpy", "ndarray"), ("numpy", "dtype")}


def load_arrays(
    path: str | Path, names: Collection[str] = (), objects: bool = False
) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file by name; ``names``: those of these names only, where present.

    ``objects`` allows arrays of strings and None. Raises :class:`DataError`, also where the file is
    missing or the arrays take more than ``MAX_BYTES``.
    """
    try:
        with open_regular(path, _MAX_FILE) as opened, zipfile.ZipFile(opened) as archive:
            entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            wanted = {k: entry for k, entry in entries.items() if not names or k in names}
            size = sum(entry.file_size for entry in wanted.values())
            if size > MAX_BYTES:
                raise ValueError(f"its arrays take {size} bytes, the limit is {MAX_BYTES}")
            return {name: _read(archive, entry, objects) for name, entry in wanted.items()}
    except Exception as error:  # of three formats in one another, on any bytes
        raise DataError(f"{path} cannot be read as a NumPy archive: {error}") from error


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, objects: bool) -> NDArray[Any]:
    with archive.open(entry) as file:
        version = npy.read_magic(file)
        headers: dict[tuple[int, int], Callable[[Any], Any]] = {
            (1, 0): npy.read_array_header_1_0,
            (2, 0): npy.read_array_header_2_0,
        }
        if version not in headers:
            raise ValueError(f"version {version} of the array format is unknown")
        shape, fortran, dtype = headers[version](file)
        if dtype.hasobject:
            if not objects:
                raise ValueError(f"{entry.filename} holds objects, which no such file needs")
            array = _Restricted(file).load()
            if not isinstance(array, np.ndarray):
                raise ValueError("an object that is no array")
            return array.reshape(shape)
        values = np.frombuffer(bytearray(file.read()), dtype)
        if dtype.kind == "U" and values.size:
            codes = values.view(np.dtype(np.uint32).newbyteorder(dtype.byteorder))
            if codes.max() > sys.maxunicode:  # of which Python can make no text
                raise ValueError(f"{entry.filename} holds characters that there are not")
        return values.reshape(shape, order="F" if fortran else "C")


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data needs")
        return super().find_class(module, name)
