"""Planar scenes: the motions a homography allows, refined."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.geometry.epipolar import homogeneous
from superglue_ros.geometry.least_squares import Fit, minimise
from superglue_ros.geometry.rotation import nearest
from superglue_ros.geometry.two_view_models import Motion, RayPairs, transfer

Array = NDArray[np.float64]


def planar_motions(homography: Array, rays_query: Array) -> list[Motion]:
    """Motions (R, unit t, plane) of a homography on rays, ``x_ref ~ H x_query``.

    Of the four analytic solutions those that have the plane in front of the query camera at all but
    a twentieth of the rays (K, 2): two, or one, and none for a pure rotation.
    """
    matrix = homography / np.cbrt(np.linalg.det(homography))
    _, rotations, translations, normals = cv2.decomposeHomographyMat(matrix, np.eye(3))
    motions = []
    for rotation, translation, normal in zip(rotations, translations, normals, strict=True):
        size = float(np.linalg.norm(translation))
        if size < 1e-6:
            continue
        plane = np.asarray(normal, np.float64).ravel() * size
        if np.mean(homogeneous(rays_query) @ plane > 0) > 0.95:
            direction = np.asarray(translation, np.float64).ravel() / size
            motions.append(Motion(nearest(np.asarray(rotation, np.float64)), direction, plane))
    return motions


def fit_planes(homography: Array, pairs: RayPairs, prior: Array, scale: float) -> list[Fit[Motion]]:
    """Every motion of ``homography`` refined on all pairs; the two fit equally. May be empty."""
    linearise = partial(transfer, pairs=pairs)
    return [
        minimise(motion, linearise, Motion.moved, prior, scale, 8)
        for motion in planar_motions(homography, pairs.query)
    ]
