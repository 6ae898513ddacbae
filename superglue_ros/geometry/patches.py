"""Patches around matched pixels, the query's turned and scaled like the reference's.

Registration of two patches wants them to differ by little more than a translation. The rotation and
scale of a match are estimated from where its neighbours went.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

GreyImage = NDArray[np.uint8]
FloatArray = NDArray[np.float32]

_NEIGHBOURS = 8
# Matches, spread over all of them, that serve as neighbours: more cost time and lie too near.
_ANCHORS = 128
_LEAST_NEIGHBOURS = 4
# Neighbours nearer than this say nothing of rotation and scale: the keypoints' noise is as large.
_NEAREST_PX = 12.0
_LEAST_SCALE, _MOST_SCALE = 0.4, 2.5
# Median deviation of the neighbours' complex scale above which they do not agree.
_MOST_SPREAD = 0.25


def patches(
    image: GreyImage, points: FloatArray, transform: FloatArray | None, side: int
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Patches (K, side, side) float32 grey levels about pixels (K, 2); which lie inside the image.

    ``transform`` (K, 2, 2): a step in the patch, as a step in the image [px], for the query that of
    :func:`local_similarity`; None: the same.
    """
    if transform is None:
        transform = np.broadcast_to(np.eye(2, dtype=np.float32), (len(points), 2, 2))
    return _sample(image, points, transform, side), _inside(image, points, transform, side)


def local_similarity(points_ref: FloatArray, points_query: FloatArray) -> FloatArray:
    """Rotation and scale (K, 2, 2) float32 from reference to query around each match.

    The median over a match's neighbours of how the vector to them turned and grew, as a complex
    number; where they do not agree, the median of all matches; the identity if those don't either.
    """
    count = len(points_ref)
    anchors = slice(None, None, max(1, count // _ANCHORS))
    near = min(_NEIGHBOURS, count - 1)
    if near < _LEAST_NEIGHBOURS:
        return np.tile(np.eye(2, dtype=np.float32), (count, 1, 1))
    ref, query = (np.ascontiguousarray(p, np.float32) for p in (points_ref, points_query))
    _, index = cKDTree(ref[anchors]).query(ref, near)
    to_ref = _complex(ref[anchors][index] - ref[:, None])
    to_query = _complex(query[anchors][index] - query[:, None])
    known = np.abs(to_ref) >= _NEAREST_PX
    nothing = np.complex64(complex(np.nan, np.nan))
    ratio = np.where(known, to_query / np.where(known, to_ref, 1), nothing)
    centre, spread = _median(ratio)
    spread = np.where(known.sum(axis=1) >= _LEAST_NEIGHBOURS, spread, np.inf)
    overall, overall_spread = _median(ratio.reshape(1, -1))
    if not overall_spread[0] < _MOST_SPREAD * np.abs(overall[0]):
        overall[:] = 1.0
    chosen = np.where(spread < _MOST_SPREAD * np.abs(centre), centre, overall)
    size = np.abs(chosen)
    chosen *= np.clip(size, _LEAST_SCALE, _MOST_SCALE) / np.maximum(size, 1e-6)
    rows = [[chosen.real, -chosen.imag], [chosen.imag, chosen.real]]
    return np.moveaxis(np.array(rows, np.float32), 2, 0)


def _complex(vectors: FloatArray) -> NDArray[np.complex64]:
    return np.asarray(vectors[..., 0] + 1j * vectors[..., 1], np.complex64)


def _median(
    values: NDArray[np.complexfloating],
) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
    """Median of each row (K, N), by parts, and the median distance from it, without NaN.

    Of a row without values they are NaN.
    """
    count = np.maximum(np.isfinite(values).sum(axis=1, keepdims=True), 1)
    middle = np.concatenate([(count - 1) // 2, count // 2], axis=1)

    def of(rows: NDArray[np.floating]) -> NDArray[np.floating]:
        # Sorting puts NaN last.
        return np.take_along_axis(np.sort(rows, axis=1), middle, axis=1).mean(axis=1)

    centre = of(values.real) + 1j * of(values.imag)
    spread = of(np.abs(values - centre[:, None]))
    return centre.astype(np.complex64), spread.astype(np.float32)


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
