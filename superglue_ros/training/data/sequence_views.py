"""View sets from sequences with depth and poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.image import to_grey
from superglue_ros.data.rectify import Rectification
from superglue_ros.data.sequences.base import FolderSequence, open_sequence
from superglue_ros.errors import DataError
from superglue_ros.geometry.ground_truth import INDOOR, OUTDOOR
from superglue_ros.training.data.views import PosedViews
from superglue_ros.training.recipes import SequenceSource, ViewRecipe

Array = NDArray[np.float64]

_TRIES = 400


@dataclass(frozen=True, eq=False)
class PosedView:
    """A grey image (H, W) uint8 without distortion, its depth (H, W) [m], intrinsics and pose."""

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    matrix: Array
    T_world_camera: Array


@dataclass(frozen=True)
class Crop:
    """A part of an image, in pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )


def centre_crop(image: tuple[int, int], size: tuple[int, int]) -> Crop:
    """The largest part about the centre of the aspect of ``size``; both (width, height)."""
    scale = max(size[0] / image[0], size[1] / image[1])
    width, height = round(size[0] / scale), round(size[1] / scale)
    return Crop((image[0] - width) // 2, (image[1] - height) // 2, width, height)


class PosedFrames:
    """The frames of a sequence that have depth and a pose, rectified and fitted to one size."""

    def __init__(self, sequence: FolderSequence) -> None:
        self._sequence = sequence
        camera = sequence.camera
        self._rectification = (
            Rectification.of(camera) if camera is not None and camera.distorted else None
        )
        self.thresholds = OUTDOOR if sequence.outdoor else INDOOR
        self.covisibility = sequence.covisibility

    def __len__(self) -> int:
        return len(self._sequence)

    def view(self, index: int, size: tuple[int, int]) -> PosedView | None:
        """A frame at ``size`` (width, height), None if it has no depth or no pose.

        The image is cropped about its centre to the aspect of ``size``, then resized. Raises
        :class:`DataError` if its files are inconsistent.
        """
        if self._sequence.pose(index) is None:
            return None
        item = self._sequence[index]
        if item.depth is None or item.T_world_camera is None:
            return None
        image, depth = to_grey(item.image), item.depth
        if self._rectification is not None:
            image, depth = self._rectification.image(image), self._rectification.depth(depth)
        crop = centre_crop((image.shape[1], image.shape[0]), size)
        window = crop.window
        grey = cv2.resize(image[window], size, interpolation=cv2.INTER_AREA)
        near = cv2.resize(depth[window], size, interpolation=cv2.INTER_NEAREST)
        sx, sy = size[0] / crop.width, size[1] / crop.height
        resize = np.array([[sx, 0, sx * 0.5 - 0.5], [0, sy, sy * 0.5 - 0.5], [0, 0, 1]])
        shift = np.array([[1, 0, -crop.left], [0, 1, -crop.top], [0, 0, 1.0]])
        return PosedView(
            np.asarray(grey, np.uint8),
            np.asarray(near, np.float32),
            resize @ shift @ self._sequence.intrinsics(index),
            item.T_world_camera,
        )

    def views(self, indices: list[int], size: tuple[int, int]) -> PosedViews | None:
        """The frames ``indices`` as one view set, None where one lacks depth or a pose."""
        found = [self.view(index, size) for index in indices]
        posed = [view for view in found if view is not None]
        if len(posed) < len(indices):
            return None
        return PosedViews(
            images=[view.image for view in posed],
            depths=[view.depth for view in posed],
            matrices=[view.matrix for view in posed],
            poses=[view.T_world_camera for view in posed],
            thresholds=self.thresholds,
        )


class SequenceDrawer:
    """Draws view sets whose neighbouring views overlap.

    Every sequence is drawn equally often, as the paper samples equally many pairs per scene, and
    opened when it is first drawn. Where a sequence has covisibility scores the frames are chosen by
    these (appendix E), else by the overlap of their depth. Raises :class:`DataError` if none fits
    the recipe.
    """

    def __init__(self, recipe: ViewRecipe) -> None:
        self._recipe = recipe
        self._sources = every_sequence(recipe.sequences)
        self._opened: dict[SequenceSource, tuple[PosedFrames, Covisible | None]] = {}

    def __call__(self, rng: np.random.Generator) -> PosedViews:
        recipe = self._recipe
        low, high = recipe.overlap
        size = (recipe.width, recipe.height)
        for _ in range(_TRIES):
            source = self._sources[int(rng.integers(len(self._sources)))]
            frames, covisible = self._open(source)
            if covisible is not None:
                indices = covisible.draw(rng, recipe.views)
            else:
                indices = draw_frames(rng, len(frames), recipe.views, source.gap)
            views = None if indices is None else frames.views(indices, size)
            if views is None:
                continue
            if covisible is not None:
                return views
            shared = [views.overlap(i - 1, i) for i in range(1, recipe.views)]
            if low <= min(shared) and max(shared) <= high:
                return views
        raise DataError(
            f"no {recipe.views} frames of the sequences share {low} to {high} of their area: widen "
            f"overlap or the gaps"
        )

    def _open(self, source: SequenceSource) -> tuple[PosedFrames, Covisible | None]:
        if source not in self._opened:
            frames = _frames_of(source)
            scores = frames.covisibility
            covisible = None if scores is None else Covisible(scores, self._recipe.overlap)
            self._opened[source] = frames, covisible
        return self._opened[source]


class Covisible:
    """Frames that share as many reconstructed points as wanted, by their scores (N, N).

    A pair's score is the lower one of its two directions, as the paper's outdoor pairs have it.
    """

    def __init__(self, scores: NDArray[np.float32], overlap: tuple[float, float]) -> None:
        both = np.minimum(scores, scores.T)
        fits = (overlap[0] <= both) & (both <= overlap[1])
        np.fill_diagonal(fits, False)
        self._partners = [np.flatnonzero(row) for row in fits]
        self._pairs = np.argwhere(np.triu(fits))

    def draw(self, rng: np.random.Generator, views: int) -> list[int] | None:
        """Frames of a set, each sharing enough with the one before; None if there are no more."""
        if not len(self._pairs):
            return None
        pair = self._pairs[int(rng.integers(len(self._pairs)))]
        chosen = [int(index) for index in rng.permutation(pair)]
        while len(chosen) < views:
            further = np.setdiff1d(self._partners[chosen[-1]], chosen)
            if not len(further):
                return None
            chosen.append(int(rng.choice(further)))
        return chosen


def every_sequence(sources: Sequence[SequenceSource]) -> list[SequenceSource]:
    """One source for each sequence: patterns replaced by what they match, by name.

    Raises :class:`DataError` where there is none or a folder does not exist.
    """
    found: list[SequenceSource] = []
    for source in sources:
        matched = sorted(glob(source.folder)) or ([source.folder] * Path(source.folder).exists())
        if not matched:
            raise DataError(f"no sequence is at {source.folder}: check sequences of the recipe")
        found += [replace(source, folder=folder) for folder in matched]
    if not found:
        raise DataError("the recipe names no sequences: give at least one")
    return found


def _frames_of(source: SequenceSource) -> PosedFrames:
    sequence = open_sequence(
        source.folder, source.depth_unit or None, source.layout, source.root or None
    )
    last = source.last or len(sequence)
    return PosedFrames(sequence.select(range(len(sequence))[source.first : last]))


def draw_frames(
    rng: np.random.Generator, length: int, views: int, gap: tuple[int, int]
) -> list[int] | None:
    """Frames of a set; None if the draw exceeds the end."""
    if gap[1] == 0:  # unordered photographs
        return [int(i) for i in rng.permutation(length)[:views]] if length >= views else None
    gaps = rng.integers(gap[0], gap[1] + 1, views - 1)
    first = int(rng.integers(max(length - int(gaps.sum()), 1)))
    indices = first + np.concatenate([[0], np.cumsum(gaps)])
    return None if indices[-1] >= length else [int(i) for i in indices]
