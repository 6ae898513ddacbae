"""Keypoints that all their matches agree on: refinement of pairs, brought together over tracks.

A map has one pixel for a keypoint in all of its pairs, while refinement moves it differently
against each partner. With d_i the displacement of keypoint i, a verified match (i, j) that
refinement moves by o says d_j - d_i = o, weighted by its variance; d_i = 0 says, with the variance
of a detection, that the detector was right. The weighted least-squares solution is found by
conjugate gradients, matches that stay far off losing their weight (Cauchy).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import cg

from superglue_ros.reconstruction.store import Store

DETECTION_SIGMA_PX = 1.0
_ROUNDS = 3
_MOST_PX = 3.0

Array = NDArray[np.float64]


def consistent_displacements(
    count: int, first: NDArray[np.int64], second: NDArray[np.int64], offset: Array, sigma: Array
) -> Array:
    """Displacements (N, 2) pixels of ``count`` keypoints.

    Matches (K,) ``first`` to ``second`` with ``offset`` (K, 2), where the second one's keypoint
    goes against the first's, and standard deviations ``sigma`` (K,).
    """
    moved = np.zeros((count, 2))
    if not len(first):
        return moved
    certain = 1 / sigma**2
    weight = certain
    for _ in range(_ROUNDS):
        laplacian = _laplacian(count, first, second, weight)
        system = laplacian + diags(np.full(count, 1 / DETECTION_SIGMA_PX**2))
        for axis in (0, 1):
            push = weight * offset[:, axis]
            right = np.bincount(second, push, count) - np.bincount(first, push, count)
            moved[:, axis], _ = cg(system, right, x0=moved[:, axis], rtol=1e-4, maxiter=500)
        left = np.linalg.norm(moved[second] - moved[first] - offset, axis=1) / sigma
        weight = certain / (1 + left**2 / 2)
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    return moved * np.minimum(1, _MOST_PX / np.maximum(length, 1e-9))


def move_to_consensus(store: Store) -> float:
    """Move the keypoints of the store's verified matches; returns the median motion in pixels."""
    images = sorted(store.described())
    features = {image: store.features(image).keypoints for image in images}
    starts = dict(zip(images, np.cumsum([0, *(len(features[i]) for i in images)]), strict=False))
    parts = [_edges(store, starts, *pair) for pair in store.verified()]
    if not parts:
        return 0.0
    first, second, offset, sigma = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    count = sum(map(len, features.values()))
    moved = consistent_displacements(count, first, second, offset, sigma)
    store.move_keypoints(
        {
            image: points + moved[starts[image] : starts[image] + len(points)].astype(np.float32)
            for image, points in features.items()
        }
    )
    used = np.unique(np.concatenate([first, second]))
    return float(np.median(np.linalg.norm(moved[used], axis=1)))


def _edges(
    store: Store, starts: dict[int, int], image0: int, image1: int, inliers: NDArray[np.uint32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], Array, Array]:
    found = store.matches(image0, image1)
    keys = {(int(a), int(b)): k for k, (a, b) in enumerate(found.index)}
    rows = [keys[int(a), int(b)] for a, b in inliers if (int(a), int(b)) in keys]
    index = found.index[rows].astype(np.int64)
    sigma = np.maximum(found.sigma_px[rows].astype(np.float64), 0.05)
    offset = found.offset[rows].astype(np.float64)
    return index[:, 0] + starts[image0], index[:, 1] + starts[image1], offset, sigma


def _laplacian(
    count: int, first: NDArray[np.int64], second: NDArray[np.int64], weight: Array
) -> coo_matrix:
    rows = np.concatenate([first, second, first, second])
    columns = np.concatenate([first, second, second, first])
    values = np.concatenate([weight, weight, -weight, -weight])
    return coo_matrix((values, (rows, columns)), shape=(count, count)).tocsr()
