"""`evaluate sequence`: relative errors on closed forms, and from a folder to the table."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("gtsam")
pytest.importorskip("evo")

from superglue_ros.cli import main
from superglue_ros.evaluation.trajectory_errors import (
    kitti_errors,
    pairs_by_time,
    relative_errors,
)
from superglue_ros.geometry.rotation import exp

from .. import stereo_room


def drive(steps: int, turn_deg: float = 0.0, metres: float = 1.0) -> np.ndarray:
    """A camera that goes ahead by ``metres`` a frame and turns about y."""
    step = np.eye(4)
    step[:3, :3] = exp(np.array([0, np.deg2rad(turn_deg), 0]))
    step[:3, 3] = [0, 0, metres]
    poses = [np.eye(4)]
    for _ in range(steps):
        poses.append(poses[-1] @ step)
    return np.array(poses)


def test_errors_of_a_motion_that_is_too_long_and_turns_too_far():
    pairs = [(0, 5), (3, 4)]
    metres, degrees = relative_errors(drive(6, metres=1.1), drive(6), pairs)
    np.testing.assert_allclose(metres, [0.5, 0.1], atol=1e-12)
    np.testing.assert_allclose(degrees, 0, atol=1e-5)
    metres, degrees = relative_errors(drive(6, 2.0), drive(6, 1.5), pairs)
    np.testing.assert_allclose(degrees, [2.5, 0.5], atol=1e-6)
    stamps = np.array([0, 400, 1000, 1300, 2500]) * 1_000_000
    assert pairs_by_time(stamps, 1.0) == [(0, 2), (1, 4), (2, 4), (3, 4)]


def test_drift_as_kitti_has_it():
    """Three per cent too long: three per cent of any stretch; a turn: its degrees on 100 m."""
    found = kitti_errors(drive(400, metres=1.03), drive(400))
    assert found["drift_percent"] == pytest.approx(3, rel=0.02)
    assert found["drift_deg_per_100m"] == pytest.approx(0, abs=1e-4)
    turned = kitti_errors(drive(400, turn_deg=0.01), drive(400))
    assert turned["drift_deg_per_100m"] == pytest.approx(1, rel=0.02)
    assert np.isnan(kitti_errors(drive(50), drive(50))["drift_percent"])


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    """``sequences/07`` of four stereo pairs of the rendered room, and ``poses/07.txt``."""
    folder = tmp_path / "sequences" / "07"
    for name in ("image_0", "image_1"):
        (folder / name).mkdir(parents=True)
    views = [stereo_room.view(number) for number in range(4)]
    for number, view in enumerate(views):
        cv2.imwrite(str(folder / f"image_0/{number:06d}.png"), view.left)
        cv2.imwrite(str(folder / f"image_1/{number:06d}.png"), view.right)
    rows = [("P0", stereo_room.P_LEFT), ("P1", stereo_room.P_RIGHT)]
    lines = [f"{name}: " + " ".join(f"{v:.9e}" for v in values) for name, values in rows]
    (folder / "calib.txt").write_text("\n".join([*lines, "Tr: 1 0 0 0 0 1 0 0 0 0 1 0"]) + "\n")
    (folder / "times.txt").write_text("".join(f"{0.4 * i:.6e}\n" for i in range(4)))
    (tmp_path / "poses").mkdir()
    origin = np.linalg.inv(views[0].pose)
    poses = [(origin @ view.pose)[:3].ravel() for view in views]
    text = "\n".join(" ".join(f"{v:.9e}" for v in pose) for pose in poses)
    (tmp_path / "poses" / "07.txt").write_text(text + "\n")
    return folder


def test_stereo_pairs_of_kitti_give_a_metric_trajectory(kitti, tmp_path, capsys):
    output = tmp_path / "out"
    command = ["evaluate", "sequence", str(kitti), "--stereo", "--output", str(output)]
    assert main([*command, "--front-end", "sift", "--matcher", "ratio"]) == 0
    found = json.loads((output / "summary.json").read_text())["07"]
    assert found["metric"]
    for name in ("relative poses", "back-end"):
        errors = found["trajectories"][name]
        assert errors["placed"] == 1
        assert errors["ate_m"] < 0.02
        assert errors["scale"] == pytest.approx(1, abs=0.05)
        assert errors["rpe_1s_deg"] < 1
        assert errors["drift_percent"] is None
    lines = (output / "07" / "back_end.tum").read_text().splitlines()
    assert [float(line.split()[0]) for line in lines[1:]] == [0, 0.4, 0.8, 1.2]
    assert (output / "07" / "trajectories.png").stat().st_size > 10_000
    table = (output / "table.md").read_text()
    assert table == capsys.readouterr().out
    assert "| 07 | back-end | 4 | 0.0" in table


def test_what_cannot_be_is_refused(kitti, tmp_path, capsys):
    command = ["evaluate", "sequence", "--output", str(tmp_path / "out"), "--front-end", "sift"]
    command += ["--matcher", "ratio", str(kitti)]
    assert main([*command, "--stereo", "--depth"]) == 1
    assert "--depth and --stereo exclude each other" in capsys.readouterr().err
    assert main([*command, str(kitti)]) == 1
    assert "must have different names" in capsys.readouterr().err
    for file in (kitti / "image_1").iterdir():
        file.unlink()
    (kitti / "image_1").rmdir()
    assert main([*command, "--stereo"]) == 1
    assert "no rectified stereo pairs" in capsys.readouterr().err
