"""View sets from image sequences without poses: ground truth by dense optical flow.

The technical report's "photometric consistency". Flow is OpenCV's DIS (Kroeger et al., ECCV 2016),
in both directions; where they disagree there is no label. It suits frames that follow one another
closely: on wide baselines flow is wrong without saying so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.data import decoding
from superglue_ros.data.image import to_grey
from superglue_ros.data.sequences.base import open_sequence
from superglue_ros.errors import DataError, ImageError
from superglue_ros.geometry.ground_truth import OUTDOOR, LabelThresholds, Projection, inside
from superglue_ros.registry import SEQUENCES
from superglue_ros.training.data.sequence_views import centre_crop, draw_frames, every_sequence
from superglue_ros.training.recipes import SequenceSource, ViewRecipe

GreyImage = NDArray[np.uint8]
Flow = NDArray[np.float32]

_TRIES = 400
_ALIKE, _SURROUNDINGS = 0.6, 9  # least correlation of windows of so many pixels
_CLEARLY_OUTSIDE = 5.0  # pixels beyond the border: nearer, flow is not to be relied on
_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, eq=False)
class FlowViews:
    """Grey images (H, W) uint8 of one size, whose correspondence is their optical flow."""

    images: Sequence[GreyImage]
    thresholds: LabelThresholds = OUTDOOR
    _flows: dict[tuple[int, int], Flow] = field(default_factory=dict)
    _likeness: dict[tuple[int, int], Flow] = field(default_factory=dict)

    def flow(self, i: int, j: int) -> Flow:
        """Displacement (H, W, 2) in pixels of each pixel of view ``i`` in view ``j``."""
        if (i, j) not in self._flows:
            method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
            found = method.calc(self.images[i], self.images[j], None)  # type: ignore[call-overload]
            self._flows[i, j] = np.asarray(found, np.float32)
        return self._flows[i, j]

    def likeness(self, i: int, j: int) -> Flow:
        """Correlation (H, W), -1 to 1, of the surroundings of each pixel of ``i`` with ``j``'s."""
        if (i, j) not in self._likeness:
            height, width = self.images[i].shape
            x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height))
            flow = self.flow(i, j)
            there = cv2.remap(
                self.images[j], x + flow[..., 0], y.astype(np.float32) + flow[..., 1],
                cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
            )  # fmt: skip
            self._likeness[i, j] = _correlation(self.images[i], np.asarray(there, np.uint8))
        return self._likeness[i, j]

    def project(self, keypoints: NDArray[np.floating], i: int, j: int) -> Projection:
        """See :class:`~superglue_ros.training.data.views.ViewSet`.

        A point is unknown where forward and backward flow f, b do not cancel: |f + b|^2 above 0.01
        (|f|^2 + |b|^2) + 0.5 (Sundaram et al., ECCV 2010), or where the images do not look alike;
        hidden where it left the image.
        """
        height, width = self.images[j].shape
        forward = _sample(self.flow(i, j), keypoints)
        points = keypoints + forward
        backward = _sample(self.flow(j, i), points)
        squares = [np.square(x).sum(axis=1) for x in (forward + backward, forward, backward)]
        agree = squares[0] <= 0.01 * (squares[1] + squares[2]) + 0.5
        agree &= _sample(self.likeness(i, j), keypoints) >= _ALIKE
        within = inside(points, width, height)
        margin = _CLEARLY_OUTSIDE
        near = inside(points + margin, width + 2 * margin, height + 2 * margin)
        return Projection(points, ~near, (near & ~within) | (within & ~agree))

    def overlap(self, i: int, j: int) -> float:
        """Share of view ``i`` that is found in view ``j``."""
        height, width = self.images[i].shape
        grid = np.stack(np.meshgrid(np.arange(4, width, 8), np.arange(4, height, 8)), axis=-1)
        found = self.project(grid.reshape(-1, 2).astype(np.float64), i, j)
        return float((~found.hidden & ~found.unknown).mean())


class FlowDrawer:
    """Draws view sets of frames that follow one another, and of which flow finds enough again.

    Raises :class:`DataError` if none fits the recipe.
    """

    def __init__(self, recipe: ViewRecipe) -> None:
        self._recipe = recipe
        self._sources = [(_image_files(s), s) for s in every_sequence(recipe.sequences)]

    def __call__(self, rng: np.random.Generator) -> FlowViews:
        recipe = self._recipe
        low, high = recipe.overlap
        for _ in range(_TRIES):
            files, source = self._sources[int(rng.integers(len(self._sources)))]
            indices = draw_frames(rng, len(files), recipe.views, source.gap)
            if indices is None:
                continue
            size = (recipe.width, recipe.height)
            views = FlowViews([_read_fitted(files[index], size) for index in indices])
            shared = [views.overlap(i - 1, i) for i in range(1, recipe.views)]
            if low <= min(shared) and max(shared) <= high:
                return views
        raise DataError(
            f"optical flow finds {low} to {high} of the area again in no {recipe.views} frames of "
            f"the sequences: narrow the gaps, or widen overlap"
        )


def _image_files(source: SequenceSource) -> list[Path]:
    """The images of a sequence in order: of any layout, or of a plain folder by name."""
    folder = Path(source.folder)
    if source.layout or any(SEQUENCES.make(name).recognises(folder) for name in SEQUENCES):
        files = open_sequence(folder, layout=source.layout, root=source.root or None).image_paths
    else:
        if not folder.is_dir():
            raise DataError(f"sequence {folder} does not exist")
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS)
    chosen = files[source.first : source.last or len(files)]
    if len(chosen) < 2:
        raise DataError(f"{folder} has {len(chosen)} images: give at least two that follow")
    return chosen


@lru_cache(maxsize=64)
def _read_fitted(path: Path, size: tuple[int, int]) -> GreyImage:
    """A grey image cropped about its centre and resized to ``size`` (width, height)."""
    try:
        image = to_grey(decoding.read(path, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION))
    except ImageError as error:
        raise DataError(str(error)) from error
    window = centre_crop((image.shape[1], image.shape[0]), size).window
    return np.asarray(cv2.resize(image[window], size, interpolation=cv2.INTER_AREA), np.uint8)


def _correlation(first: GreyImage, second: GreyImage) -> Flow:
    """Zero-mean normalised correlation (H, W) of the windows about each pixel."""
    a, b = first.astype(np.float64), second.astype(np.float64)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(cv2.blur(values, (_SURROUNDINGS, _SURROUNDINGS)), np.float64)

    mean_a, mean_b = mean(a), mean(b)
    variance = (mean(a * a) - mean_a**2) * (mean(b * b) - mean_b**2)
    found = (mean(a * b) - mean_a * mean_b) / np.sqrt(np.maximum(variance, 1e-3))
    return np.asarray(found, np.float32)


def _sample(flow: Flow, points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Bilinear samples (N, ...) of (H, W, ...) at pixels (N, 2); the border's outside of it."""
    if not len(points):
        return np.zeros((0, *flow.shape[2:]))
    x, y = np.asarray(points, np.float32).T
    found = cv2.remap(
        flow, np.ascontiguousarray(x)[None], np.ascontiguousarray(y)[None], cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return np.asarray(found[0], np.float64)
