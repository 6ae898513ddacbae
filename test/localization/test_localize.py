"""Queries of a rendered room in a map of other views of it, through the commands themselves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from superglue_ros.cli import main
from superglue_ros.config import Config
from superglue_ros.data.trajectories import Trajectory, read_trajectory, write_trajectory
from superglue_ros.geometry.rotation import log
from superglue_ros.localization.localizer import PointMatches, joined
from superglue_ros.localization.results import figures, pose_errors
from superglue_ros.pipeline import Pipeline
from superglue_ros.settings import build
from superglue_ros.synthetic.demo_room import RoomSequence, built_in_camera
from superglue_ros.types import Frame, FrameId

CAMERA = built_in_camera(320, 240)
SIFT = [w for k in ("front_end.name=sift", "matcher.name=ratio") for w in ("--set", k)]
FRAMES = range(10, 46, 5)  # the map has every second one, the queries are the others


@pytest.fixture(scope="module")
def items() -> list[Any]:
    sequence = RoomSequence(frames=60, camera=CAMERA)
    return [sequence[index] for index in FRAMES]


@pytest.fixture(scope="module")
def walk(items: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walk")
    k = CAMERA.matrix
    numbers = f"320 240 {k[0, 0]} {k[1, 1]} {k[0, 2]} {k[1, 2]} 0 0 0 0\n"
    (folder / "intrinsics.txt").write_text(numbers)
    lines = []
    for number, item in enumerate(items):
        cv2.imwrite(str(folder / f"{number}.png"), item.image)
        lines.append(f"{number}.0 {number}.png\n")
    (folder / "images.txt").write_text("".join(lines))
    stamps = np.arange(len(items), dtype=np.int64) * 1_000_000_000
    truth = Trajectory(stamps, np.stack([item.T_world_camera for item in items]))
    write_trajectory(folder / "groundtruth.tum", truth)
    return folder


@pytest.fixture(scope="module")
def scene(walk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("map")
    options = ["--stride", "2", "--mapper", "triangulate"]
    assert main(["reconstruct", str(walk), "--output", str(output), *options, *SIFT]) == 0
    return output


def localize(scene: Path, queries: Path, output: Path, *options: str) -> int:
    where = ["--map", str(scene), "--queries", str(queries), "--output", str(output)]
    return main(["localize", *where, *options])


def found(output: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((output / "localization.json").read_text())
    return read


def test_queries_are_where_they_were_taken(
    walk: Path, scene: Path, items: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert localize(scene, walk, tmp_path, "--first", "1", "--stride", "2", "--retrieve", "3") == 0
    numbers = found(tmp_path)
    assert (numbers["queries"], numbers["localized"]) == (4, 4)
    assert numbers["median_m"] < 0.01
    assert numbers["median_deg"] < 0.1
    assert numbers["within"] == {"0.25 m, 2 deg": 1, "0.5 m, 5 deg": 1, "5 m, 10 deg": 1}
    assert "within 0.25 m 2 deg / 0.5 m 5 deg / 5 m 10 deg: 100.0 / 100.0 / 100.0 %" in " ".join(
        capsys.readouterr().out.split()
    )
    trajectory = read_trajectory(tmp_path / "poses.tum")
    assert list(trajectory.stamps_ns // 10**9) == [1, 3, 5, 7]
    first = (tmp_path / "poses.txt").read_text().splitlines()[0].split()
    w, x, y, z, *translation = map(float, first[1:])
    T_camera_world = np.linalg.inv(trajectory.poses[0])
    assert first[0] == "1.png"
    np.testing.assert_allclose(translation, T_camera_world[:3, 3], atol=1e-6)
    np.testing.assert_allclose(
        T_camera_world[2, 1] - T_camera_world[1, 2], 4 * w * x, atol=1e-6
    )  # of a rotation matrix: the real part comes first
    (entry, *_) = numbers["each"]
    sigma = np.sqrt(np.trace(np.reshape(entry["covariance"], (6, 6))[:3, :3]))
    assert entry["error_m"] < 5 * sigma < 0.2


def test_queries_take_the_camera_of_the_map(walk: Path, scene: Path, tmp_path: Path) -> None:
    """Their own calibration says a longer focal length, which puts them farther away."""
    queries = tmp_path / "queries"
    shutil.copytree(walk, queries)
    values = (walk / "intrinsics.txt").read_text().split()
    longer = [*values[:2], *(str(1.2 * float(f)) for f in values[2:4]), *values[4:]]
    (queries / "intrinsics.txt").write_text(" ".join(longer) + "\n")
    options = ("--first", "3", "--last", "4", "--retrieve", "3")
    assert localize(scene, queries, tmp_path, *options) == 0
    assert found(tmp_path)["median_m"] > 0.05
    assert localize(scene, queries, tmp_path, *options, "--map-calibration") == 0
    assert found(tmp_path)["median_m"] < 0.01


def test_queries_without_a_place_say_why(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = tmp_path / "queries"
    queries.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (240, 320), np.uint8)
    cv2.imwrite(str(queries / "a_black.png"), np.zeros((240, 320), np.uint8))
    cv2.imwrite(str(queries / "b_noise.png"), noise)
    assert localize(scene, queries, tmp_path) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "a_black.png: no image of the map is like it: it has no keypoints" in said
    assert "b_noise.png: " in said
    assert "0 of 2 queries localized" in said
    assert found(tmp_path)["median_m"] is None
    assert (tmp_path / "poses.txt").read_text() == ""


@pytest.mark.parametrize(
    "options, message",
    [
        (
            ["--set", "front_end.name=orb"],
            "the map's descriptors are 'sift-root', the front-end makes",
        ),
        (["--set", "place_weights=nowhere.safetensors"], "weights file nowhere.safetensors does"),
        (["--map", "nowhere"], "nowhere is no map: give the --output folder"),
        (["--model", "7"], "is no map"),
        (["--retrieve", "0"], "--retrieve 0 must be 1 or more"),
        (["--queries", "small"], "no calibration of its own to use, and the map has several"),
    ],
)
def test_bad_input_is_explained(
    options: list[str],
    message: str,
    walk: Path,
    scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small").mkdir()
    cv2.imwrite("small/a.png", np.zeros((64, 64), np.uint8))
    assert localize(scene, walk, tmp_path / "out", *options) == 1
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_map_of_another_run_is_refused(
    walk: Path, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(scene, other)
    shutil.copy(other / "sparse/0/points.ply", other / "sparse/0/images.bin")
    assert localize(other, walk, tmp_path / "out") == 1
    assert "is no model of COLMAP" in capsys.readouterr().err


def test_the_node_tells_where_its_frames_are_in_the_map(scene: Path, items: list[Any]) -> None:
    """Without depth of its own: the map's keyframes have it."""
    settings = {
        "front_end": {"name": "sift"},
        "matcher": {"name": "ratio"},
        "refinement": "none",
        # A rendered room has no errors that neighbouring matches share.
        "geometry": {"systematic_px": 0.0, "depth_systematic": 0.0, "depth_noise": 0.002},
    }
    pipeline = Pipeline(build(Config, settings))
    assert pipeline.load_map(scene / "map.safetensors") == pipeline.keyframes.placed == 4
    nees = []
    for place in (3, 1, 5, 7):  # every second one is in the map, these are not
        grey = cv2.cvtColor(items[place].image, cv2.COLOR_BGR2GRAY)
        name = FrameId(id=100 + len(nees), stamp_ns=(100 + len(nees)) * 10**9)
        result = pipeline.process(Frame(id=name, image=grey, camera=CAMERA, rectified=True))
        assert result.map_pose is not None, result.unplaced
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = result.map_pose.rotation, result.map_pose.translation
        truth = items[place].T_world_camera
        metres, degrees = pose_errors(pose, truth)
        assert metres < 0.03
        assert degrees < 0.3
        error = np.r_[pose[:3, 3] - truth[:3, 3], log(pose[:3, :3] @ truth[:3, :3].T)]
        nees.append(error @ np.linalg.solve(result.map_pose.covariance, error))
    assert 1 < np.mean(nees) < 22  # 6 if the covariance were exact


