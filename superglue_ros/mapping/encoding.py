"""Everything computed from one frame alone: features, their depth, the matcher's encoding.

:func:`extract` needs the front-end only, :func:`encode` the matcher only. Frames of the same
instant, of the cameras of a rig or the two images of a stereo pair, are extracted in one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from superglue_ros.config import Config
from superglue_ros.data.image import resize
from superglue_ros.errors import SuperglueError
from superglue_ros.frontends.base import FrontEnd
from superglue_ros.mapping.global_descriptor import Pooling
from superglue_ros.mapping.keyframes import Keyframe
from superglue_ros.matchers.base import Matcher
from superglue_ros.types import Features, FloatArray, Frame, known_depth


@dataclass(frozen=True, eq=False)
class Extracted:
    """A frame with its features; ``right`` the right image of its stereo pair, if it is one,
    and ``baseline`` their distance in metres; ``masked`` keypoints lay on pixels not to be used.
    """

    frame: Keyframe
    right: Keyframe | None = None
    baseline: float = 0.0
    masked: int = 0


def extract(
    frames: Sequence[Frame], front_end: FrontEnd, config: Config
) -> list[Extracted | SuperglueError]:
    """The features of every frame, or the error that refuses it; images in one network batch."""
    images = [frame.image for frame in frames if frame.keypoints is None]
    images += [frame.right.image for frame in frames if frame.right is not None]
    extracted = iter(front_end.extract_all(images))
    detected = [next(extracted) if frame.keypoints is None else frame.keypoints for frame in frames]
    right = [None if frame.right is None else next(extracted) for frame in frames]
    outcomes: list[Extracted | SuperglueError] = []
    for frame, found, right_features in zip(frames, detected, right, strict=True):
        try:
            features, outside = _unmasked(frame, found), frame.keypoints is not None
            masked = len(found) - len(features)
            if outside:
                features = _described(frame, features, front_end, config.front_end.max_keypoints)
            # Features of an external front-end are neither refined nor described anew.
            used = config.refinement != "none" or config.front_end.rotation != "none"
            keep = used and not outside and not front_end.exact
            ready = _extracted(frame, features, right_features, config, keep)
            outcomes.append(replace(ready, masked=masked))
        except SuperglueError as error:
            outcomes.append(error)
    return outcomes


def encode(extracted: Extracted, matcher: Matcher, pool: Pooling) -> Extracted:
    """The frame ready to be matched. Raises :class:`DescriptorKindError`."""
    right = extracted.right
    if right is not None:
        # A right image is only matched with its left one: no global descriptor.
        right = replace(right, prepared=matcher.prepare(right.features))
    return replace(extracted, frame=prepare(extracted.frame, matcher, pool), right=right)


def prepare(raw: Keyframe, matcher: Matcher, pool: Pooling) -> Keyframe:
    """The keyframe with the matcher's encoding and a global descriptor.

    Raises :class:`DescriptorKindError`.
    """
    prepared = matcher.prepare(raw.features)
    return replace(raw, prepared=prepared, global_descriptor=pool(raw.features))


def _extracted(
    frame: Frame,
    features: Features,
    right_features: Features | None,
    config: Config,
    keep_image: bool,
) -> Extracted:
    depth = depth_at(frame, features)
    query = Keyframe(
        id=frame.id,
        features=features,
        prepared=None,
        camera=frame.camera,
        depth=depth,
        rectified=frame.rectified,
        resized=resize(frame.image, config.front_end.max_size) if keep_image else None,
    )
    if frame.right is None or right_features is None:
        return Extracted(query)
    right = Keyframe(
        id=frame.right.id,
        features=right_features,
        prepared=None,
        camera=frame.right.camera,
        rectified=True,
    )
    return Extracted(query, right, frame.right.baseline)


def _unmasked(frame: Frame, features: Features) -> Features:
    """The features that lie on usable pixels."""
    if frame.usable is None:
        return features
    return features.select(np.flatnonzero(frame.usable[_pixels_of(features)]))


def _described(
    frame: Frame, features: Features, front_end: FrontEnd, max_keypoints: int
) -> Features:
    """The best keypoints of an external front-end, described here if they have no descriptors."""
    outside, _ = features.best(max_keypoints)
    if outside.descriptors is not None and outside.descriptor_dim:
        return outside
    described = front_end.describe(frame.image, outside.keypoints)
    return replace(described, scores=outside.scores, sigma_px=outside.sigma_px)


def depth_at(frame: Frame, features: Features) -> FloatArray | None:
    """Depth in metres at every keypoint (N,), 0 where unknown; None where the frame has no depth.

    The nearest pixel's value: interpolation would invent surfaces across depth edges.
    """
    if frame.depth is None:
        return None
    return known_depth(frame.depth[_pixels_of(features)])


def _pixels_of(features: Features) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns (N,) of the pixels that the keypoints lie in."""
    pixels = np.rint(features.keypoints).astype(np.intp)
    return pixels[:, 1].clip(0, features.height - 1), pixels[:, 0].clip(0, features.width - 1)
