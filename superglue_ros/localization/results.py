"""Poses of queries as files, and how good they are (table 7 of the paper, appendix B)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.trajectories import quaternion_of
from superglue_ros.geometry.angle_errors import rotation_error_deg

Pose = NDArray[np.float64]

THRESHOLDS = ((0.25, 2.0), (0.5, 5.0), (5.0, 10.0))
"""Metres and degrees, of the benchmark of Sattler et al. (CVPR 2018)."""


def write_hloc(path: Path, poses: Mapping[str, Pose]) -> None:
    """``name qw qx qy qz tx ty tz`` a line, of ``T_camera_map``, as hloc and the benchmark do."""
    lines = []
    for name, pose in poses.items():
        inverse: Pose = np.asarray(np.linalg.inv(pose), np.float64)
        x, y, z, w = quaternion_of(inverse[:3, :3])
        numbers = " ".join(f"{value:.9g}" for value in (w, x, y, z, *inverse[:3, 3]))
        lines.append(f"{name} {numbers}\n")
    path.write_text("".join(lines), encoding="utf-8")


def pose_errors(pose: Pose, truth: Pose) -> tuple[float, float]:
    """Distance of the camera centres, and angle between the rotations in degrees."""
    distance = float(np.linalg.norm(pose[:3, 3] - truth[:3, 3]))
    return distance, rotation_error_deg(pose[:3, :3], truth[:3, :3])


def figures(poses: Sequence[Pose | None], truths: Sequence[Pose | None]) -> dict[str, Any]:
    """Shares within :data:`THRESHOLDS` and medians, over the queries whose truth is known.

    A query that was not localized counts, with infinite errors; medians are None where they are
    infinite, or where no truth is known.
    """
    errors = np.array(
        [
            (np.inf, np.inf) if pose is None else pose_errors(pose, truth)
            for pose, truth in zip(poses, truths, strict=True)
            if truth is not None
        ]
    ).reshape(-1, 2)
    out: dict[str, Any] = {
        "queries": len(poses),
        "localized": sum(pose is not None for pose in poses),
        "with_truth": len(errors),
        "within": {},
        "median_m": None,
        "median_deg": None,
    }
    if not len(errors):
        return out
    for metres, degrees in THRESHOLDS:
        share = float(((errors[:, 0] <= metres) & (errors[:, 1] <= degrees)).mean())
        out["within"][f"{metres:g} m, {degrees:g} deg"] = share
    for name, median in zip(("median_m", "median_deg"), np.median(errors, axis=0), strict=True):
        out[name] = float(median) if np.isfinite(median) else None
    return out
