"""Matching of image arrays in three lines, without frames, keyframes or ROS.

    import superglue_ros
    pair = superglue_ros.match(image0, image1)
    pair.points0, pair.points1, pair.scores, pair.inlier

Lists of images are one batch. :class:`ImageMatcher` is the same with cameras, presets and a choice
of pairs; it takes the settings of :class:`~superglue_ros.config.Config`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from superglue_ros.config import Config
from superglue_ros.data.image import to_grey
from superglue_ros.errors import ImageError, SuperglueError
from superglue_ros.geometry.camera import Camera
from superglue_ros.mapping.encoding import Extracted
from superglue_ros.mapping.keyframes import Candidate, Keyframe
from superglue_ros.mapping.verification import FramePair, verify
from superglue_ros.rig import Pairing, Rig, attempt
from superglue_ros.types import (
    BoolArray,
    Features,
    FloatArray,
    Frame,
    FrameId,
    IntArray,
    Matches,
    MatchKind,
    RelativePose,
)

Image = Any
"""A NumPy array, grey (H, W) or BGR (H, W, 3) as OpenCV reads it, uint8 or uint16; or a torch
tensor, grey (H, W) or RGB (C, H, W), uint8 or floating point in [0, 1]."""

BATCH = 8
"""Images, and pairs, that go through a network together."""


@dataclass(frozen=True, eq=False)
class ImagePair:
    """Two images and what they have in common.

    ``features0``, ``features1``: all keypoints; ``matches``: those in common, K of them;
    ``pose``: the camera of image 1 in that of image 0, None unless both are calibrated.
    """

    features0: Features
    features1: Features
    matches: Matches
    pose: RelativePose | None

    @property
    def points0(self) -> FloatArray:
        """(K, 2) float32 pixels (x, y) of image 0, (0, 0) the centre of its top-left pixel."""
        return self.matches.points_ref

    @property
    def points1(self) -> FloatArray:
        """(K, 2) float32 pixels of image 1, refined against image 0."""
        return self.matches.points_query

    @property
    def index0(self) -> IntArray:
        """(K,) int32 into ``features0``."""
        return self.matches.index_ref

    @property
    def index1(self) -> IntArray:
        """(K,) int32 into ``features1``."""
        return self.matches.index_query

    @property
    def scores(self) -> FloatArray:
        """(K,) float32 confidences in [0, 1], falling; see :class:`Matches`."""
        return self.matches.scores

    @property
    def inlier(self) -> BoolArray:
        """(K,) which matches agree with the pose; all False where there is none."""
        return self.matches.inlier


class ImageMatcher:
    """The networks, loaded once, for any number of pairs. Not thread-safe.

    Raises :class:`ConfigError` and :class:`WeightsError`.
    """

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._rig = Rig(self.config)

    def match(
        self,
        image0: Image,
        image1: Image,
        camera0: Camera | None = None,
        camera1: Camera | None = None,
    ) -> ImagePair:
        """Match two images (see :data:`Image`); with both cameras there is a pose as well.

        Raises :class:`ImageError` and :class:`CalibrationError`.
        """
        return next(self.match_pairs([image0, image1], [(0, 1)], [camera0, camera1]))

    def match_pairs(
        self,
        images: Sequence[Image],
        pairs: Sequence[tuple[int, int]],
        cameras: Sequence[Camera | None] | None = None,
    ) -> Iterator[ImagePair]:
        """Match ``pairs`` of places in ``images``, in their order, ``BATCH`` at a time.

        Every image is asked for and encoded once. Raises :class:`ImageError` and
        :class:`CalibrationError` that name the image's place.
        """
        if cameras is not None and len(cameras) != len(images):
            raise ImageError(f"{len(cameras)} cameras for {len(images)} images: give one each")
        encoded = []
        for number, outcome in enumerate(self.encode(images, cameras or [None] * len(images))):
            if isinstance(outcome, SuperglueError):
                raise ImageError(f"image {number}: {outcome}") from outcome
            encoded.append(outcome)
        for start in range(0, len(pairs), BATCH):
            part = [(encoded[i], encoded[j]) for i, j in pairs[start : start + BATCH]]
            yield from self.match_encoded(part)

    def encode(
        self, images: Sequence[Image], cameras: Sequence[Camera | None]
    ) -> Iterator[Keyframe | SuperglueError]:
        """Every image ready to be matched, or the error that refuses it, ``BATCH`` at a time.

        Where the matcher's settings refine or turn, the image is kept with its features.
        """
        for start in range(0, len(images), BATCH):
            places = range(start, min(start + BATCH, len(images)))
            frames = [attempt(partial(_frame, i, camera=cameras[i]), images[i]) for i in places]
            good = [one for one in frames if isinstance(one, Frame)]
            encoded = iter(self._rig.encode(self._rig.extract(good)))
            for frame in frames:
                outcome = next(encoded) if isinstance(frame, Frame) else frame
                yield outcome.frame if isinstance(outcome, Extracted) else outcome

    def ready(self, keyframe: Keyframe) -> Keyframe:
        """An image whose features come from elsewhere, ready to be matched.

        Raises :class:`DescriptorKindError`.
        """
        return replace(keyframe, prepared=self._rig.matcher.prepare(keyframe.features))

    def match_encoded(self, pairs: Sequence[tuple[Keyframe, Keyframe]]) -> Iterator[ImagePair]:
        """Match images of :meth:`encode` or :meth:`ready`, all pairs in one batch, in their order.

        With calibrated cameras there are poses.
        """
        pairings = [Pairing(Candidate(a, MatchKind.KEYFRAME), b) for a, b in pairs]
        for one, found in zip(pairings, self._rig.match_pairings(pairings), strict=True):
            yield _pair(one, verify(one.candidate, one.query, found, self.config))


def match(image0: Image, image1: Image, config: Config | None = None) -> Any:
    """Match two images, or two sequences of images of equal length in one batch.

    Returns an :class:`ImagePair`, or a list of them. Images as in :data:`Image`; a sequence is a
    list, a tuple, or an array or tensor with a leading dimension (B, ...) of BGR images or
    (B, C, H, W). The networks are kept for the next call with the same ``config``. Raises
    :class:`ImageError`, :class:`ConfigError` and :class:`WeightsError`.
    """
    matcher = _kept(config or Config())
    if not (_is_sequence(image0) and _is_sequence(image1)):
        return matcher.match(image0, image1)
    count = len(image0)
    if len(image1) != count:
        raise ImageError(f"{count} images against {len(image1)}: give two sequences of one length")
    return list(matcher.match_pairs([*image0, *image1], [(i, count + i) for i in range(count)]))


@lru_cache(maxsize=1)
def _kept(config: Config) -> ImageMatcher:
    return ImageMatcher(config)


def _is_sequence(image: Any) -> bool:
    return isinstance(image, (list, tuple)) or getattr(image, "ndim", 0) == 4


def _frame(number: int, image: Image, camera: Camera | None) -> Frame:
    grey = as_grey(image)
    if camera is not None and (camera.height, camera.width) != grey.shape:
        raise ImageError(
            f"it is {grey.shape[1]}x{grey.shape[0]} pixels, but its calibration is for "
            f"{camera.width}x{camera.height}"
        )
    rectified = camera is not None and not camera.distorted
    name = FrameId(id=number, stamp_ns=number)
    return Frame(id=name, image=grey, camera=camera, rectified=rectified)


def as_grey(image: Image) -> NDArray[np.uint8]:
    """An array or tensor (see :data:`Image`) as grey (H, W) uint8. Raises :class:`ImageError`."""
    if not isinstance(image, torch.Tensor):
        return to_grey(np.asarray(image))
    tensor = image.detach().cpu()
    if tensor.is_floating_point():
        if not torch.isfinite(tensor).all() or tensor.min() < 0 or tensor.max() > 1:
            raise ImageError("a floating-point image has values outside of [0, 1]: scale it")
        tensor = (tensor.float() * 255).round().to(torch.uint8)
    array = tensor.numpy()
    if array.ndim == 3:  # (C, H, W), RGB
        array = np.ascontiguousarray(array[::-1].transpose(1, 2, 0))
    return to_grey(array)


def _pair(pairing: Pairing, pair: FramePair) -> ImagePair:
    return ImagePair(
        features0=pairing.candidate.keyframe.features,
        features1=pairing.query.features,
        matches=pair.matches,
        pose=pair.pose if pair.calibrated else None,
    )
