"""Trajectory errors: ATE and RPE by evo, after alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from evo.core import metrics
from evo.core.geometry import GeometryException
from evo.core.trajectory import PoseTrajectory3D
from evo.core.units import Unit

from superglue_ros.back_end.scene import Array
from superglue_ros.geometry.rotation import nearest

MIN_POSES = 3


@dataclass(frozen=True, eq=False)
class Accuracy:
    """Errors of an estimated trajectory against the true one.

    ``ate_m`` is the root mean square distance after alignment by a rigid motion (metric) or a
    similarity; ``rpe_m`` and ``rpe_deg`` are the root mean square errors of the motion from frame
    to frame; ``scale`` is the factor that scales the estimate to the truth, and ``placed``
    the share of frames with a pose. ``aligned`` and ``truth`` (N, 4, 4) are the
    compared poses, ``indices`` (N,) the frames they belong to.
    """

    ate_m: float
    rpe_m: float
    rpe_deg: float
    scale: float
    placed: float
    aligned: Array
    truth: Array
    indices: Array

    @property
    def scale_error(self) -> float:
        """Relative error of the scale: 0.02 = the estimate is 2 % too large or too small."""
        return abs(1 / self.scale - 1)

    def figures(self) -> dict[str, float]:
        """The errors by name, for a summary file."""
        names = ("ate_m", "rpe_m", "rpe_deg", "scale", "placed")
        return {name: getattr(self, name) for name in names}


def measure(
    stamps_ns: Array, truth: Sequence[Array | None], poses: Sequence[Array | None], metric: bool
) -> Accuracy | None:
    """Compare the frames that have both poses.

    None if those are fewer than three, or cannot be aligned as one of both rests or goes straight.
    """
    indices = [
        i
        for i, (a, b) in enumerate(zip(truth, poses, strict=True))
        if a is not None and b is not None
    ]
    if len(indices) < MIN_POSES:
        return None
    seconds = np.asarray(stamps_ns, float)[indices] * 1e-9
    reference = _trajectory([truth[i] for i in indices], seconds)
    estimate = _trajectory([poses[i] for i in indices], seconds)
    try:
        _, _, scale = _trajectory([poses[i] for i in indices], seconds).align(
            reference, correct_scale=True
        )
        estimate.align(reference, correct_scale=not metric)
    except GeometryException:
        return None
    return Accuracy(
        ate_m=_rmse(metrics.APE(metrics.PoseRelation.translation_part), reference, estimate),
        rpe_m=_rmse(_rpe(metrics.PoseRelation.translation_part), reference, estimate),
        rpe_deg=_rmse(_rpe(metrics.PoseRelation.rotation_angle_deg), reference, estimate),
        scale=float(scale),
        placed=len(indices) / max(sum(pose is not None for pose in truth), 1),
        aligned=np.array(estimate.poses_se3),
        truth=np.array(reference.poses_se3),
        indices=np.array(indices),
    )


def _trajectory(poses: Sequence[Array | None], seconds: Array) -> PoseTrajectory3D:
    valid = []
    for pose in poses:
        assert pose is not None  # the caller kept only frames with both poses
        clean = np.array(pose, float)
        clean[:3, :3] = nearest(clean[:3, :3])  # evo is strict about products of many rotations
        valid.append(clean)
    return PoseTrajectory3D(poses_se3=valid, timestamps=seconds)


def _rpe(relation: metrics.PoseRelation) -> metrics.RPE:
    return metrics.RPE(relation, delta=1, delta_unit=Unit.frames, all_pairs=False)


def _rmse(
    metric: metrics.APE | metrics.RPE, reference: PoseTrajectory3D, estimate: PoseTrajectory3D
) -> float:
    metric.process_data((reference, estimate))
    return float(metric.get_statistic(metrics.StatisticsType.rmse))
