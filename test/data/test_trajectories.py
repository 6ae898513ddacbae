"""Trajectories: the TUM text format and poses in between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from superglue_ros.data.trajectories import (
    Trajectory,
    format_stamp,
    parse_stamp,
    quaternion_of,
    read_trajectory,
    write_trajectory,
)
from superglue_ros.errors import DataError


def pose(angle: float, x: float) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec([0, 0, angle]).as_matrix()
    T[0, 3] = x
    return T


TWO = Trajectory(np.array([0, 100_000_000]), np.array([pose(0.0, 0.0), pose(0.4, 1.0)]))


def test_poses_between_are_interpolated() -> None:
    np.testing.assert_allclose(TWO.at(25_000_000), pose(0.1, 0.25), atol=1e-12)


def test_poses_at_and_next_to_a_stamp_are_its_own() -> None:
    np.testing.assert_array_equal(TWO.at(100_000_000), TWO.poses[1])
    np.testing.assert_array_equal(TWO.at(100_900_000), TWO.poses[1])


def test_no_pose_outside_nor_in_gaps() -> None:
    assert TWO.at(-2_000_000) is None
    assert TWO.at(102_000_000) is None
    assert TWO.at(50_000_000, max_gap_s=0.05) is None
    assert Trajectory(np.zeros(0, np.int64), np.zeros((0, 4, 4))).at(0) is None


@given(st.integers(0, 4_000_000_000_000_000_000))
def test_stamps_survive_text(stamp_ns: int) -> None:
    assert parse_stamp(format_stamp(stamp_ns), "") == stamp_ns


@settings(max_examples=30)
@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_quaternions_have_unit_norm_and_positive_w(vector: list[float]) -> None:
    rotation = Rotation.from_rotvec(vector).as_matrix()
    quaternion = quaternion_of(rotation)
    assert np.linalg.norm(quaternion) == pytest.approx(1.0)
    assert quaternion[3] >= 0
    np.testing.assert_allclose(Rotation.from_quat(quaternion).as_matrix(), rotation, atol=1e-9)


def test_files_are_read_as_written(tmp_path: Path) -> None:
    write_trajectory(tmp_path / "t.tum", TWO)
    again = read_trajectory(tmp_path / "t.tum")
    np.testing.assert_array_equal(again.stamps_ns, TWO.stamps_ns)
    np.testing.assert_allclose(again.poses, TWO.poses, atol=1e-8)


@pytest.mark.parametrize(
    "line, message",
    [
        ("1.0 0 0 0 0 0 1", "line 3: 7 values"),
        ("1.0 0 0 0 0 0 0 2", "line 3: quaternion .* norm 2"),
        ("1.0 0 0 x 0 0 0 1", "line 3: 'x' is not a number"),
        ("1.0 0 0 nan 0 0 0 1", "line 3: 'nan' is not finite"),
        ("then 0 0 0 0 0 0 1", "line 3: 'then' is not a timestamp"),
        ("nan 0 0 0 0 0 0 1", "line 3: 'nan' is not a timestamp"),
        ("-1 0 0 0 0 0 0 1", "line 3: timestamp -1 is negative"),
        ("0.5 0 0 0 0 0 0 1", "line 3: timestamp 0.5 is not later"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "t.tum"
    path.write_text(f"# a comment\n0.5 0 0 0 0 0 0 1\n{line}\n")
    with pytest.raises(DataError, match=message):
        read_trajectory(path)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.tum does not exist"):
        read_trajectory(tmp_path / "none.tum")
    (tmp_path / "empty.tum").write_text("# nothing\n")
    with pytest.raises(DataError, match="holds no pose"):
        read_trajectory(tmp_path / "empty.tum")


@pytest.mark.parametrize("word", ["1e999999", "-1e999999", "1e30", "NaN", "Infinity", "9" * 5000])
def test_stamps_beyond_time_are_refused(word: str) -> None:
    with pytest.raises(DataError, match="line 3") as caught:
        parse_stamp(word, "line 3")
    assert len(str(caught.value)) < 200