# -- steps -----------------------------------------------------------------------------------------


def test_a_keypoint_takes_the_point_that_most_images_say() -> None:
    """Keypoint 3: point 7 by two images (0.4 + 0.5), point 9 by one (0.8)."""
    parts = [
        PointMatches(
            keypoints=np.array([3, 4]),
            point_ids=np.array([7, 1]),
            scores=np.array([0.4, 0.9]),
            pixels=np.array([[10.0, 10], [5, 5]]),
            sigma_px=np.array([1.0, 1]),
        ),
        PointMatches(
            keypoints=np.array([3]),
            point_ids=np.array([9]),
            scores=np.array([0.8]),
            pixels=np.array([[90.0, 90]]),
            sigma_px=np.array([1.0]),
        ),
        PointMatches(
            keypoints=np.array([3]),
            point_ids=np.array([7]),
            scores=np.array([0.5]),
            pixels=np.array([[13.0, 10]]),
            sigma_px=np.array([0.5]),
        ),
    ]
    one = joined(parts)
    assert one.keypoints.tolist() == [3, 4]
    assert one.point_ids.tolist() == [7, 1]
    np.testing.assert_allclose(one.pixels[0], [12.4, 10])  # weights 1 and 4
    assert one.sigma_px.tolist() == [0.5, 1]


def test_figures_count_what_was_not_found() -> None:
    def moved(metres: float) -> np.ndarray:
        pose = np.eye(4)
        pose[0, 3] = metres
        return pose

    poses = [moved(0.1), moved(0.4), None, moved(9)]
    numbers = figures(poses, [np.eye(4)] * 3 + [None])
    assert (numbers["localized"], numbers["with_truth"]) == (3, 3)
    assert list(numbers["within"].values()) == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert numbers["median_m"] == pytest.approx(0.4)
    turned = np.diag([-1.0, -1, 1, 1])
    assert pose_errors(turned, np.eye(4)) == (0, pytest.approx(180))
