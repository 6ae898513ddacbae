"""Whether matches agree with the one motion that most of an image follows.

A camera that moves through a scene at rest sees matches on epipolar lines, and in one place where
the scene is a plane or the camera only turns. The likely matches give that geometry, robustly; a
wrong match has little reason to agree with it. This is guided matching (Hartley and Zisserman,
section 11.6) as evidence, not as a filter: what moves by itself may still be right. Pixels alone
are asked for, no calibration; a strongly distorted image follows its epipolar lines only in parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import poselib
from numpy.typing import NDArray

from superglue_ros.geometry.epipolar import sampson_distance

Floats = NDArray[np.float64]

_EPIPOLAR_PX = 3.0
_PLANE_PX = 5.0
"""Largest errors of what follows the motion."""
_OFF_LINE_PX, _OFF_PLACE_PX = 10.0, 3.0
"""How far a match is off at which 0.6 of the agreement is left. Of lines far more than keypoints'
noise: they come of pixels not refined yet, and matches chosen by them would confirm their error."""
_LEAST = 16
"""Matches that have to agree; an epipolar geometry passes through seven of any."""
_LEAST_SHARE = 0.5
_MOST = 400  # of the likely matches, the likeliest: more take longer and say no more
_RANSAC = {"max_iterations": 1000, "min_iterations": 100, "success_prob": 0.999, "seed": 0}
_EVEN = 8.0
"""Power of the plane's share of the agreeing matches: a wall with things before it is no plane."""


@dataclass(frozen=True, eq=False)
class GlobalMotion:
    """What the motion of the whole image says of K matches.

    ``epipolar``, ``planar`` (K,): how well a match agrees with the epipolar geometry, and with the
    homography of the largest plane, from 0 to 1 = exactly. ``flatness``: from 0 to 1, where all
    that agrees with the first agrees with the second; epipolar lines are then arbitrary, since a
    plane fixes no epipole.
    """

    epipolar: Floats
    planar: Floats
    flatness: float


def global_motion(
    points_ref: Floats, points_query: Floats, likely: NDArray[np.intp]
) -> GlobalMotion | None:
    """What the motion that ``likely`` (L,) of the matches (K, 2), (K, 2) [px] follow says of all.

    ``likely``: indices, the likeliest first; each keypoint once. Pixels are those of images of
    about 640 pixels. None where fewer than 16 of them, or less than half, follow one. Swapping the
    images changes nothing.
    """
    seeds = likely[:_MOST]
    if len(seeds) < _LEAST:
        return None
    # Always the same way round and in the same order, so that samples are the same when images are
    # swapped or keypoints shuffled.
    first, second = points_ref, points_query
    if first[seeds].sum() > second[seeds].sum():
        first, second = second, first
    seeds = seeds[np.lexsort((*first[seeds].T, *second[seeds].T))]
    sample = [np.ascontiguousarray(p[seeds], np.float64) for p in (first, second)]
    options = _RANSAC | {"max_epipolar_error": _EPIPOLAR_PX, "max_reproj_error": _PLANE_PX}
    fundamental, found = poselib.estimate_fundamental(*sample, options, {})
    agreeing = int(np.sum(found["inliers"]))
    if agreeing < max(_LEAST, _LEAST_SHARE * len(seeds)):
        return None
    homography, found = poselib.estimate_homography(*sample, options, {})
    share = min(int(np.sum(found["inliers"])) / agreeing, 1.0)
    return GlobalMotion(
        epipolar=_agreement(sampson_distance(second, first, fundamental), _OFF_LINE_PX),
        planar=_agreement(_transfer_error(first, second, homography), _OFF_PLACE_PX),
        flatness=share**_EVEN,
    )


def _agreement(error_px: Floats, width_px: float) -> Floats:
    return np.asarray(np.exp(-0.5 * (error_px / width_px) ** 2))


def _transfer_error(first: Floats, second: Floats, homography: Floats) -> Floats:
    """Root mean square (K,) of how far either point is from where the other is taken to."""
    there = cv2.perspectiveTransform(first[None], homography)[0] - second
    back = cv2.perspectiveTransform(second[None], cv2.invert(homography)[1])[0] - first
    return np.asarray(np.sqrt((np.square(there).sum(1) + np.square(back).sum(1)) / 2))
