"""The demonstration as a user runs it: real processes, real DDS, real matches."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from superglue_ros.cli import main
from superglue_ros.data.bag_sequences import BagSequence
from superglue_ros.data.trajectories import Trajectory, write_trajectory
from superglue_ros.synthetic.demo_room import RoomSequence, built_in_camera

FRAMES = 5
# SIFT matches in milliseconds; what the networks do is tested elsewhere.
QUICK = ["--set", "front_end.name=sift", "--set", "matcher.name=ratio", "--set", "warm_up=false"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of the room as an image folder."""
    path = tmp_path_factory.mktemp("data") / "room"
    (path / "color").mkdir(parents=True)
    camera = built_in_camera(320, 240)
    sequence = RoomSequence(frames=60, camera=camera)
    stamps, poses, lines = [], [], []
    for number, index in enumerate(range(10, 10 + 4 * FRAMES, 4)):
        item = sequence[index]
        cv2.imwrite(str(path / f"color/{number}.png"), item.image)
        cv2.imwrite(str(path / f"color/d{number}.png"), (item.depth * 1000).astype(np.uint16))
        lines.append(f"{number}.5 color/{number}.png color/d{number}.png\n")
        stamps.append(number * 10**9 + 500_000_000)
        poses.append(item.T_world_camera)
    (path / "images.txt").write_text("".join(lines))
    (fx, _, cx), (_, fy, cy), _ = camera.matrix
    (path / "intrinsics.txt").write_text(f"320 240 {fx} {fy} {cx} {cy} 0 0 0 0\n")
    write_trajectory(path / "groundtruth.tum", Trajectory(np.array(stamps), np.array(poses)))
    return path


def left_running(output: Path) -> list[str]:
    """Command lines of the demo's processes that still run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if "superglue_ros.ros" in line and str(output) in line:
            found.append(line)
    return found


@pytest.mark.ros
@pytest.mark.slow
def test_a_folder_becomes_matches_figures_and_pictures(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    arguments = ["demo", "--sequence", str(folder), "--output", str(output), "--rate", "20"]
    assert main([*arguments, *QUICK]) == 0
    summary = json.loads((output / "summary.json").read_text())
    assert summary["sequence"] == "room"
    assert summary["frames"] == FRAMES
    assert summary["dropped"] == summary["refused"] == 0
    assert summary["matches_median"] > 50
    assert summary["inliers_median"] > 40
    assert summary["rotation_error_deg_median"] < 1.0
    assert summary["direction_error_deg_median"] < 15.0
    assert summary["true_epipolar_error_px_median"] < 1.0
    assert set(summary["milliseconds_per_stage"]) == {"extract", "match", "geometry"}
    assert all(value > 0 for value in summary["milliseconds_per_stage"].values())
    for name in ("matches_1.png", "epipolar_error_1.png", "errors_over_time.png"):
        assert cv2.imread(str(output / name)) is not None
    assert not left_running(output)
    if find_spec("gtsam") is None:
        return  # the viewer shows the back-end's map
    said = ["--recorded", str(output / "output_bag"), "--animation", str(tmp_path / "walk.gif")]
    assert main(["view", str(output / "input_bag"), *said, "--width", "200"]) == 0
    with Image.open(tmp_path / "walk.gif") as picture:
        assert picture.n_frames == FRAMES - 1  # the first frame has no keyframe yet


@pytest.mark.ros
@pytest.mark.slow
def test_a_compressed_bag_with_depth_gives_the_same(folder: Path, tmp_path: Path) -> None:
    bag, output = tmp_path / "bag", tmp_path / "out"
    names = ["--image-topic", "/cam/image", "--camera-info-topic", "/cam/camera_info"]
    assert main(["to-bag", str(folder), str(bag), "--jpeg", "95", *names]) == 0
    arguments = ["demo", "--bag", str(bag), "--output", str(output), "--rate", "20", "--depth"]
    depth = ["--depth-topic", "/camera/depth/image_raw"]
    assert main([*arguments, *QUICK, *depth]) == 0
    summary = json.loads((output / "summary.json").read_text())
    assert summary["frames"] == FRAMES
    assert summary["rotation_error_deg_median"] < 1.0


@pytest.mark.ros
@pytest.mark.slow
def test_a_node_that_cannot_start_ends_the_demo(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    arguments = ["demo", "--sequence", str(folder), "--output", str(output)]
    assert main([*arguments, "--set", "matcher.name=nonsense"]) == 1
    said = capsys.readouterr().err
    assert "nonsense" in said
    assert not left_running(output)


@pytest.mark.ros
@pytest.mark.slow
def test_an_interrupt_stops_everything(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    arguments = ["--sequence", str(folder), "--output", str(output), "--rate", "0.1", *QUICK]
    demo = subprocess.Popen(
        [sys.executable, "-m", "superglue_ros.cli", "demo", *arguments], stdout=subprocess.DEVNULL
    )
    end = time.monotonic() + 60
    while not (output / "player.log").exists() or not (output / "player.log").stat().st_size:
        assert demo.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    demo.send_signal(signal.SIGINT)
    assert demo.wait(60) == 130
    assert not left_running(output)


@pytest.fixture
def quiet_bag(folder: Path, tmp_path: Path) -> Path:
    assert main(["to-bag", str(folder), str(tmp_path / "bag"), "--storage", "sqlite3"]) == 0
    return tmp_path / "bag"


def test_to_bag(quiet_bag: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequence = BagSequence(quiet_bag, depth="/camera/depth/image_raw")
    items = list(sequence)
    assert len(items) == FRAMES
    assert all(item.depth is not None and item.T_world_camera is not None for item in items)
    assert main(["to-bag", str(folder), str(quiet_bag)]) == 1
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["demo", "--sequence", "/nowhere"], "sequence /nowhere does not exist"),
        (["demo", "--bag", "/nowhere"], "bag /nowhere does not exist"),
        (["demo", "--set", "nonsense"], "is not of the form NAME=VALUE"),
        (["demo", "--frames", "0"], "must be 1 or more"),
        (["to-bag", "/nowhere", "/tmp/bag", "--jpeg", "0"], "--jpeg 0 is out of range"),
    ],
)
def test_wrong_arguments_are_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
