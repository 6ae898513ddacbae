"""Camera trajectories: stamped poses in the TUM text format, and interpolation.

A line is ``timestamp tx ty tz qx qy qz qw``: seconds, metres, unit quaternion; ``T_world_camera``,
optical axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from superglue_ros.errors import DataError
from superglue_ros.files import open_regular

_END_OF_TIME_NS = 2**63  # in 64 bits
_END_OF_TIME_S = _END_OF_TIME_NS // 10**9
_MAX_BYTES = 256 << 20  # of a text file
_NEAR_NS = 1_000_000  # a pose this near in time is used without interpolation


@dataclass(frozen=True, eq=False)
class Trajectory:
    """``stamps_ns`` (N,) int64, increasing; ``poses`` (N, 4, 4) float64, ``T_world_camera``."""

    stamps_ns: NDArray[np.int64]
    poses: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def at(self, stamp_ns: int, max_gap_s: float = 0.2) -> NDArray[np.float64] | None:
        """Pose (4, 4) at a time: linear in position, spherical-linear in rotation.

        None outside the trajectory and in gaps longer than ``max_gap_s``: no pose is better than a
        guessed one.
        """
        if not len(self):
            return None
        after = int(np.searchsorted(self.stamps_ns, stamp_ns))
        for index in (after - 1, after):
            if 0 <= index < len(self) and abs(int(self.stamps_ns[index]) - stamp_ns) <= _NEAR_NS:
                return self.poses[index]
        if after in (0, len(self)):
            return None
        start, end = int(self.stamps_ns[after - 1]), int(self.stamps_ns[after])
        if end - start > max_gap_s * 1e9:
            return None
        share = (stamp_ns - start) / (end - start)
        before, behind = self.poses[after - 1], self.poses[after]
        pose = np.eye(4)
        turn = Slerp([0.0, 1.0], Rotation.from_matrix([before[:3, :3], behind[:3, :3]]))
        pose[:3, :3] = turn(share).as_matrix()
        pose[:3, 3] = (1 - share) * before[:3, 3] + share * behind[:3, 3]
        return pose


def read_trajectory(path: Path) -> Trajectory:
    """A trajectory in the TUM format; raises :class:`DataError` naming file and line."""
    stamps, poses = [], []
    for number, words in text_rows(path):
        where = f"{path}, line {number}"
        if len(words) != 8:
            raise DataError(
                f"{where}: {len(words)} values, but a pose is 'timestamp tx ty tz qx qy qz qw'"
            )
        values = parse_floats(words[1:], where)
        norm = float(np.linalg.norm(values[3:]))
        if abs(norm - 1) > 0.01:
            raise DataError(f"{where}: quaternion (qx qy qz qw) has norm {norm:.3g}, not 1")
        stamps.append(parse_stamp(words[0], where))
        poses.append(pose_from_quaternion(values[:3], values[3:]))
        if len(stamps) > 1 and stamps[-1] <= stamps[-2]:
            raise DataError(f"{where}: timestamp {words[0]} is not later than the line before")
    if not stamps:
        raise DataError(f"{path} holds no pose: a line is 'timestamp tx ty tz qx qy qz qw'")
    return Trajectory(np.array(stamps, np.int64), np.array(poses))


def write_trajectory(path: Path, trajectory: Trajectory) -> None:
    """Write a trajectory in the TUM format."""
    lines = ["# timestamp[s] tx ty tz qx qy qz qw : T_world_camera, metres, optical axes"]
    for stamp_ns, pose in zip(trajectory.stamps_ns, trajectory.poses, strict=True):
        values = [*pose[:3, 3], *quaternion_of(pose[:3, :3])]
        lines.append(" ".join([format_stamp(int(stamp_ns)), *(f"{v:.9g}" for v in values)]))
    path.write_text("\n".join(lines) + "\n")


def write_placed(
    path: Path, stamps_ns: NDArray[Any], poses: Sequence[NDArray[np.float64] | None]
) -> None:
    """Write the poses that are not None in the TUM format; no file without any."""
    placed = [index for index, pose in enumerate(poses) if pose is not None]
    if placed:
        array = np.array([poses[index] for index in placed])
        write_trajectory(path, Trajectory(stamps_ns[placed].astype(np.int64), array))


def pose_from_quaternion(
    position: NDArray[np.float64], quaternion: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Pose (4, 4) of a position (3,) and a quaternion (4,), order x y z w; it is normalised."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat(quaternion).as_matrix()
    pose[:3, 3] = position
    return pose


def quaternion_of(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit quaternion (4,), order x y z w, w >= 0, of a rotation matrix (3, 3)."""
    quaternion = Rotation.from_matrix(rotation).as_quat()
    return np.asarray(quaternion if quaternion[3] >= 0 else -quaternion)


def text_rows(path: Path, max_bytes: int = _MAX_BYTES) -> Iterator[tuple[int, list[str]]]:
    """Line numbers (from 1) and words of a text file, without comments (#) and empty lines."""
    try:
        with open_regular(path, max_bytes) as file:
            text = file.read().decode()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].replace(",", " ").split()
        if words:
            yield number, words


def parse_floats(words: Iterable[str], where: str) -> NDArray[np.float64]:
    """Finite numbers; raises :class:`DataError` that says ``where``."""
    values = []
    for word in words:
        try:
            value = float(word)
        except ValueError:
            raise DataError(f"{where}: {word[:40]!r} is not a number") from None
        if not np.isfinite(value):
            raise DataError(f"{where}: {word!r} is not finite")
        values.append(value)
    return np.array(values)


def parse_stamp(word: str, where: str) -> int:
    """Seconds as decimal text to nanoseconds, without the rounding of a float."""
    try:
        seconds = Decimal(word)
        # Written out, 1e999999 has a million digits: compare before.
        if not abs(seconds) < _END_OF_TIME_S:
            raise OverflowError
        stamp = int((seconds * 1_000_000_000).to_integral_value())
    except (InvalidOperation, ValueError, OverflowError):
        raise DataError(f"{where}: {word[:40]!r} is not a timestamp in seconds") from None
    if stamp < 0:
        raise DataError(f"{where}: timestamp {word} is negative")
    return stamp


def parse_nanoseconds(word: str, where: str) -> int:
    """A timestamp in nanoseconds; raises :class:`DataError` that says ``where``."""
    if not word.isdecimal() or len(word) > 19 or int(word) >= _END_OF_TIME_NS:
        raise DataError(f"{where}: {word[:40]!r} is not a timestamp in nanoseconds")
    return int(word)


def format_stamp(stamp_ns: int) -> str:
    """Nanoseconds as seconds, decimal text."""
    return f"{stamp_ns // 1_000_000_000}.{stamp_ns % 1_000_000_000:09d}"
