"""Patches around matched pixels, the query's turned and scaled like the reference's.

Registration of two patches wants them to differ by little more than a translation. The rotation and
scale of a match are estimated from where its neighbours went.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

GreyImage = NDArray[np.uint8]
FloatArray = NDArray[np.float32]

_NEIGHBOURS = 16
# Neighbours nearer than this say nothing of rotation and scale: the keypoints' noise is as large.
_NEAREST_PX = 12.0
_LEAST_SCALE, _MOST_SCALE = 0.4, 2.5
# Median deviation of the neighbours' complex scale above which they do not agree.
_MOST_SPREAD = 0.25


@dataclass(frozen=True, eq=False)
class PatchPairs:
    """K pairs of patches.

    ``reference`` and ``query`` (K, side, side) float32 grey levels; ``query_from_reference``
    (K, 2, 2): a step in the patch, as a step in the query's image [px]; ``inside`` (K,): both
    patches lie inside their images.
    """

    reference: FloatArray
    query: FloatArray
    query_from_reference: FloatArray
    inside: NDArray[np.bool_]


def patch_pairs(
    images: tuple[GreyImage, GreyImage],
    points_ref: FloatArray,
    points_query: FloatArray,
    similarity: FloatArray,
    side: int,
) -> PatchPairs:
    """Patches around matched pixels (K, 2) of ``images``, the reference's and the query's.

    ``similarity`` (K, 2, 2): see :func:`local_similarity`.
    """
    axis = np.arange(side, dtype=np.float32) - (side - 1) / 2
    steps = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    places_ref = points_ref[:, None] + steps
    places_query = points_query[:, None] + np.einsum("kij,pj->kpi", similarity, steps)
    shape = (len(points_ref), side, side)
    return PatchPairs(
        reference=_sample(images[0], places_ref).reshape(shape),
        query=_sample(images[1], places_query).reshape(shape),
        query_from_reference=similarity,
        inside=_inside(images[0], places_ref) & _inside(images[1], places_query),
    )


def local_similarity(points_ref: FloatArray, points_query: FloatArray) -> FloatArray:
    """Rotation and scale (K, 2, 2) float32 from reference to query around each match.

    The median over a match's neighbours of how the vector to them turned and grew, as a complex
    number; where they do not agree, the median of all matches; the identity if those don't either.
    """
    count = len(points_ref)
    near = min(_NEIGHBOURS, count - 1)
    if near < 4:
        return np.tile(np.eye(2, dtype=np.float32), (count, 1, 1))
    ref, query = (np.ascontiguousarray(p, np.float32) for p in (points_ref, points_query))
    _, index = cKDTree(ref).query(ref, near + 1)
    to_ref = _complex(ref[index[:, 1:]] - ref[:, None])
    to_query = _complex(query[index[:, 1:]] - query[:, None])
    known = np.abs(to_ref) >= _NEAREST_PX
    ratio = np.where(known, to_query / np.where(known, to_ref, 1), np.complex64(complex(np.nan, np.nan)))
    centre, spread = _median(ratio)
    spread = np.where(known.sum(axis=1) >= 4, spread, np.inf)
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
    middle = np.maximum(np.isfinite(values).sum(axis=1, keepdims=True) - 1, 0) // 2

    def of(rows: NDArray[np.floating]) -> NDArray[np.floating]:
        # Sorting puts NaN last; of an even count this takes the lower of the middle two.
        return np.take_along_axis(np.sort(rows, axis=1), middle, axis=1)[:, 0]

    centre = of(values.real) + 1j * of(values.imag)
    spread = of(np.abs(values - centre[:, None]))
    return centre.astype(np.complex64), spread.astype(np.float32)


def _sample(image: GreyImage, places: FloatArray) -> FloatArray:
    """Grey levels (K, P) at pixels (K, P, 2), bilinear; outside the image its border."""
    if not len(places):
        return np.zeros(places.shape[:2], np.float32)
    found = cv2.remap(
        image.astype(np.float32),
        np.ascontiguousarray(places[..., 0], np.float32),
        np.ascontiguousarray(places[..., 1], np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(found, np.float32)


def _inside(image: GreyImage, places: FloatArray) -> NDArray[np.bool_]:
    height, width = image.shape
    limit = np.array([width - 1, height - 1], np.float32)
    return np.asarray(((places >= 0) & (places <= limit)).all(axis=(1, 2)))
