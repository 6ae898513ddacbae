"""Accuracy on closed forms, the round trip, and the command from sequence to summary."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip("gtsam")
pytest.importorskip("evo")
pytest.importorskip("skimage")

from superglue_ros.back_end.accuracy import measure
from superglue_ros.back_end.round_trip import RoundTripSequence
from superglue_ros.back_end.scene import pose_of
from superglue_ros.cli import main
from superglue_ros.data.sequences.base import open_sequence
from superglue_ros.geometry.rotation import exp

STAMPS = np.arange(20) * 100_000_000


def helix(step_deg: float = 10.0) -> list[np.ndarray]:
    angles = np.deg2rad(step_deg) * np.arange(20)
    return [pose_of(exp(np.array([0, 0, a])), np.array([np.cos(a), np.sin(a), a])) for a in angles]


def moved(poses, scale: float) -> list[np.ndarray]:
    """The same trajectory in another world and another unit."""
    turn, shift = exp(np.array([0.3, -0.5, 0.7])), np.array([4.0, -2.0, 1.0])
    return [pose_of(turn @ p[:3, :3], scale * turn @ p[:3, 3] + shift) for p in poses]


def test_another_world_is_no_error():
    accuracy = measure(STAMPS, helix(), moved(helix(), 1.0), metric=True)
    assert (accuracy.ate_m, accuracy.rpe_m) == pytest.approx((0, 0), abs=1e-9)
    assert accuracy.rpe_deg == pytest.approx(0, abs=1e-4)
    assert accuracy.scale_error == pytest.approx(0, abs=1e-9)


def test_another_unit_is_an_error_only_where_it_should_be_the_metre():
    poses = moved(helix(), 0.8)
    monocular = measure(STAMPS, helix(), poses, metric=False)
    assert monocular.ate_m == pytest.approx(0, abs=1e-9)
    metric = measure(STAMPS, helix(), poses, metric=True)
    assert metric.ate_m > 0.05
    assert metric.scale == pytest.approx(1 / 0.8)
    assert metric.scale_error == pytest.approx(0.2)


def test_turning_too_far_at_each_step_is_the_relative_error():
    accuracy = measure(STAMPS, helix(10.0), helix(10.5), metric=False)
    assert accuracy.rpe_deg == pytest.approx(0.5, abs=1e-3)


def test_frames_without_pose_are_left_out_and_counted():
    poses = moved(helix(), 1.0)
    poses[3] = poses[7] = None
    accuracy = measure(STAMPS, helix(), poses, metric=True)
    assert accuracy.placed == pytest.approx(0.9)
    assert accuracy.ate_m == pytest.approx(0, abs=1e-9)
    assert measure(STAMPS, helix(), [None] * 20, metric=True) is None


def test_a_camera_at_rest_cannot_be_aligned():
    assert measure(STAMPS, helix(), [np.eye(4)] * 20, metric=True) is None
    assert measure(STAMPS, [np.eye(4)] * 20, helix(), metric=False) is None


def test_the_round_trip_returns_to_its_start():
    sequence = RoundTripSequence()
    first, last = sequence[0], sequence[72]
    np.testing.assert_allclose(last.T_world_camera, first.T_world_camera, atol=1e-9)
    assert len(sequence) > 73
    assert first.depth.shape == first.image.shape[:2] == (480, 640)
    assert first.stamp_ns < last.stamp_ns


def test_the_command_writes_trajectories_plot_and_summary(tmp_path, capsys):
    command = ["slam", "--frames", "4", "--matcher", "ratio", "--depth", "--output", str(tmp_path)]
    command += ["--set", "front_end.name=sift", "--set", "device=cpu"]
    assert main(command) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [run["poses"] for run in summary["runs"]] == ["relative poses", "back-end"]
    for run in summary["runs"]:
        assert run["placed"] == 1.0
        assert run["ate_m"] < 0.05
    assert summary["ratio"]["metric"]
    assert (tmp_path / "trajectories.png").stat().st_size > 10_000
    assert len((tmp_path / "ratio_back_end.tum").read_text().splitlines()) >= 4
    assert "round-trip" in capsys.readouterr().out


def test_a_setting_without_value_is_refused(tmp_path, capsys):
    command = ["slam", "--output", str(tmp_path), "--set", "keyframes.window"]
    assert main(command) == 1
    assert "NAME=VALUE" in capsys.readouterr().err


def test_a_stride_below_one_is_refused(tmp_path, capsys):
    command = ["slam", "--output", str(tmp_path), "--stride", "0"]
    assert main([*command, "--set", "front_end.name=sift", "--set", "matcher.name=ratio"]) == 1
    assert "--stride 0" in capsys.readouterr().err


def test_a_stride_takes_every_nth_frame(tmp_path):
    command = ["slam", "--frames", "5", "--stride", "2", "--matcher", "ratio", "--depth"]
    command += ["--set", "front_end.name=sift", "--set", "device=cpu", "--output", str(tmp_path)]
    assert main(command) == 0
    lines = (tmp_path / "ratio_back_end.tum").read_text().splitlines()
    assert len(lines) == 1 + 3  # a comment and frames 0, 2, 4


@pytest.fixture
def euroc(tmp_path):
    """The first frames of the round trip in EuRoC's layout, with an IMU in g."""
    sequence, home = RoundTripSequence(), tmp_path / "euroc" / "mav0"
    (home / "cam0" / "data").mkdir(parents=True)
    (home / "imu0").mkdir()
    frames = [sequence[index] for index in range(3)]
    for frame in frames:
        cv2.imwrite(str(home / "cam0" / "data" / f"{frame.stamp_ns}.png"), frame.image)
    rows = [f"{frame.stamp_ns},{frame.stamp_ns}.png\n" for frame in frames]
    (home / "cam0" / "data.csv").write_text("".join(rows))
    k, recorded = sequence.camera.matrix, sequence.read_imu()
    camera = {
        "T_BS": {"data": np.eye(4).ravel().tolist()},
        "resolution": [sequence.camera.width, sequence.camera.height],
        "intrinsics": [float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])],
        "distortion_model": "radial-tangential",
        "distortion_coefficients": [0.0] * 4,
    }
    values = vars(recorded.calibration)
    imu = {"T_BS": {"data": values["T_camera_imu"].ravel().tolist()}}
    imu |= {name: value for name, value in values.items() if name.startswith(("acc", "gyr"))}
    for name, sensor in (("cam0", camera), ("imu0", imu)):
        (home / name / "sensor.yaml").write_text(yaml.safe_dump(sensor))
    readings = recorded.readings
    rows = zip(readings.stamps_ns, readings.rates, readings.forces / 9.80665, strict=True)
    text = [",".join(str(value) for value in (stamp, *rate, *force)) for stamp, rate, force in rows]
    (home / "imu0" / "data.csv").write_text("\n".join(text))
    return tmp_path / "euroc"


def test_the_imu_of_a_sequence_is_used_unless_it_is_left_out(euroc, tmp_path, capsys):
    command = ["slam", str(euroc), "--matcher", "ratio", "--output", str(tmp_path / "out")]
    command += ["--set", "front_end.name=sift", "--set", "device=cpu"]
    assert main(command) == 1
    assert "seem to be in g" in capsys.readouterr().err
    assert main([*command, "--no-imu"]) == 0
    assert not json.loads((tmp_path / "out" / "summary.json").read_text())["imu"]
    file = euroc / "mav0" / "imu0" / "data.csv"
    rows = [line.split(",") for line in file.read_text().splitlines()]
    metric = [[*row[:4], *(str(9.80665 * float(a)) for a in row[4:])] for row in rows]
    file.write_text("\n".join(",".join(row) for row in metric))
    assert main(command) == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["imu"]
    recorded, true = open_sequence(euroc).read_imu(), RoundTripSequence().read_imu()
    np.testing.assert_allclose(recorded.readings.forces, true.readings.forces, rtol=1e-9)
    np.testing.assert_array_equal(recorded.readings.stamps_ns, true.readings.stamps_ns)
    np.testing.assert_allclose(recorded.calibration.T_camera_imu, true.calibration.T_camera_imu)
