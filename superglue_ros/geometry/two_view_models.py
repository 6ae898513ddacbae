"""The models that two views may follow, as residuals with derivatives for least squares.

``epipolar``: general motion and scene, 5 parameters. ``plane``: general motion, planar scene,
``H = R + t m^T`` with m the plane's normal over its distance in baselines (query frame), 8
parameters. ``turn``: rotation only, 3 parameters. Parameters come in the order rotation (about
fixed axes of the reference frame, radians), translation direction (in the tangent plane of the unit
sphere), plane.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from superglue_ros.geometry.epipolar import homogeneous
from superglue_ros.geometry.least_squares import Linearisation
from superglue_ros.geometry.rotation import exp, skew, tangent_basis

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RayPairs:
    """Matched rays (K, 2) with their standard deviations (K,) on the normalised plane."""

    ref: Array
    query: Array
    sigma_ref: Array
    sigma_query: Array

    def __len__(self) -> int:
        return len(self.ref)

    def select(self, mask: NDArray[np.bool_]) -> RayPairs:
        """The pairs where ``mask`` (K,) holds."""
        return RayPairs(
            self.ref[mask], self.query[mask], self.sigma_ref[mask], self.sigma_query[mask]
        )


@dataclass(frozen=True, eq=False)
class Motion:
    """``x_ref = R x_query + t`` with unit t; ``plane`` (3,) is m where the scene is planar."""

    rotation: Array
    translation: Array
    plane: Array | None = None

    def moved(self, step: Array) -> Motion:
        """By local parameters (3,), (5,) or (8,): rotation, translation direction, plane."""
        rotation = exp(step[:3]) @ self.rotation
        if len(step) == 3:
            return Motion(rotation, self.translation)
        translation = self.translation + tangent_basis(self.translation) @ step[3:5]
        translation /= np.linalg.norm(translation)
        plane = None if self.plane is None else self.plane + step[5:8]
        return Motion(rotation, translation, plane)

    def homography(self) -> Array:
        """``R + t m^T`` (3, 3), from query rays to reference rays; R where there is no plane."""
        if self.plane is None:
            return self.rotation
        return self.rotation + np.outer(self.translation, self.plane)


def epipolar(motion: Motion, pairs: RayPairs) -> Linearisation:
    """Sampson distances over their standard deviations: residuals (K, 1), derivative (K, 1, 5)."""
    # Matches along the last axis, here and below: numpy is slow on many small matrices.
    ref, query = homogeneous(pairs.ref).T, homogeneous(pairs.query).T
    cross, rotation = skew(motion.translation), motion.rotation
    essential = cross @ rotation
    axes = np.eye(3)
    basis = tangent_basis(motion.translation)
    slopes = np.stack(
        [cross @ skew(axis) @ rotation for axis in axes]
        + [skew(column) @ rotation for column in basis.T]
    )
    line_ref, line_query = essential @ query, essential.T @ ref
    d_line_ref, d_line_query = slopes @ query, slopes.transpose(0, 2, 1) @ ref
    variance_ref, variance_query = pairs.sigma_ref**2, pairs.sigma_query**2
    error = (ref * line_ref).sum(axis=0)
    variance = variance_ref * (line_ref[:2] ** 2).sum(axis=0)
    variance += variance_query * (line_query[:2] ** 2).sum(axis=0)
    variance = np.maximum(variance, 1e-300)
    d_error = (ref * d_line_ref).sum(axis=1)
    d_variance = 2 * variance_ref * (line_ref[:2] * d_line_ref[:, :2]).sum(axis=1)
    d_variance += 2 * variance_query * (line_query[:2] * d_line_query[:, :2]).sum(axis=1)
    residuals = error / np.sqrt(variance)
    jacobian = d_error / np.sqrt(variance) - residuals / (2 * variance) * d_variance
    normal = line_query[:2] / np.maximum(np.linalg.norm(line_query[:2], axis=0), 1e-300)
    return Linearisation(residuals[:, None], jacobian.T[:, None], normal.T[:, None])


def transfer(motion: Motion, pairs: RayPairs) -> Linearisation:
    """Whitened transfer errors into the reference image under the homography of ``motion``.

    Residuals (K, 2); derivative (K, 2, 8) with a plane, (K, 2, 3) for a pure rotation. The noise of
    the query point is carried over by the homography and added to the reference point's.
    """
    query = homogeneous(pairs.query).T
    matrix = motion.homography()
    mapped = matrix @ query
    depth = np.where(np.abs(mapped[2]) < 1e-9, 1e-9, mapped[2])
    predicted = mapped[:2] / depth
    turned = motion.rotation @ query
    # d mapped / d rotation: (delta x R q) = -[R q]x delta
    d_mapped = np.zeros((3, 3 if motion.plane is None else 8, len(pairs)))
    d_mapped[0, 1], d_mapped[0, 2] = turned[2], -turned[1]
    d_mapped[1, 0], d_mapped[1, 2] = -turned[2], turned[0]
    d_mapped[2, 0], d_mapped[2, 1] = turned[1], -turned[0]
    if motion.plane is not None:
        d_mapped[:, 3:5] = tangent_basis(motion.translation)[:, :, None] * (motion.plane @ query)
        d_mapped[:, 5:8] = motion.translation[:, None, None] * query
    # d predicted / d mapped is [1, 0, -x; 0, 1, -y] / depth.
    jacobian = (d_mapped[:2] - predicted[:, None] * d_mapped[2]) / depth
    carry = (matrix[:2, :2, None] - predicted[:, None] * matrix[2, :2, None]) / depth
    covariance = pairs.sigma_query**2 * (carry[:, None] * carry[None]).sum(axis=2)
    covariance += pairs.sigma_ref**2 * np.eye(2)[:, :, None]
    return whiten(
        predicted.T - pairs.ref,
        jacobian.transpose(2, 0, 1),
        covariance.transpose(2, 0, 1),
        np.sqrt(2) * pairs.sigma_ref,
    )


def whiten(
    residuals: Array, jacobian: Array, covariance: Array, unit: Array, other: Array | None = None
) -> Linearisation:
    """Residuals (K, 2) and derivative (K, 2, P) in units of their covariance (K, 2, 2).

    ``unit`` (K,) is the displacement on the normalised plane that counts as one in ``shift``;
    ``other`` (K, 2, S) is how the residuals change with S other quantities that may be off.
    """
    a, b, c = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    # Of the Cholesky factor [[low, 0], [b / low, high]].
    low, high = np.sqrt(a), np.sqrt(np.maximum(c - b * b / a, 1e-300))
    share = b / a

    def whitened(x: Array) -> Array:
        """The inverse factor times (K, 2, S)."""
        first, second = x[:, 0], x[:, 1]
        rest = (second - share[:, None] * first) / high[:, None]
        return np.stack((first / low[:, None], rest), axis=1)

    shift = whitened(unit[:, None, None] * np.eye(2))
    if other is not None:
        shift = np.concatenate((shift, whitened(other)), axis=2)
    return Linearisation(whitened(residuals[:, :, None])[:, :, 0], whitened(jacobian), shift)
