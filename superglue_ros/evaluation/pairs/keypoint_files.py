"""Keypoints of an outside detector, from files named like the images."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.arrays import load_arrays
from superglue_ros.errors import DataError
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


def read_keypoints(folder: Path, name: str) -> KeypointFile:
    """Keypoints of image ``name`` from ``folder``/``name``.npz (or .txt, .csv: x y [score]).

    npz arrays: ``keypoints`` (N, 2), optional ``scores`` (N,), ``descriptors`` (N, D) and
    ``detector`` (the descriptors' kind). Pixels of the image as evaluated. Raises
    :class:`DataError`.
    """
    stem = folder / name
    candidates = [
        base.with_name(base.name + ending)
        for base in (stem, stem.with_suffix(""))
        for ending in (".npz", ".txt", ".csv")
    ]
    file = next((path for path in candidates if os.path.isfile(path)), None)  # False: too long
    if file is None:
        raise DataError(f"no keypoints for image {name}: neither {candidates[0]} nor .txt, .csv")
    try:
        if file.suffix == ".npz":
            content = load_arrays(file)
            points = content["keypoints"].reshape(-1, 2).astype(np.float32)
            scores = np.asarray(content.get("scores", np.ones(len(points))), np.float32)
            descriptors = content.get("descriptors")
            if descriptors is not None:
                descriptors = descriptors.astype(np.float32)
            return KeypointFile(points, scores, descriptors, str(content.get("detector", "file")))
        delimiter = "," if file.suffix == ".csv" else None
        rows = np.loadtxt(file, delimiter=delimiter, ndmin=2, dtype=np.float32)
        rows = rows.reshape(len(rows), -1)
        if rows.size and rows.shape[1] not in (2, 3):
            raise ValueError("give x y or x y score per line")
        points = rows[:, :2].reshape(-1, 2)
        given = rows[:, 2] if rows.size and rows.shape[1] == 3 else np.ones(len(points))
        return KeypointFile(points, np.asarray(given, np.float32), None, "")
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise DataError(f"{file} cannot be read as keypoints: {error}") from error
