"""Patches around matched pixels, the query's deformed like the reference's.

Registration of two patches wants them to differ by little more than a translation. How a match's
neighbourhood is deformed is estimated from where its neighbours went.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from superglue_ros.geometry.local_motion import overall_similarity

GreyImage = NDArray[np.uint8]
FloatArray = NDArray[np.float32]

_NEIGHBOURS = 16
_LEAST_NEIGHBOURS = 4
_SAMPLE = 96  # matches, spread over all of them, that the overall similarity is taken from
_LEAST_SCALE, _MOST_SCALE = 0.4, 2.5
_STEPS = 2
# Deviation of the vector to a neighbour, as a part of its length and the slack for the keypoints'
# noise, at which half its weight is left.
_TOLERANCE, _SLACK_PX = 0.2, 8.0
_OF_OVERALL_PX = 5.0  # weight of the overall similarity


def patches(
    image: GreyImage, points: FloatArray, transform: FloatArray | None, side: int
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Patches (K, side, side) float32 grey levels about pixels (K, 2); which lie inside the image.

    ``transform`` (K, 2, 2): a step in the patch, as a step in the image [px], for the query that of
    :func:`local_affine`; None: the same.
    """
    if transform is None:
        transform = np.eye(2, dtype=np.float32)[None]
    return _sample(image, points, transform, side), _inside(image, points, transform, side)


def halved(image: GreyImage) -> GreyImage:
    """An image (H, W) at half its size, each pixel the mean of four; odd borders are cut off."""
    height, width = (side // 2 for side in image.shape)
    if not height or not width:
        return np.zeros((height, width), np.uint8)
    even = image[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def halved_points(points: FloatArray) -> FloatArray:
    """Pixels (K, 2) of an image in that of :func:`halved`."""
    return np.asarray((points - 0.5) / 2, np.float32)


def local_affine(points_ref: FloatArray, points_query: FloatArray) -> FloatArray:
    """How the image is deformed around each match, from reference to query: (K, 2, 2) float32.

    Least squares over the vectors to the nearest matches, robust (Cauchy's weights) since some of
    these are wrong or lie on other surfaces. It starts at the similarity of all matches, and is
    drawn to it, since few neighbours or neighbours in a line do not tell an affine map. Scales are
    limited to 0.4 to 2.5.
    """
    ref, query = (np.ascontiguousarray(p, np.float32) for p in (points_ref, points_query))
    overall = _overall(ref, query)
    near = min(_NEIGHBOURS + 1, len(ref))
    if near <= _LEAST_NEIGHBOURS:
        return np.tile(overall, (len(ref), 1, 1))
    _, index = cKDTree(ref).query(ref, near)
    (x, y), (u, v) = (np.moveaxis(p[index] - p[:, None], 2, 0).copy() for p in (ref, query))
    size = np.sqrt(x * x + y * y) + np.float32(_SLACK_PX)
    weights, falloff = 1 / size, (_TOLERANCE * size) ** -2
    (a, b), (c, d) = overall
    for _ in range(_STEPS):  # u = a x + b y, v = c x + d y
        off = (u - a * x - b * y) ** 2 + (v - c * x - d * y) ** 2
        w = weights / (1 + off * falloff)
        wx, wy = w * x, w * y
        xx, xy, yy = _sum(wx, x) + _OF_OVERALL_PX, _sum(wx, y), _sum(wy, y) + _OF_OVERALL_PX
        (ux, uy), (vx, vy) = (
            (_sum(wx, to) + _OF_OVERALL_PX * row[0], _sum(wy, to) + _OF_OVERALL_PX * row[1])
            for to, row in zip((u, v), overall, strict=True)
        )
        determinant = xx * yy - xy * xy
        a, b = (ux * yy - uy * xy) / determinant, (uy * xx - ux * xy) / determinant
        c, d = (vx * yy - vy * xy) / determinant, (vy * xx - vx * xy) / determinant
    return _limited(np.stack([a, b, c, d], axis=1).reshape(-1, 2, 2))


def _overall(ref: FloatArray, query: FloatArray) -> FloatArray:
    """Rotation and scale (2, 2) of all matches."""
    spread = slice(None, None, max(1, len(ref) // _SAMPLE))
    a, b = (p[spread, 0] + 1j * p[spread, 1].astype(np.float64) for p in (ref, query))
    z = overall_similarity(a, b)
    return np.array([[z.real, -z.imag], [z.imag, z.real]], np.float32)


def _sum(one: FloatArray, other: FloatArray) -> FloatArray:
    """Of the products in each row, (K, 1)."""
    return np.asarray(np.einsum("kn,kn->k", one, other)[:, None])


def _limited(affine: FloatArray) -> FloatArray:
    """Maps (K, 2, 2) with scales, the root of the determinant, inside the limits."""
    determinant = affine[:, 0, 0] * affine[:, 1, 1] - affine[:, 0, 1] * affine[:, 1, 0]
    scale = np.sqrt(np.maximum(determinant, 1e-6))
    limit = np.clip(scale, _LEAST_SCALE, _MOST_SCALE) / scale
    return np.asarray(affine * limit[:, None, None], np.float32)


def _sample(image: GreyImage, centres: FloatArray, transform: FloatArray, side: int) -> FloatArray:
    """Patches (K, side, side) about pixels (K, 2), bilinear; outside the image its border."""
    if not len(centres):
        return np.zeros((0, side, side), np.float32)
    axis = np.arange(side, dtype=np.float32) - (side - 1) / 2
    steps = np.stack(np.meshgrid(axis, axis)).reshape(2, -1)
    x, y = (centres[:, i : i + 1] + transform[:, i] @ steps for i in (0, 1))
    # On bytes, which is several times as fast: rounding is less than a camera's noise.
    found = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.float32).reshape(-1, side, side)


def _inside(
    image: GreyImage, centres: FloatArray, transform: FloatArray, side: int
) -> NDArray[np.bool_]:
    """Whether the corners (K,) of patches lie inside the image, and so all of them."""
    height, width = image.shape
    reach = (side - 1) / 2 * np.abs(transform).sum(axis=2)
    limit = np.array([width - 1, height - 1], np.float32)
    return np.asarray(((centres - reach >= 0) & (centres + reach <= limit)).all(axis=1))
