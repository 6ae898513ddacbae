"""The calibration of an IMU beside a camera, from the files of Kalibr and of EuRoC.

Kalibr (Rehder et al., ICRA 2016) writes where the IMU is and the time shift into
``*camchain-imucam*.yaml`` (``cam0``: ``T_cam_imu``, ``timeshift_cam_imu``), and reads the noise
from ``imu.yaml``. EuRoC has all but the shift in ``imu0/sensor.yaml`` and ``cam0/sensor.yaml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import ConfigError, DataError
from superglue_ros.settings import read_yaml

_NOISE = (
    "accelerometer_noise_density",
    "accelerometer_random_walk",
    "gyroscope_noise_density",
    "gyroscope_random_walk",
)
_MAX_SHIFT_S = 1.0
_RIGID = 1e-3  # how far a rotation may be from orthogonal, as rounded text


@dataclass(frozen=True, eq=False)
class ImuCalibration:
    """``T_camera_imu`` (4, 4) and the sensor's noise, in the units of Kalibr.

    Densities of white noise [m/s^2/sqrt(Hz), rad/s/sqrt(Hz)] and random walks of the biases
    [m/s^3/sqrt(Hz), rad/s^2/sqrt(Hz)]. ``time_shift_s``: the IMU's clock shows this much more than
    the camera's. Raises :class:`DataError` where a value cannot be.
    """

    T_camera_imu: NDArray[np.float64]
    accelerometer_noise_density: float
    accelerometer_random_walk: float
    gyroscope_noise_density: float
    gyroscope_random_walk: float
    time_shift_s: float = 0.0

    def __post_init__(self) -> None:
        for name in _NOISE:
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise DataError(f"{name} must be a positive number, not {value!r}")
        _check_rigid(self.T_camera_imu, "T_camera_imu")
        if not abs(self.time_shift_s) <= _MAX_SHIFT_S:
            raise DataError(
                f"the time shift between camera and IMU is {self.time_shift_s!r} s: clocks that "
                f"differ by more than a second cannot be used, set both by one clock"
            )


def read_imu_calibration(path: str | Path) -> ImuCalibration:
    """The calibration from Kalibr's ``*camchain-imucam*.yaml`` or EuRoC's ``imu0/sensor.yaml``.

    The noise is in the same file (at the top or under ``imu0``), or in the ``*imu*.yaml`` beside
    it; EuRoC's camera is in ``cam0/sensor.yaml`` beside the IMU's folder. Raises
    :class:`DataError` naming the file and what is missing.
    """
    path = Path(path)
    values = _read(path)
    camera = values.get("cam0", values)
    if isinstance(camera, dict) and "T_cam_imu" in camera:
        T_camera_imu = _rigid_motion(camera["T_cam_imu"], "T_cam_imu", path)
        shift = camera.get("timeshift_cam_imu", 0.0)
        noise = _noise_beside(path, values)
    elif "T_BS" in values:
        other = path.parent.parent / "cam0" / "sensor.yaml"
        T_camera_imu = np.linalg.inv(body_pose(other, _read(other))) @ body_pose(path, values)
        shift, noise = 0.0, values
    else:
        raise DataError(
            f"{path} has neither T_cam_imu (Kalibr's *camchain-imucam*.yaml) nor T_BS (EuRoC's "
            f"imu0/sensor.yaml): it does not say where the IMU is"
        )
    numbers = {name: _number(noise, name, path) for name in _NOISE}
    try:
        shift = float(shift)
        return ImuCalibration(T_camera_imu=T_camera_imu, **numbers, time_shift_s=shift)
    except (DataError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: {error}") from error


def body_pose(path: Path, values: dict[str, Any]) -> NDArray[np.float64]:
    """``T_BS`` (4, 4) of a ``sensor.yaml`` of EuRoC, the pose of a sensor in the body."""
    entry = values.get("T_BS")
    if not isinstance(entry, dict) or "data" not in entry:
        raise DataError(f"{path} has no T_BS, the pose of the sensor in the body")
    return _rigid_motion(entry["data"], "T_BS", path)


def _rigid_motion(entry: Any, name: str, path: Path) -> NDArray[np.float64]:
    """A rigid motion (4, 4) from YAML; raises :class:`DataError`."""
    try:
        matrix = np.asarray(entry, np.float64).reshape(4, 4)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: {name} must be 16 numbers, not {entry!r:.60}") from error
    try:
        _check_rigid(matrix, name)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return matrix


def _check_rigid(matrix: NDArray[np.float64], name: str) -> None:
    with np.errstate(all="ignore"):
        turn = matrix[:3, :3]
        rigid = np.abs(turn @ turn.T - np.eye(3)).max() < _RIGID and np.linalg.det(turn) > 0
    if not (rigid and np.isfinite(matrix).all() and np.array_equal(matrix[3], [0, 0, 0, 1])):
        raise DataError(f"{name} is no rotation and translation: {matrix.tolist()}")


def _noise_beside(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    for other in (None, *sorted(path.parent.glob("*imu*.yaml"))):
        found = values if other is None else _read(other)
        for entry in (found, found.get("imu0")):
            if isinstance(entry, dict) and _NOISE[0] in entry:
                return entry
    raise DataError(
        f"neither {path} nor an *imu*.yaml beside it has the noise of the IMU: "
        f"{', '.join(_NOISE)}. Put Kalibr's imu.yaml there"
    )


def _number(values: dict[str, Any], name: str, path: Path) -> float:
    try:
        return float(values[name])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: {name} of the IMU is missing or no number") from error


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"the IMU's calibration {path} does not exist")
    try:
        return read_yaml(path)
    except ConfigError as error:
        raise DataError(str(error)) from error
