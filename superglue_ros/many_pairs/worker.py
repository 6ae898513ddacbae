"""What a process does with a shard: images to features, or pairs to matches.

Both yield how much more is done, and end with a file. Nothing here knows of Ray.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from superglue_ros.config import Config
from superglue_ros.errors import DataError, SuperglueError
from superglue_ros.evaluation.pairs.images import read_grey
from superglue_ros.geometry.camera import Camera
from superglue_ros.image_pairs.matching import BATCH, ImageMatcher, ImagePair
from superglue_ros.many_pairs.features import StoredFeatures, write_features
from superglue_ros.many_pairs.results import Row, write_matches
from superglue_ros.many_pairs.work import feature_file, match_file
from superglue_ros.mapping.keyframes import Keyframe
from superglue_ros.rig import attempt


@dataclass(frozen=True, eq=False)
class Job:
    """What all processes of a run know: where images lie, where results go, and the settings.

    ``batch`` pairs go through the network together; ``threads`` of the processor belong to a
    process; ``camera`` is that of all images, or None.
    """

    images: Path
    features: Path
    matches: Path
    config: Config
    camera: Camera | None
    batch: int
    threads: int


class Worker:
    """One process with its networks; it holds nothing that is lost with it but its shard."""

    def __init__(self, job: Job, names: Sequence[str]) -> None:
        self._job = job
        self._names = names

    def start(self) -> int:
        """Load the networks; returns the number of the process.

        Raises :class:`ConfigError` and :class:`WeightsError`.
        """
        torch.set_num_threads(self._job.threads)
        cv2.setNumThreads(self._job.threads)
        self._matcher = ImageMatcher(self._job.config)
        self._stored = StoredFeatures(self._job.features, self._matcher.ready, self._job.camera)
        return os.getpid()

    def encode(self, number: int, places: range) -> Iterator[int]:
        """The features of the images ``places``; an image that cannot be used is noted as such."""
        outcomes: list[Keyframe | SuperglueError] = []
        for start in range(0, len(places), BATCH):
            outcomes += self._encoded([self._names[i] for i in places[start : start + BATCH]])
            yield len(outcomes) - start
        write_features(feature_file(self._job.features, number), outcomes)

    def match(self, number: int, pairs: NDArray[np.int32]) -> Iterator[int]:
        """The matches of ``pairs`` (K, 2) of places of images."""
        rows: list[Row] = []
        for start in range(0, len(pairs), self._job.batch):
            rows += self._matched(pairs[start : start + self._job.batch])
            yield len(rows) - start
        file = match_file(self._job.matches, number)
        write_matches(file, rows, with_poses=self._job.camera is not None)

    def _encoded(self, names: Sequence[str]) -> list[Keyframe | SuperglueError]:
        """Errors name the image."""
        read = [attempt(read_grey, self._job.images / name) for name in names]
        images = [one for one in read if not isinstance(one, SuperglueError)]
        encoded = self._matcher.encode(images, [self._job.camera] * len(images))
        found = [one if isinstance(one, SuperglueError) else next(encoded) for one in read]
        return [
            DataError(f"{name}: {one}")
            if isinstance(one, SuperglueError) and name not in str(one)
            else one
            for name, one in zip(names, found, strict=True)
        ]

    def _matched(self, pairs: NDArray[np.int32]) -> list[Row]:
        outcomes = [(self._stored[i], self._stored[j]) for i, j in pairs.tolist()]
        good = [(a, b) for a, b in outcomes if isinstance(a, Keyframe) and isinstance(b, Keyframe)]
        matched = iter(self._matcher.match_encoded(good))
        rows: list[Row] = []
        for (i, j), (a, b) in zip(pairs.tolist(), outcomes, strict=True):
            found: ImagePair | SuperglueError
            if isinstance(a, SuperglueError):
                found = a
            elif isinstance(b, SuperglueError):
                found = b
            else:
                found = next(matched)
            rows.append((self._names[i], self._names[j], found))
        return rows
