"""Features and matches of other programs: a database of COLMAP, or hloc's two HDF5 files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from superglue_ros.errors import DataError, FeaturesError
from superglue_ros.reconstruction.store import PairMatches, Store, check_version
from superglue_ros.types import Features


def copy_database(source: Path, target: Path) -> None:
    """A database of COLMAP as it is, with its cameras. Raises :class:`DataError`."""
    if not source.is_file():
        raise DataError(f"database {source} does not exist")
    check_version(source)
    origin, copy = sqlite3.connect(source), sqlite3.connect(target)
    try:
        origin.backup(copy)
    finally:
        origin.close()
        copy.close()


def read_hloc(features: Path, matches: Path, names: Sequence[str], store: Store) -> None:
    """Hloc's features and matches of the images ``names`` into a store.

    Images must be in the store; pairs of other images are left out. Raises :class:`DataError`
    naming the file and the image or pair that is missing or malformed.
    """
    images = store.images
    with _open(features) as file:
        for name in names:
            if name not in file:
                raise DataError(f"{features} has no features of {name}")
            store.write_features({images[name]: _features(file[name], f"{features}, {name}")})
    by_key = {name.replace("/", "-"): name for name in names}
    if len(by_key) < len(names):
        raise DataError("hloc cannot tell apart images whose names differ only in / and -")
    with _open(matches) as file:
        store.write_matches(_pairs(file, matches, by_key, store))


def _open(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"{path} needs h5py: pip install h5py") from error
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path} cannot be read as HDF5: {error}") from error


def _features(group: Any, where: str) -> Features:
    try:
        keypoints = np.asarray(group["keypoints"], np.float32).reshape(-1, 2)
        width, height = (int(value) for value in np.asarray(group["image_size"]))
        descriptors = (
            np.asarray(group["descriptors"], np.float32).T if "descriptors" in group else None
        )
        scores = np.asarray(group["scores"], np.float32) if "scores" in group else None
        return Features(
            keypoints=keypoints,
            scores=np.ones(len(keypoints), np.float32) if scores is None else scores,
            width=width,
            height=height,
            detector="hloc",
            descriptors=descriptors,
        )
    except (KeyError, ValueError, TypeError, FeaturesError) as error:
        raise DataError(f"{where}: no features as hloc writes them: {error}") from error


def _pairs(file: Any, path: Path, names: dict[str, str], store: Store) -> Iterator[PairMatches]:
    images = store.images
    counts = {name: len(store.features(images[name])) for name in names.values()}
    for first in file:
        for second, group in file[first].items():
            if first not in names or second not in names:
                continue
            ends = [names[first], names[second]]
            partners = np.asarray(group["matches0"]).astype(np.int64)
            if len(partners) != counts[ends[0]] or partners.max(initial=-1) >= counts[ends[1]]:
                raise DataError(
                    f"{path}, {first}/{second}: its matches do not fit the features: take both "
                    f"files of one run"
                )
            kept = np.flatnonzero(partners >= 0)
            index = np.stack([kept, partners[kept]], axis=1).astype(np.int32)
            numbers = [images[end] for end in ends]
            if numbers[0] > numbers[1]:
                numbers, index = numbers[::-1], index[:, ::-1]
            scores = np.asarray(group["matching_scores0"], np.float32)[kept]
            yield PairMatches(
                image0=numbers[0],
                image1=numbers[1],
                index=index,
                scores=scores,
                offset=np.zeros((len(kept), 2), np.float32),
                sigma_px=np.ones(len(kept), np.float32),
            )
