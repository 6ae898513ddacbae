"""Readings of an inertial measurement unit: in order, finite, without gaps where they are used.

A reading is the specific force [m/s^2], which is 9.81 upwards at rest, and the angular rate
[rad/s], both in the axes of the sensor, as in ``sensor_msgs/Imu``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from superglue_ros.data.imu_calibration import ImuCalibration
from superglue_ros.data.message_reading import stamp_to_ns
from superglue_ros.data.trajectories import parse_floats, parse_nanoseconds, text_rows
from superglue_ros.errors import DataError

GRAVITY = 9.81
"""Its magnitude [m/s^2]; from the equator to the poles it is 9.78 to 9.83."""

log = logging.getLogger(__name__)

Array = NDArray[np.float64]

_MAX_GAP_NS = 50_000_000  # a hand turns by degrees in less
_KEPT = 1_000_000  # readings: at 200 Hz, those of the last 80 minutes
_UNIT_NEEDS = 100  # readings before their unit is judged
_ABOUT_ONE = (0.5, 2.0)  # norm of a specific force in units of g, in the median


@dataclass(frozen=True, eq=False)
class Steps:
    """``seconds`` (K,) during which ``forces`` (K, 3) [m/s^2] and ``rates`` (K, 3) [rad/s] held."""

    seconds: Array
    forces: Array
    rates: Array


class ImuReadings:
    """A growing record of readings; the oldest ones are forgotten beyond a million."""

    def __init__(self) -> None:
        self._stamps = np.empty(1024, np.int64)
        self._values = np.empty((1024, 6))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def stamps_ns(self) -> NDArray[np.int64]:
        """(N,) int64, increasing."""
        return self._stamps[: self._count]

    @property
    def forces(self) -> Array:
        """(N, 3) specific forces [m/s^2]."""
        return self._values[: self._count, :3]

    @property
    def rates(self) -> Array:
        """(N, 3) angular rates [rad/s]."""
        return self._values[: self._count, 3:]

    def add(self, stamp_ns: int, force: ArrayLike, rate: ArrayLike) -> None:
        """Add a reading: ``force`` (3,) [m/s^2] and ``rate`` (3,) [rad/s].

        Raises :class:`DataError` and adds nothing where it is not later than the one before or
        holds values that are not finite.
        """
        values = np.concatenate((np.asarray(force, float), np.asarray(rate, float)))
        if not np.isfinite(values).all():
            raise DataError(f"the IMU's reading at {stamp_ns * 1e-9:.6f} s is not finite")
        if self._count and stamp_ns <= self._stamps[self._count - 1]:
            before = self._stamps[self._count - 1] * 1e-9
            raise DataError(
                f"the IMU's reading at {stamp_ns * 1e-9:.6f} s is not later than the one before, "
                f"at {before:.6f} s: give them in order, each once"
            )
        if self._count == len(self._stamps):
            self._make_room()
        self._stamps[self._count], self._values[self._count] = stamp_ns, values
        self._count += 1

    def _make_room(self) -> None:
        kept = self._count if self._count < _KEPT else _KEPT // 2
        stamps, values = self._stamps[-kept:], self._values[-kept:]
        self._stamps, self._values = np.empty(2 * kept, np.int64), np.empty((2 * kept, 6))
        self._stamps[:kept], self._values[:kept] = stamps, values
        self._count = kept

    @property
    def extent(self) -> str:
        """Their number and times, for warnings."""
        if not self._count:
            return "none"
        first, last = self._stamps[0] * 1e-9, self._stamps[self._count - 1] * 1e-9
        return f"{self._count}, from {first:.3f} to {last:.3f} s"

    def check_unit(self) -> None:
        """Raise :class:`DataError` if the specific forces seem to be in g; needs 100 readings."""
        if self._count < _UNIT_NEEDS:
            return
        median = float(np.median(np.linalg.norm(self.forces, axis=1)))
        if _ABOUT_ONE[0] < median < _ABOUT_ONE[1]:
            raise DataError(
                f"the IMU's accelerations have a median norm of {median:.2f}, but the gravity that "
                f"they contain is 9.81 m/s^2: they seem to be in g. Multiply them by 9.80665"
            )

    def between(self, start_ns: int, end_ns: int) -> Steps | None:
        """The readings from one time to another, held over the steps between them.

        Each step has the mean of the readings at its ends; those at the two times are interpolated.
        None where the readings do not reach, or leave a gap of more than 50 ms.
        """
        stamps = self.stamps_ns
        first = int(np.searchsorted(stamps, start_ns, side="right")) - 1
        last = int(np.searchsorted(stamps, end_ns, side="left"))
        if first < 0 or last >= self._count or end_ns <= start_ns:
            return None
        stamps, values = stamps[first : last + 1], self._values[first : last + 1]
        if np.diff(stamps).max() > _MAX_GAP_NS:
            return None
        seconds = (stamps - start_ns) * 1e-9
        ends = np.array([0.0, (end_ns - start_ns) * 1e-9])
        at_ends = np.column_stack([np.interp(ends, seconds, column) for column in values.T])
        times = np.concatenate((ends[:1], seconds[1:-1], ends[1:]))
        readings = np.concatenate((at_ends[:1], values[1:-1], at_ends[1:]))
        middle = (readings[:-1] + readings[1:]) / 2
        return Steps(np.diff(times), middle[:, :3], middle[:, 3:])


@dataclass(frozen=True, eq=False)
class ImuRecording:
    """The readings of a sequence or bag, and the calibration of the sensor."""

    readings: ImuReadings
    calibration: ImuCalibration


def read_euroc_readings(path: Path) -> ImuReadings:
    """``imu0/data.csv`` of EuRoC: a time in nanoseconds, three rates, three specific forces.

    Raises :class:`DataError` naming file and line.
    """
    readings = ImuReadings()
    for number, words in text_rows(path):
        where = f"{path}, line {number}"
        if len(words) != 7:
            raise DataError(
                f"{where}: {len(words)} values, but a reading is 'timestamp, w x y z, a x y z'"
            )
        values = parse_floats(words[1:], where)
        try:
            readings.add(parse_nanoseconds(words[0], where), values[3:], values[:3])
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
    readings.check_unit()
    return readings


def add_message(readings: ImuReadings, message: Any) -> None:
    """Add a ``sensor_msgs/Imu``; raises :class:`DataError` as :meth:`ImuReadings.add` does."""
    a, w = message.linear_acceleration, message.angular_velocity
    readings.add(stamp_to_ns(message.header.stamp), (a.x, a.y, a.z), (w.x, w.y, w.z))


def readings_of_messages(messages: Iterable[Any], where: str) -> ImuReadings:
    """The readings of ``sensor_msgs/Imu`` messages; ``where`` they are from is for warnings.

    Those that are refused are left out, with one warning. Raises :class:`DataError` where none is
    left or their unit is wrong.
    """
    readings, refused = ImuReadings(), []
    for message in messages:
        try:
            add_message(readings, message)
        except DataError as error:
            refused.append(error)
    if refused:
        log.warning("%s: %d readings are left out: %s", where, len(refused), refused[0])
    if not len(readings):
        raise DataError(f"{where} holds no reading of an IMU")
    readings.check_unit()
    return readings
