"""Images of a rendered room in, models with known cameras out, through the command itself."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from superglue_ros.cli import main
from superglue_ros.data.bag_sequences import write_bag
from superglue_ros.data.sequences.base import open_sequence
from superglue_ros.data.trajectories import Trajectory, read_trajectory, write_trajectory
from superglue_ros.geometry.angle_errors import rotation_error_deg
from superglue_ros.reconstruction.mapper import poses_of, require_pycolmap
from superglue_ros.synthetic.demo_room import RoomSequence, built_in_camera

CAMERA = built_in_camera(320, 240)
SIFT = [w for k in ("front_end.name=sift", "matcher.name=ratio") for w in ("--set", k)]
FRAMES = range(0, 56, 7)


@pytest.fixture(scope="module")
def items() -> list[Any]:
    sequence = RoomSequence(frames=60, camera=CAMERA)
    return [sequence[index] for index in FRAMES]


@pytest.fixture(scope="module")
def walk(items: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sequence of the plain layout, with poses."""
    folder = tmp_path_factory.mktemp("walk")
    (folder / "color").mkdir()
    lines = []
    for number, item in enumerate(items):
        cv2.imwrite(str(folder / f"color/{number:02d}.png"), item.image)
        lines.append(f"{number}.0 color/{number:02d}.png")
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    (folder / "intrinsics.txt").write_text(calibration())
    stamps = np.arange(len(items), dtype=np.int64) * 1_000_000_000
    poses = np.stack([item.T_world_camera for item in items])
    write_trajectory(folder / "groundtruth.tum", Trajectory(stamps, poses))
    return folder


