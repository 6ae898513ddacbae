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
    ref, query = homogeneous(pairs.ref), homogeneous(pairs.query)
    cross, rotation = skew(motion.translation), motion.rotation
    essential = cross @ rotation
    axes = np.eye(3)
    basis = tangent_basis(motion.translation)
    slopes = np.stack(
        [cross @ skew(axis) @ rotation for axis in axes]
        + [skew(column) @ rotation for column in basis.T]
    )
    line_ref, line_query = query @ essential.T, ref @ essential
    variance_ref, variance_query = pairs.sigma_ref**2, pairs.sigma_query**2
    error = np.einsum("ki,ki->k", ref, line_ref)
    variance = variance_ref * (line_ref[:, :2] ** 2).sum(axis=1)
    variance += variance_query * (line_query[:, :2] ** 2).sum(axis=1)
    variance = np.maximum(variance, 1e-300)
    d_line_ref = np.einsum("pij,kj->kpi", slopes, query)
    d_line_query = np.einsum("pij,ki->kpj", slopes, ref)
    d_error = np.einsum("ki,kpi->kp", ref, d_line_ref)
    d_variance = (
        2 * variance_ref[:, None] * np.einsum("ki,kpi->kp", line_ref[:, :2], d_line_ref[:, :, :2])
    )
    d_variance += (
        2
        * variance_query[:, None]
        * np.einsum("ki,kpi->kp", line_query[:, :2], d_line_query[:, :, :2])
    )
    residuals = error / np.sqrt(variance)
    jacobian = d_error / np.sqrt(variance)[:, None]
    jacobian -= (residuals / (2 * variance))[:, None] * d_variance
    normal = line_query[:, :2]
    normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)
    return Linearisation(residuals[:, None], jacobian[:, None, :], normal[:, None, :])


def transfer(motion: Motion, pairs: RayPairs) -> Linearisation:
    """Whitened transfer errors into the reference image under the homography of ``motion``.

    Residuals (K, 2); derivative (K, 2, 8) with a plane, (K, 2, 3) for a pure rotation. The noise of
    the query point is carried over by the homography and added to the reference point's.
    """
    query = homogeneous(pairs.query)
    matrix = motion.homography()
    mapped = query @ matrix.T
    depth = np.where(np.abs(mapped[:, 2]) < 1e-9, 1e-9, mapped[:, 2])
    predicted = mapped[:, :2] / depth[:, None]
    # d predicted / d mapped
    down = np.zeros((len(pairs), 2, 3))
    down[:, 0, 0] = down[:, 1, 1] = 1 / depth
    down[:, :, 2] = -predicted / depth[:, None]
    turned = query @ motion.rotation.T
    # d mapped / d rotation: (delta x R q) = -[R q]x delta
    d_mapped = np.zeros((len(pairs), 3, 3 if motion.plane is None else 8))
    d_mapped[:, 0, 1], d_mapped[:, 0, 2] = turned[:, 2], -turned[:, 1]
    d_mapped[:, 1, 0], d_mapped[:, 1, 2] = -turned[:, 2], turned[:, 0]
    d_mapped[:, 2, 0], d_mapped[:, 2, 1] = turned[:, 1], -turned[:, 0]
    if motion.plane is not None:
        nearness = query @ motion.plane
        d_mapped[:, :, 3:5] = nearness[:, None, None] * tangent_basis(motion.translation)
        d_mapped[:, :, 5:8] = motion.translation[None, :, None] * query[:, None, :]
    carry = down @ matrix[:, :2]
    covariance = (pairs.sigma_query**2)[:, None, None] * (carry @ carry.transpose(0, 2, 1))
    covariance += (pairs.sigma_ref**2)[:, None, None] * np.eye(2)
    return whiten(predicted - pairs.ref, down @ d_mapped, covariance, np.sqrt(2) * pairs.sigma_ref)


def whiten(
    residuals: Array, jacobian: Array, covariance: Array, unit: Array, other: Array | None = None
) -> Linearisation:
    """Residuals (K, 2) and derivative (K, 2, P) in units of their covariance (K, 2, 2).

    ``unit`` (K,) is the displacement on the normalised plane that counts as one in ``shift``;
    ``other`` (K, 2, S) is how the residuals change with S other quantities that may be off.
    """
    a, b, c = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    # Inverse of the Cholesky factor [[l, 0], [b / l, h]].
    low = np.sqrt(a)
    high = np.sqrt(np.maximum(c - b * b / a, 1e-300))
    inverse = np.zeros_like(covariance)
    inverse[:, 0, 0] = 1 / low
    inverse[:, 1, 0] = -b / (a * high)
    inverse[:, 1, 1] = 1 / high
    shift = inverse * unit[:, None, None]
    if other is not None:
        shift = np.concatenate((shift, inverse @ other), axis=2)
    return Linearisation(np.einsum("kij,kj->ki", inverse, residuals), inverse @ jacobian, shift)
