"""Keypoints of an outside detector, from files in the formats that networks are published with.

Our own (npz, text), those of D2-Net, R2D2, ContextDesc and GeoDesc, and hloc's HDF5.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.arrays import MAX_BYTES, load_arrays
from superglue_ros.errors import DataError
from superglue_ros.files import open_regular
from superglue_ros.frontends.base import FrontEnd, GreyImage
from superglue_ros.types import Features


class KeypointFiles:
    """Keypoints of an outside detector; ``describer`` describes those without descriptors."""

    def __init__(self, folder: Path, describer: FrontEnd, max_keypoints: int) -> None:
        self._folder = folder
        self._describer = describer
        self._limit = max_keypoints

    def extract(self, image: GreyImage, name: str) -> Features:
        """The best ``max_keypoints`` in the file of the grey (H, W) uint8 image ``name``."""
        given = read_keypoints(self._folder, name)
        height, width = image.shape
        best, _ = Features(
            keypoints=given.points,
            scores=given.scores,
            width=width,
            height=height,
            detector=given.detector,
            descriptors=given.descriptors,
        ).best(self._limit)
        if best.descriptors is not None:
            return best
        return replace(self._describer.describe(image, best.keypoints), scores=best.scores)


@dataclass(frozen=True, eq=False)
class KeypointFile:
    """Points (N, 2), scores (N,), descriptors (N, D) or None, and the descriptors' kind."""

    points: NDArray[np.float32]
    scores: NDArray[np.float32]
    descriptors: NDArray[np.float32] | None
    detector: str


def read_keypoints(source: Path, name: str) -> KeypointFile:
    """Keypoints of image ``name`` from ``source``; pixels of the image as evaluated.

    - a folder: ``name``.npz, or .txt, .csv with x y [score] per line; else the one other file that
      begins with ``name``, such as ``name``.d2-net, ``name``.r2d2, ``name``.h5: a NumPy archive or
      HDF5, whatever its ending;
    - a pattern ``FOLDER/*.ENDING``: that file, where several networks' files lie side by side;
    - an HDF5 file with a group for every image, as hloc writes it;
    - a folder with ``keypoints.h5`` and ``descriptors.h5``, which hold an array for every image
      (by its name with or without the ending), as the Image Matching Workshop asks for it.

    Arrays: ``keypoints`` (N, 2 or more, x y first), optional ``scores`` (N,), ``descriptors``
    (N, D), of hloc (D, N), and ``detector``, the descriptors' kind, which otherwise is the ending
    or the name of the HDF5 file. Scores above 1 are divided by the largest. Raises
    :class:`DataError`.
    """
    file = _file_of(source, name)
    try:
        if file.suffix in (".txt", ".csv"):
            return _from_text(file)
        if file.suffix == ".npz":
            return _from_arrays(load_arrays(file), "file")
        kind = file.name.removeprefix(Path(name).name).lstrip(".") or file.stem
        if not _is_hdf5(file):
            return _from_arrays(load_arrays(file), kind)
        if file.name == _MANY[0]:
            return _from_arrays(_many_files(file.parent, name), file.parent.name)
        return _from_arrays(_hdf5(file, name), kind if source.is_dir() else file.stem)
    except DataError:
        raise
    except (KeyError, ValueError, TypeError, OSError, IndexError) as error:
        raise DataError(f"{file} cannot be read as keypoints: {error}") from error


_MANY = ("keypoints.h5", "descriptors.h5", "scores.h5")
_MAX_BYTES = 64 << 30  # of one HDF5 file of all images; only one image's arrays are read
_HDF5 = b"\x89HDF\r\n\x1a\n"