@pytest.fixture(scope="module")
def made(walk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The walk, reconstructed."""
    output = tmp_path_factory.mktemp("made")
    assert reconstruct(walk, output, "--depth") == 0
    return output


def calibration(factor: float = 1.0) -> str:
    k = CAMERA.matrix
    return f"320 240 {factor * k[0, 0]} {factor * k[1, 1]} {k[0, 2]} {k[1, 2]} 0 0 0 0\n"


def reconstruct(images: Path, output: Path, *options: str) -> int:
    return main(["reconstruct", str(images), "--output", str(output), *SIFT, *options])


def summary(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "summary.json").read_text())
    return found


# -- results ---------------------------------------------------------------------------------------


def test_a_walk_is_reconstructed_and_aligned(made: Path, items: list[Any]) -> None:
    (model,) = summary(made)["models"]
    assert (model["images"], summary(made)["unplaced"]) == (len(items), [])
    assert model["errors"]["ate_m"] < 0.01
    read = require_pycolmap().Reconstruction(made / "sparse" / "0")
    for number, (name, pose) in enumerate(poses_of(read).items()):
        assert name == f"{number:02d}.png"
        truth = items[number].T_world_camera
        assert np.linalg.norm(pose[:3, 3] - truth[:3, 3]) < 0.03
        assert rotation_error_deg(pose[:3, :3], truth[:3, :3]) < 0.5
    placed = read_trajectory(made / "sparse" / "0" / "poses.tum")
    assert list(placed.stamps_ns) == [n * 1_000_000_000 for n in range(len(items))]


def test_points_lie_on_the_walls_that_depth_shows(made: Path, items: list[Any]) -> None:
    model = require_pycolmap().Reconstruction(made / "sparse" / "0")
    points = np.array([point.xyz for point in model.points3D.values()])
    assert len(points) > 500
    T_camera_world = np.linalg.inv(items[3].T_world_camera)
    seen = points @ T_camera_world[:3, :3].T + T_camera_world[:3, 3]
    pixels = CAMERA.project(seen)
    inside = (pixels >= 0).all(axis=1) & (pixels < [319, 239]).all(axis=1)
    u, v = np.rint(pixels[inside]).astype(int).T
    assert np.median(np.abs(items[3].depth[v, u] - seen[inside, 2])) < 0.03


def test_ply_and_page_hold_the_model(made: Path) -> None:
    count = summary(made)["models"][0]["points"]
    header = (made / "sparse/0/points.ply").read_bytes()[:400]
    assert f"element vertex {count}".encode() in header
    page = (made / "reconstruction.html").read_text()
    assert "http" not in page
    (model,) = json.loads(page.split("const MODELS = ")[1].split(";\n")[0])
    assert model["count"] == count
    assert len(model["cameras"]) == len(FRAMES)


def test_depth_of_the_map_is_that_of_the_room(made: Path, items: list[Any]) -> None:
    """The map is aligned to metres, its cameras are its own."""
    sequence = open_sequence(made / "scenes/0/scene_info/scene.npz")
    assert sequence.outdoor
    errors = []
    for item in sequence:
        number = min(
            range(len(items)),
            key=lambda n: np.linalg.norm((items[n].T_world_camera - item.T_world_camera)[:3, 3]),
        )
        known = item.depth > 0
        errors.append(np.abs(item.depth[known] / items[number].depth[known] - 1))
    every = np.concatenate(errors)
    assert len(every) > 0.2 * 320 * 240 * len(items)
    assert np.median(every) < 0.006
    assert (every < 0.02).mean() > 0.95


@pytest.mark.parametrize("kind", ["global", "triangulate"])
def test_the_other_mappers(kind: str, walk: Path, made: Path, tmp_path: Path) -> None:
    shutil.copy(made / "database.db", tmp_path / "database.db")
    assert reconstruct(walk, tmp_path, "--mapper", kind) == 0
    (model,) = summary(tmp_path)["models"]
    assert model["images"] == len(FRAMES)
    assert model["errors"]["ate_m"] < (1e-6 if kind == "triangulate" else 0.01)


@pytest.mark.parametrize("option, readout_s", [("auto", 0.0), ("0.01", 0.01), ("off", None)])
def test_a_rolling_shutter(
    option: str,
    readout_s: float | None,
    walk: Path,
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The walk in a tenth of its time; its images were drawn at once."""
    quick = tmp_path / "quick"
    quick.mkdir()
    (quick / "color").symlink_to(walk / "color")
    shutil.copy(walk / "intrinsics.txt", quick)
    for name in ("images.txt", "groundtruth.tum"):
        rows = [line.split(" ", 1) for line in (walk / name).read_text().splitlines()]
        lines = [f"{float(stamp) / 10:.1f} {rest}\n" for stamp, rest in rows if stamp != "#"]
        (quick / name).write_text("".join(lines))
    output = tmp_path / "out"
    output.mkdir()
    shutil.copy(made / "database.db", output)
    options = ("--mapper", "triangulate", "--rolling-shutter", option)
    assert reconstruct(quick, output, *options) == 0
    found = summary(output)["models"][0]["rolling_shutter"]
    assert (found and found["readout_s"]) == readout_s
    assert ("exposed within 10.0 ms" in capsys.readouterr().out) == (option == "0.01")


def test_a_bag(items: list[Any], tmp_path: Path) -> None:
    write_bag(items[:4], tmp_path / "bag")
    assert reconstruct(tmp_path / "bag", tmp_path / "out", "--pairs", "sequential:2") == 0
    assert summary(tmp_path / "out")["models"][0]["images"] == 4
    assert summary(tmp_path / "out")["pairs"] == 5


def test_a_folder_without_calibration(walk: Path, tmp_path: Path) -> None:
    assert reconstruct(walk / "color", tmp_path) == 0
    model = require_pycolmap().Reconstruction(tmp_path / "sparse" / "0")
    (camera,) = model.cameras.values()
    assert camera.mean_focal_length() == pytest.approx(CAMERA.focal, rel=0.05)


# -- resuming --------------------------------------------------------------------------------------


def test_a_run_that_was_stopped_goes_on(walk: Path, made: Path, tmp_path: Path) -> None:
    shutil.copy(made / "database.db", tmp_path / "database.db")
    with closing(sqlite3.connect(tmp_path / "database.db")) as database, database:
        whole = dict(database.execute("SELECT pair_id, data FROM matches"))
        for table in ("matches", "superglue_matches", "two_view_geometries"):
            database.execute(f"DELETE FROM {table} WHERE pair_id > ?", (sorted(whole)[5],))
        for table in ("superglue_features", "keypoints"):
            database.execute(f"DELETE FROM {table} WHERE image_id > 5")
    assert reconstruct(walk, tmp_path) == 0
    with closing(sqlite3.connect(tmp_path / "database.db")) as database, database:
        assert dict(database.execute("SELECT pair_id, data FROM matches")) == whole
    assert summary(tmp_path)["inliers"] == summary(made)["inliers"]


def test_other_settings_are_refused(
    walk: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reconstruct(walk, made, "--set", "matcher.name=mutual") == 1
    said = capsys.readouterr().err
    assert 'made with matcher.name "ratio", now it is "mutual"' in said
    assert "--overwrite" in said


# -- other programs' matches -----------------------------------------------------------------------


def test_matches_of_hloc_and_colmap_are_taken(walk: Path, tmp_path: Path) -> None:
    matches = tmp_path / "matches"
    files = ["--no-pictures", "--write", "h5", "colmap", "--output", str(matches)]
    camera = ["--calibration", str(walk / "intrinsics.txt")]
    assert main(["match", str(walk / "color"), *files, *camera, *SIFT]) == 0
    hloc = ["--hloc", str(matches / "features.h5"), str(matches / "matches.h5"), *camera]
    assert reconstruct(walk / "color", tmp_path / "hloc", *hloc) == 0
    database = ["--database", str(matches / "database.db")]
    assert reconstruct(walk / "color", tmp_path / "colmap", *database) == 0
    for name in ("hloc", "colmap"):
        (model,) = summary(tmp_path / name)["models"]
        assert model["images"] == len(FRAMES)
        assert model["reprojection_px"] < 1


# -- bad input -------------------------------------------------------------------------------------


def test_parts_that_nothing_connects_are_all_written_and_copies_left_out(
    walk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    shutil.copytree(walk / "color", images)
    shutil.copy(images / "00.png", images / "copy.png")
    parts = [range(4), range(4, 8)]
    pairs = [f"{i:02d}.png {j:02d}.png" for part in parts for i in part for j in part if i < j]
    (tmp_path / "pairs.txt").write_text("\n".join(pairs) + "\n")
    options = [
        "--calibration",
        str(walk / "intrinsics.txt"),
        "--pairs",
        str(tmp_path / "pairs.txt"),
    ]
    assert reconstruct(images, tmp_path / "out", *options) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "copy.png is a copy of 00.png: left out" in said
    assert "fall into 2 parts that no verified pair connects; all are written" in said
    models = [require_pycolmap().Reconstruction(tmp_path / f"out/sparse/{n}") for n in (0, 1)]
    assert {tuple(poses_of(model)) for model in models} == {
        tuple(f"{i:02d}.png" for i in part) for part in parts
    }


def test_a_wrong_focal_length_is_named(
    walk: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "camera.txt").write_text(calibration(1.4))
    camera = ["--calibration", str(tmp_path / "camera.txt")]
    assert reconstruct(walk / "color", tmp_path / "out", *camera) == 0
    (wrong,) = summary(tmp_path / "out")["models"][0]["wrong_focal_lengths"]
    assert wrong["given_px"] == pytest.approx(1.4 * CAMERA.focal, rel=0.01)
    assert wrong["by_images_px"] == pytest.approx(CAMERA.focal, rel=0.1)
    assert "the focal length given is" in capsys.readouterr().out
    assert summary(made)["models"][0]["wrong_focal_lengths"] == []


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere"], "nowhere does not exist"),
        (["one"], "has 1 image to use: two make a pair"),
        (["two", "--pairs", "some"], "--pairs some is no rule and no file"),
        (["two", "--pairs", "poses"], "needs poses"),
        (["two", "--pairs", "list.txt"], "list.txt, line 1: there is no image x.png"),
        (["two", "--database", "new.db"], "version 5000000, newer than"),
        (["two", "--database", "list.txt"], "list.txt is no database of COLMAP"),
        (["two", "--hloc", "list.txt", "list.txt"], "list.txt cannot be read as HDF5"),
        (
            ["two", "--rolling-shutter", "fast"],
            "--rolling-shutter fast: give auto, off, or the sec",
        ),
        (["two", "--rolling-shutter", "0.01"], "have no stamps, so that the motion of the camera"),
        (["two"], "no two images could be placed"),
    ],
)
def test_bad_input_is_explained(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0)
    for folder, count in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            image = noise.integers(0, 256, (64, 64), np.uint8)
            cv2.imwrite(f"{folder}/{number}.png", image)
    (tmp_path / "list.txt").write_text("x.png 0.png\n")
    with closing(sqlite3.connect("new.db")) as database:
        database.execute("PRAGMA user_version = 5000000")
    assert reconstruct(Path(arguments[0]), Path("out"), *arguments[1:]) == 1
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_missing_pycolmap_is_explained(
    walk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    assert reconstruct(walk, tmp_path) == 1
    assert "pip install pycolmap" in capsys.readouterr().err
