"""The layout of the EuRoC MAV data sets (Burri et al., IJRR 2016): camera 0 and the IMU.

``mav0/cam0`` with ``data.csv``, ``data/`` and ``sensor.yaml``; the poses of the body in
``mav0/state_groundtruth_estimate0/data.csv`` are moved to the camera. ``mav0/imu0`` with
``data.csv`` and ``sensor.yaml`` may be missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.imu_calibration import body_pose
from superglue_ros.data.sequences.base import FolderSequence, Row, camera_of, check_order
from superglue_ros.data.trajectories import (
    Trajectory,
    parse_floats,
    parse_nanoseconds,
    pose_from_quaternion,
    text_rows,
)
from superglue_ros.errors import ConfigError, DataError
from superglue_ros.settings import read_yaml


class EurocLayout:
    """See :class:`~superglue_ros.data.sequences.base.Layout`."""

    def recognises(self, path: Path) -> bool:
        """By ``mav0/cam0/data.csv``; ``path`` may be ``mav0`` too."""
        return (_home(path) / "cam0" / "data.csv").is_file()

    def open(self, path: Path, depth_unit_m: float | None, root: Path | None) -> FolderSequence:
        """See :class:`~superglue_ros.data.sequences.base.Layout`; ``root`` is not used."""
        home = _home(path)
        sensor = home / "cam0" / "sensor.yaml"
        try:
            values = read_yaml(sensor)
        except ConfigError as error:
            raise DataError(str(error)) from error
        width, height = _numbers(values, "resolution", 2, sensor)
        model = str(values.get("distortion_model", "")).replace("-", "").lower()
        if model not in ("radialtangential", "radtan"):
            raise DataError(f"{sensor}: distortion_model must be radial-tangential, not {model!r}")
        intrinsics = _numbers(values, "intrinsics", 4, sensor)
        lens = _numbers(values, "distortion_coefficients", 4, sensor)
        camera = camera_of(int(width), int(height), np.r_[intrinsics, lens], str(sensor))
        rows = []
        for number, words in text_rows(home / "cam0" / "data.csv"):
            where = f"{home / 'cam0' / 'data.csv'}, line {number}"
            if len(words) != 2:
                raise DataError(f"{where}: {len(words)} values, but a line is 'timestamp,file'")
            rows.append(
                Row(
                    stamp_ns=parse_nanoseconds(words[0], where),
                    image=home / "cam0/data" / words[1],
                    depth=None,
                    camera=camera,
                )
            )
        check_order(rows, home / "cam0" / "data.csv")
        truth = home / "state_groundtruth_estimate0" / "data.csv"
        trajectory = None
        if truth.is_file():
            trajectory = _poses(truth, body_pose(sensor, values))
        name = path.resolve().parent.name if path.name == "mav0" else path.name
        imu = home / "imu0" if (home / "imu0" / "data.csv").is_file() else None
        return FolderSequence(name, rows, trajectory, depth_unit_m or 1.0, imu=imu)


def _home(path: Path) -> Path:
    return path if path.name == "mav0" else path / "mav0"


def _numbers(values: dict[str, Any], name: str, count: int, file: Path) -> NDArray[np.float64]:
    try:
        found = np.asarray(values[name], np.float64).ravel()
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: {name} is missing or no list of numbers") from error
    if len(found) != count or not np.isfinite(found).all():
        raise DataError(f"{file}: {name} must be {count} finite numbers, not {values[name]!r:.60}")
    return found


def _poses(path: Path, T_body_camera: NDArray[np.float64]) -> Trajectory:
    """Lines ``timestamp, p x y z, q w x y z, ...`` of the body in the world."""
    stamps, poses = [], []
    for number, words in text_rows(path):
        where = f"{path}, line {number}"
        if len(words) < 8:
            raise DataError(f"{where}: {len(words)} values, but a pose has 8")
        values = parse_floats(words[1:8], where)
        if abs(float(np.linalg.norm(values[3:])) - 1) > 0.01:
            raise DataError(f"{where}: the quaternion's norm is not 1")
        stamps.append(parse_nanoseconds(words[0], where))
        poses.append(pose_from_quaternion(values[:3], values[[4, 5, 6, 3]]) @ T_body_camera)
        if len(stamps) > 1 and stamps[-1] <= stamps[-2]:
            raise DataError(f"{where}: timestamp {words[0]} is not later than the line before")
    if not stamps:
        raise DataError(f"{path} holds no pose")
    return Trajectory(np.array(stamps, np.int64), np.array(poses))