def _file_of(source: Path, name: str) -> Path:
    """The file that holds the keypoints of image ``name``."""
    if os.path.isfile(source):
        return source
    folder, ending = source, ""
    if source.name.startswith("*."):
        folder, ending = source.parent, source.name[1:]
    stem = folder / name
    bases = (stem, stem.with_suffix(""))
    endings = (ending,) if ending else (".npz", ".txt", ".csv")
    candidates = [base.with_name(base.name + one) for base in bases for one in endings]
    for path in candidates:
        if os.path.isfile(path):  # False where the name is too long
            return path
    if not ending and os.path.isfile(folder / _MANY[0]):
        return folder / _MANY[0]
    others = [] if ending or not os.path.isdir(stem.parent) else _beginning(stem)
    if len(others) == 1:
        return others[0]
    if others:
        names = ", ".join(path.name for path in others[:4])
        raise DataError(f"{name} has several files of keypoints ({names}): give {folder}/*.ENDING")
    what = "" if ending else " nor .txt, .csv"
    raise DataError(f"no keypoints for image {name}: neither {candidates[0]}{what}")


def _beginning(stem: Path) -> list[Path]:
    start = f"{stem.name}."
    return sorted(p for p in stem.parent.iterdir() if p.name.startswith(start) and p.is_file())


def _from_text(file: Path) -> KeypointFile:
    delimiter = "," if file.suffix == ".csv" else None
    rows = np.loadtxt(file, delimiter=delimiter, ndmin=2, dtype=np.float32)
    rows = rows.reshape(len(rows), -1)
    if rows.size and rows.shape[1] not in (2, 3):
        raise ValueError("give x y or x y score per line")
    points = rows[:, :2].reshape(-1, 2)
    given = rows[:, 2] if rows.size and rows.shape[1] == 3 else np.ones(len(points))
    return KeypointFile(points, np.asarray(given, np.float32), None, "")


def _from_arrays(content: Mapping[str, NDArray[Any]], kind: str) -> KeypointFile:
    points = np.asarray(content["keypoints"], np.float32)
    points = points[:, :2] if points.ndim == 2 and points.shape[1] > 2 else points.reshape(-1, 2)
    scores = np.asarray(content.get("scores", np.ones(len(points))), np.float32).reshape(-1)
    largest = float(scores.max(initial=0.0))
    if largest > 1:
        scores = scores / np.float32(largest)
    descriptors = content.get("descriptors")
    if descriptors is not None:
        descriptors = np.ascontiguousarray(descriptors, np.float32)
    return KeypointFile(points, scores, descriptors, str(content.get("detector", kind)))


def _is_hdf5(file: Path) -> bool:
    with open_regular(file, _MAX_BYTES) as opened:
        return opened.read(len(_HDF5)) == _HDF5


def _hdf5(file: Path, name: str) -> dict[str, NDArray[Any]]:
    """The arrays of an image: of its group, or of the file where it has no groups."""
    with _opened(file) as content:
        group = content if "keypoints" in content else _entry(content, file, name)
        names = ("keypoints", "scores", "descriptors")
        arrays = {key: _array(group[key]) for key in names if key in group}
        if group is not content and "descriptors" in arrays:
            arrays["descriptors"] = arrays["descriptors"].T  # hloc's (D, N)
        return arrays


def _many_files(folder: Path, name: str) -> dict[str, NDArray[Any]]:
    arrays = {}
    for file in _MANY:
        if os.path.isfile(folder / file):
            with _opened(folder / file) as content:
                arrays[file.removesuffix(".h5")] = _array(_entry(content, folder / file, name))
    return arrays


def _entry(content: Any, file: Path, name: str) -> Any:
    for key in (name, str(Path(name).with_suffix("")), Path(name).name, Path(name).stem):
        if key in content:
            return content[key]
    raise DataError(f"no keypoints for image {name}: {file} has no entry of that name")


def _array(dataset: Any) -> NDArray[Any]:
    """A dataset of moderate size; it may declare more than it holds."""
    if dataset.size * dataset.dtype.itemsize > MAX_BYTES or dataset.dtype.kind not in "fiu":
        raise ValueError(f"{dataset.name} is no array of numbers of moderate size")
    return np.asarray(dataset)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """An HDF5 file; raises :class:`DataError` without h5py and on whatever is wrong inside."""
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"{file} needs h5py: pip install h5py") from error
    try:
        with h5py.File(file, "r") as content:
            yield content
    except DataError:
        raise
    except Exception as error:  # a parser of a foreign format, on any bytes
        raise DataError(f"{file} cannot be read as keypoints: {error}") from error
