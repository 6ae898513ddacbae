"""From images to keypoints with descriptors, around the maps that an engine of SuperPoint computes.

:class:`Detector` goes step by step and asks the device how many keypoints there are.
:class:`GraphedDetector` does all of it in one CUDA graph and asks nothing: its arrays always have
room for the most keypoints.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from superglue_ros.engines.graphs import FixedFunction, GraphError, Transfers
from superglue_ros.engines.precision import MapsImages
from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.networks.superpoint import (
    best_pixels,
    detect_keypoints,
    non_maximum_suppression,
    refine_keypoints,
    sample_descriptors,
)

log = logging.getLogger(__name__)

_SUBPIXEL_RADIUS = 2
_SIZES = 8
"""Sizes of images that are recorded; more than a rig of cameras has."""


@dataclass(frozen=True)
class Detection:
    """What to detect; the names are those of :class:`~superglue_ros.config.FrontEndConfig`.

    ``exact``: how descriptors are sampled, see
    :class:`~superglue_ros.networks.superpoint.SuperPointConfig`.
    """

    max_keypoints: int
    threshold: float
    nms_radius: int
    border: int
    subpixel: bool
    exact: bool

    @property
    def subpixel_radius(self) -> int:
        """Of the square around a keypoint, which must be clear of other keypoints."""
        return min(_SUBPIXEL_RADIUS, self.nms_radius)


@dataclass(frozen=True, eq=False)
class Detected:
    """Features of one image at the network's size, best first.

    ``keypoints`` (N, 2) float32 pixels, ``scores`` (N,), ``descriptors`` (N, D) float32;
    ``on_device``: the descriptors as a tensor where the device keeps them, else None.
    """

    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    on_device: Tensor | None = None


class Detector:
    """The plain way, with any engine."""

    graphed = False

    def __init__(self, engine: MapsImages, device: torch.device) -> None:
        self.engine = engine
        self.device = device

    @torch.inference_mode()
    def __call__(
        self, images: NDArray[np.uint8], height: int, width: int, settings: Detection
    ) -> list[Detected]:
        """Features of every image.

        ``images`` (B, H, W) grey, H and W multiples of 8; only keypoints in the first ``height``
        rows and ``width`` columns count.
        """
        pixels = torch.from_numpy(images).to(self.device).unsqueeze(1)
        probability, dense = self.engine.maps(pixels.float() / 255)
        found = []
        for one, descriptors in zip(probability[:, None, :height, :width], dense, strict=True):
            ((keypoints, scores),) = detect_keypoints(
                one,
                settings.max_keypoints,
                settings.threshold,
                settings.nms_radius,
                settings.border,
            )
            if settings.subpixel:
                keypoints = refine_keypoints(one[0], keypoints, settings.subpixel_radius)
            sampled = sample_descriptors(keypoints[None], descriptors[None], settings.exact)[0]
            xy, values, rows = (x.float().cpu().numpy() for x in (keypoints, scores, sampled))
            found.append(Detected(xy, values, rows))
        return found


class GraphedDetector(Detector):
    """:class:`Detector` whose work on one size of images is one CUDA graph.

    A size is recorded when it comes a second time, as those of a camera do. The results are those
    of :class:`Detector`; sizes beyond the first few, and all where recording fails, run as there.
    """

    def __init__(self, engine: SuperPointEngine, device: torch.device) -> None:
        super().__init__(engine, device)
        self.graphed = True
        self._network = engine
        self._exact = engine.dtype == torch.float32 and not engine.tf32
        self._transfers = Transfers(device)
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._once: set[Hashable] = set()
        self._recorded: dict[Hashable, FixedFunction] = {}
        self._settings: Detection | None = None

    @torch.inference_mode()
    def __call__(
        self, images: NDArray[np.uint8], height: int, width: int, settings: Detection
    ) -> list[Detected]:
        """See :class:`Detector`."""
        if settings != self._settings:
            self._settings = settings
            self._recorded.clear()
        key = (images.shape, height, width)
        if not self.graphed or (key not in self._recorded and not self._comes_again(key)):
            return super().__call__(images, height, width, settings)
        try:
            if key in self._recorded:
                return self._replay(self._recorded[key], images)
            function = self._record(images, height, width, settings)
            found = self._replay(function, images)
            expected = super().__call__(images, height, width, settings)
            if not _alike(found, expected, 0.99 if self._exact else 0.9):
                raise GraphError("keypoints are not those of the eager way")
        except GraphError as error:
            log.warning("SuperPoint runs without CUDA graphs: %s", error)
            self.graphed = False
            self._recorded.clear()
            return super().__call__(images, height, width, settings)
        self._recorded[key] = function
        return found

    def _replay(self, function: FixedFunction, images: NDArray[np.uint8]) -> list[Detected]:
        self._transfers.upload(images, function.inputs[0])
        keypoints, scores, descriptors = function()
        kept = descriptors.clone()  # the next image overwrites the graph's outputs
        arrays = self._transfers.download(keypoints, scores, kept)
        found = []
        for xy, values, rows, tensor in zip(*arrays, kept, strict=True):
            count = int((values > 0).sum())
            found.append(Detected(xy[:count], values[:count], rows[:count], tensor[:count]))
        return found

    def features(
        self, images: Tensor, height: int, width: int, settings: Detection
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keypoints (B, K, 2), scores (B, K) and descriptors (B, K, D) of images (B, H, W) uint8.

        K is fixed; a score of 0 says that there is no keypoint. Waits for nothing.
        """
        pixels = images.unsqueeze(1).float() / 255
        probability, dense = self._network.dense_maps(pixels.to(self._network.dtype))
        probability = probability[:, :height, :width]
        heat = probability
        if settings.nms_radius:
            heat = non_maximum_suppression(probability, settings.nms_radius)
        keypoints, scores = best_pixels(
            heat, settings.max_keypoints, settings.threshold, settings.border
        )
        if settings.subpixel:
            radius = settings.subpixel_radius
            pairs = zip(probability, keypoints, strict=True)
            keypoints = torch.stack([refine_keypoints(map_, xy, radius) for map_, xy in pairs])
        return keypoints, scores, sample_descriptors(keypoints, dense, settings.exact)

    def _comes_again(self, key: Hashable) -> bool:
        """Whether a size was there before, and there is room for its graph."""
        before = key in self._once and len(self._recorded) < _SIZES
        self._once = {*list(self._once)[-99:], key}
        return before

    def _record(
        self, images: NDArray[np.uint8], height: int, width: int, settings: Detection
    ) -> FixedFunction:
        def run(images: Tensor) -> tuple[Tensor, ...]:
            return self.features(images, height, width, settings)

        return FixedFunction(
            run, [torch.from_numpy(images).to(self.device)], self._pool, self._exact
        )


def _alike(found: list[Detected], expected: list[Detected], least: float) -> bool:
    """Whether at least this part of the keypoints is within half a pixel of an expected one."""
    for one, other in zip(found, expected, strict=True):
        if abs(len(one.scores) - len(other.scores)) > (1 - least) * len(other.scores):
            return False
        if len(other.scores):
            apart = np.abs(one.keypoints[:, None] - other.keypoints[None]).max(axis=2)
            if (apart.min(axis=1) < 0.5).mean() < least:
                return False
    return True
