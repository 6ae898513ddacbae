"""Relative errors of trajectories over stretches of time and of way, as benchmarks have them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from superglue_ros.geometry.angle_errors import rotation_error_deg

Floats = NDArray[np.float64]

KITTI_LENGTHS_M = tuple(range(100, 900, 100))
_KITTI_STEP = 10  # frames between two starts


def relative_errors(
    estimate: Floats, truth: Floats, pairs: Iterable[tuple[int, int]]
) -> tuple[Floats, Floats]:
    """Errors of the motion between two frames: metres (K,) and degrees (K,).

    ``estimate``, ``truth`` (N, 4, 4) ``T_world_camera``; ``pairs`` of frames (first, last).
    """
    metres, degrees = [], []
    for first, last in pairs:
        moved = np.linalg.inv(estimate[first]) @ estimate[last]
        true = np.linalg.inv(truth[first]) @ truth[last]
        metres.append(float(np.linalg.norm((np.linalg.inv(moved) @ true)[:3, 3])))
        degrees.append(rotation_error_deg(moved[:3, :3], true[:3, :3]))
    return np.array(metres), np.array(degrees)


def pairs_by_time(stamps_ns: NDArray[np.int64], seconds: float) -> list[tuple[int, int]]:
    """Every frame and the first that is at least ``seconds`` later (TUM RGB-D takes 1 s)."""
    ends = np.searchsorted(stamps_ns, stamps_ns + round(seconds * 1e9))
    return [(i, int(j)) for i, j in enumerate(ends) if j < len(stamps_ns)]


def kitti_errors(estimate: Floats, truth: Floats) -> dict[str, float]:
    """KITTI's drift: translation in per cent and rotation in degrees per 100 m.

    Mean over stretches of 100, 200, ... 800 m that start at every tenth frame; NaN where the way is
    shorter than 100 m.
    """
    way = np.r_[0, np.cumsum(np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1))]
    percent, degrees = [], []
    for length in KITTI_LENGTHS_M:
        starts = range(0, len(truth), _KITTI_STEP)
        pairs = [(i, int(np.searchsorted(way, way[i] + length, "right"))) for i in starts]
        there = [pair for pair in pairs if pair[1] < len(truth)]
        off, turned = relative_errors(estimate, truth, there)
        percent += (100 * off / length).tolist()
        degrees += (100 * turned / length).tolist()
    if not percent:
        return {"drift_percent": float("nan"), "drift_deg_per_100m": float("nan")}
    return {
        "drift_percent": float(np.mean(percent)),
        "drift_deg_per_100m": float(np.mean(degrees)),
    }
