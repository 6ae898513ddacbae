"""Depth of the images of a pairs file, from the sequence they belong to."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.sequences.base import FolderSequence
from superglue_ros.errors import DataError

_KEPT = 8  # neighbouring pairs share images


class FrameDepths:
    """Depth maps of a sequence by image file; read when asked for, the last few are kept.

    Raises :class:`DataError` where the images have lens distortion, which pairs files cannot say.
    """

    def __init__(self, sequence: FolderSequence) -> None:
        if sequence.distorted:
            raise DataError(
                f"the images of {sequence.name} are distorted: give the folder that "
                f"make-pairs --rectified wrote as --depth"
            )
        self._sequence = sequence
        self._index = {path.resolve(): i for i, path in enumerate(sequence.image_paths)}
        self._kept: OrderedDict[int, NDArray[np.float32]] = OrderedDict()

    def of(self, image: Path) -> NDArray[np.float32]:
        """Depth (H, W) of an image file, in the unit of the poses, 0 or NaN = missing.

        Raises :class:`DataError` where the sequence has no such image, or no depth for it.
        """
        index = self._index.get(image.resolve())
        if index is None:
            raise DataError(
                f"{image} is no image of sequence {self._sequence.name}: give the sequence that "
                f"the pairs were made from as --depth"
            )
        if index not in self._kept:
            depth = self._sequence[index].depth
            if depth is None:
                raise DataError(f"{image} has no depth in {self._sequence.name}: omit --depth")
            self._kept[index] = depth
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(index)
        return self._kept[index]
