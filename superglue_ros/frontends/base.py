"""The interface of a front-end.

A front-end detects and describes, or describes pixels from another detector. ``detector``
names the kind of its descriptors; a matcher refuses a kind it was not made for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from superglue_ros.config import Config, FrontEndConfig
from superglue_ros.registry import FRONT_ENDS
from superglue_ros.types import Features, FloatArray

GreyImage = NDArray[np.uint8]


class FrontEnd(Protocol):
    """The interface of a front-end; ``test/contract`` specifies it.

    ``precision``: the precision in effect, as in the setting of that name. ``exact``: its keypoints
    are localised so well that refining matches by the images would only add noise. ``graphed``: its
    work runs as CUDA graphs.
    """

    detector: str
    descriptor_dim: int
    exact: bool = False
    graphed: bool = False

    @property
    def precision(self) -> str:
        """Of the network, if there is one."""

    def extract(self, image: GreyImage) -> Features:
        """Detect and describe: the best ``max_keypoints`` of a grey (H, W) uint8 image."""
        ...

    def extract_all(self, images: Sequence[GreyImage]) -> list[Features]:
        """The same for several images of any size; a network batches those of equal size."""
        return [self.extract(image) for image in images]

    def describe(self, image: GreyImage, keypoints: FloatArray) -> Features:
        """Describe given pixels (N, 2), in the given order, all of them; scores are 1."""
        ...

    def configure(self, config: FrontEndConfig) -> None:
        """Apply new settings from the next image on; fixed settings do not change."""
        ...


def make_front_end(config: Config, device: torch.device) -> FrontEnd:
    """The front-end that ``config.front_end`` names. Raises :class:`ConfigError`."""
    made: FrontEnd = FRONT_ENDS.make(config.front_end.name, config, device)
    return made


def inside(points: FloatArray, width: int, height: int) -> FloatArray:
    """Clip keypoints that sub-pixel refinement moved out of the image."""
    return np.clip(points, -0.5, np.array([width - 0.5, height - 0.5], np.float32))
