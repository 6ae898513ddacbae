"""The work of a run: its images and pairs cut into shards, and the folder where they end up.

A shard is one file, written whole and renamed: that it is there means that it is done. What a
folder was made with is written down, so that nobody goes on with other images or settings.

    run.json                    what the folder was made with
    features/000000.safetensors features of IMAGES images
    matches/000000.parquet      the pairs of a shard
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import DataError
from superglue_ros.evaluation.pairs.predictions import differences, digest
from superglue_ros.files import replace_atomically
from superglue_ros.image_pairs.selection import Selection

IMAGES = 64
"""In a file of features, and along the side of a tile of pairs."""


@dataclass(frozen=True, eq=False)
class Work:
    """Images ``names`` below ``images``; ``pairs`` (M, 2) int32 in the order of the work.

    ``shard`` pairs make a file of results; all is written below ``output``.
    """

    images: Path
    names: list[str]
    pairs: NDArray[np.int32]
    shard: int
    output: Path

    @classmethod
    def of(cls, selection: Selection, shard: int, output: Path) -> Work:
        """The selected pairs once each, whichever of its two images comes first.

        Pairs of near-by images come together, in tiles, so that their features are read together.
        """
        pairs = selection.pairs
        low, high = pairs.min(axis=1).astype(np.int64), pairs.max(axis=1)
        _, first = np.unique(low * len(selection.names) + high, return_index=True)
        pairs = pairs[np.sort(first)]
        tiles = pairs // IMAGES
        order = np.lexsort((pairs[:, 1], pairs[:, 0], tiles[:, 1], tiles[:, 0]))
        return cls(
            images=selection.folder,
            names=selection.names,
            pairs=pairs[order],
            shard=shard,
            output=output,
        )

    @property
    def features(self) -> Path:
        """The folder of features."""
        return self.output / "features"

    @property
    def matches(self) -> Path:
        """The folder of results, which is a Parquet data set."""
        return self.output / "matches"

    def feature_shards(self) -> dict[int, range]:
        """The images of every file of features that is still to be written, by its number."""
        found = {
            number: range(start, min(start + IMAGES, len(self.names)))
            for number, start in enumerate(range(0, len(self.names), IMAGES))
        }
        return {k: v for k, v in found.items() if not feature_file(self.features, k).exists()}

    def match_shards(self) -> dict[int, NDArray[np.int32]]:
        """The pairs (K, 2) of every file of results that is still to be written, by its number."""
        found = {
            number: self.pairs[start : start + self.shard]
            for number, start in enumerate(range(0, len(self.pairs), self.shard))
        }
        return {k: v for k, v in found.items() if not match_file(self.matches, k).exists()}

    def prepare(self, made_by: Mapping[str, Any]) -> None:
        """Make the folders, or go on in them; what a process left when it was killed is removed.

        ``made_by``: all else that the results depend on. Raises :class:`DataError` where the folder
        was made with other pairs or settings.
        """
        wanted = {
            **made_by,
            "images": str(self.images.resolve()),
            "names": digest(self.names),
            "pairs": digest([self.pairs.tobytes().hex()]),
            "shard": self.shard,
        }
        wanted = json.loads(json.dumps(wanted))
        file = self.output / "run.json"
        if file.is_file():
            try:
                changed = differences(json.loads(file.read_text(encoding="utf-8")), wanted)
            except ValueError as error:
                raise DataError(f"{file} is damaged: give another --output") from error
            if changed:
                raise DataError(
                    f"{self.output} was made with other pairs or settings "
                    f"({'; '.join(changed[:5])}): give another --output"
                )
        for folder in (self.features, self.matches):
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(".*.tmp"):
                left.unlink(missing_ok=True)
        text = json.dumps(wanted, indent=1, sort_keys=True) + "\n"

        def write(name: str) -> None:
            Path(name).write_text(text, encoding="utf-8")

        replace_atomically(file, write)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs out of the folder; the system ends this when the process ends, however.

        Raises :class:`DataError` where a run is at work in the folder.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.output / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DataError(f"another run is at work in {self.output}: wait for it") from error
            yield
        finally:
            os.close(handle)


def feature_file(folder: Path, number: int) -> Path:
    """A file of features."""
    return folder / f"{number:06d}.safetensors"


def match_file(folder: Path, number: int) -> Path:
    """A file of results."""
    return folder / f"{number:06d}.parquet"
