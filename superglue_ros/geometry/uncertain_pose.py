"""Poses with their covariance: composed and inverted, to first order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from superglue_ros.geometry.rotation import skew

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class UncertainPose:
    """``T_a_b``: ``x_a = R x_b + t``.

    ``rotation`` (3, 3), ``translation`` (3,), float64; ``covariance`` (6, 6) float64, order x y z
    then rotation about fixed axes, frame a, for ``t = t_estimate + dt`` and
    ``R = exp([dr]x) R_estimate``; all zero = exact.
    """

    rotation: Array
    translation: Array
    covariance: Array

    def __matmul__(self, other: UncertainPose) -> UncertainPose:
        """``T_a_c = T_a_b @ T_b_c``, of independent errors."""
        arm = self.rotation @ other.translation
        own, its = np.eye(6), np.zeros((6, 6))
        own[:3, 3:] = -skew(arm)
        its[:3, :3] = its[3:, 3:] = self.rotation
        return UncertainPose(
            rotation=self.rotation @ other.rotation,
            translation=arm + self.translation,
            covariance=own @ self.covariance @ own.T + its @ other.covariance @ its.T,
        )

    def inverse(self) -> UncertainPose:
        """``T_b_a``: turned by ``-R^T dr`` and moved by ``-R^T (dt + [t]x dr)``."""
        turn = self.rotation.T
        jacobian = np.zeros((6, 6))
        jacobian[:3, :3] = jacobian[3:, 3:] = -turn
        jacobian[:3, 3:] = -turn @ skew(self.translation)
        return UncertainPose(
            rotation=turn,
            translation=-turn @ self.translation,
            covariance=jacobian @ self.covariance @ jacobian.T,
        )

    def back(self, points: Array) -> Array:
        """Points (N, 3) of frame a in frame b."""
        return np.asarray((points - self.translation) @ self.rotation)
