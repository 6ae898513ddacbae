"""Two images in, matches and pose out, from arrays, tensors and the command line."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch

import superglue_ros
from superglue_ros.cli import main
from superglue_ros.config import PRESETS, Config, preset
from superglue_ros.data.calibration import read_calibration
from superglue_ros.errors import ConfigError, DataError, ImageError
from superglue_ros.geometry.angle_errors import direction_error_deg, rotation_error_deg
from superglue_ros.image_pairs.files import pair_arrays, write_colmap, write_hloc
from superglue_ros.image_pairs.matching import ImageMatcher, ImagePair, as_grey
from superglue_ros.settings import build
from superglue_ros.synthetic.demo_room import RoomSequence, built_in_camera

QUICK = build(
    Config, {"front_end": {"name": "sift"}, "matcher": {"name": "ratio"}, "refinement": "none"}
)
WORDS = [w for k in ("front_end.name=sift", "matcher.name=ratio") for w in ("--set", k)]
CAMERA = built_in_camera(320, 240)
MAX_IMAGES = 2147483647  # COLMAP's, in the number of a pair


@pytest.fixture(scope="module")
def room() -> list[Any]:
    sequence = RoomSequence(frames=60, camera=CAMERA)
    return [sequence[index] for index in (30, 50, 58)]


@pytest.fixture(scope="module")
def pair(room: list[Any]) -> ImagePair:
    return ImageMatcher(QUICK).match(room[0].image, room[1].image, CAMERA, CAMERA)


def true_pose(a: Any, b: Any) -> np.ndarray:
    return np.linalg.inv(a.T_world_camera) @ b.T_world_camera


def test_a_pair_of_arrays(room: list[Any], pair: ImagePair) -> None:
    truth = true_pose(room[0], room[1])
    assert pair.pose is not None
    assert rotation_error_deg(pair.pose.rotation, truth[:3, :3]) < 1
    assert direction_error_deg(pair.pose.translation, truth[:3, 3], signed=True) < 15
    assert pair.inlier.sum() > 40
    np.testing.assert_array_equal(pair.points0, pair.features0.keypoints[pair.index0])
    np.testing.assert_array_equal(pair.points1, pair.features1.keypoints[pair.index1])


def test_the_short_way_gives_the_same_without_a_pose(room: list[Any], pair: ImagePair) -> None:
    short = superglue_ros.match(room[0].image, room[1].image, QUICK)
    assert short.pose is None
    np.testing.assert_array_equal(short.points1, pair.points1)


def test_a_batch_is_its_pairs(room: list[Any], pair: ImagePair) -> None:
    images = [one.image for one in room]
    batch = superglue_ros.match(images[:2], images[1:], QUICK)
    assert len(batch) == 2
    np.testing.assert_array_equal(batch[0].points0, pair.points0)
    np.testing.assert_array_equal(batch[0].scores, pair.scores)


def test_tensors_are_rgb_with_the_channels_first() -> None:
    bgr = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    rgb = torch.from_numpy(bgr[:, :, ::-1].copy()).permute(2, 0, 1)
    expected = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    np.testing.assert_array_equal(as_grey(rgb), expected)
    np.testing.assert_array_equal(as_grey(rgb.float() / 255), expected)
    np.testing.assert_array_equal(as_grey(rgb[:1]), bgr[:, :, 2])


@pytest.mark.parametrize(
    "images, message",
    [
        ((np.zeros((8, 8)), np.zeros((8, 8))), "image 0: image has type float64"),
        ((torch.full((8, 8), 2.0), torch.zeros(8, 8)), r"image 0: .* outside of \[0, 1\]"),
        ((np.zeros((8, 8), np.uint8), np.zeros((0, 8), np.uint8)), "image 1: .*non-empty"),
        (([np.zeros((8, 8), np.uint8)], []), "1 images against 0"),
    ],
)
def test_bad_images_are_named(images: tuple[Any, Any], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        superglue_ros.match(*images, QUICK)


def test_a_calibration_of_another_size_is_refused(room: list[Any]) -> None:
    small = room[0].image[:120, :160]
    with pytest.raises(ImageError, match=r"image 0: it is 160x120 pixels, .* 320x240"):
        ImageMatcher(QUICK).match(small, small, CAMERA, CAMERA)


def test_presets_are_the_papers() -> None:
    """Appendix B: 640x480 and 512, 640x480 and 1024, 1600 and 2048 keypoints with a radius of 3."""
    found = {
        name: (c.max_size, c.max_keypoints, c.nms_radius)
        for name in PRESETS
        for c in [preset(name).front_end]
    }
    assert found == {
        "indoor": (640, 1024, 4),
        "outdoor": (1600, 2048, 3),
        "homography": (640, 512, 4),
    }
    with pytest.raises(ConfigError, match="unknown preset 'lunar': choose one of indoor"):
        preset("lunar")


# -- files -----------------------------------------------------------------------------------------


def test_hloc_files(pair: ImagePair, tmp_path: Path) -> None:
    write_hloc(tmp_path, [("db/a.jpg", "q.jpg", pair)])
    with h5py.File(tmp_path / "features.h5") as file:
        stored = file["db/a.jpg"]
        np.testing.assert_array_equal(stored["keypoints"], pair.features0.keypoints)
        assert stored["descriptors"].shape == (128, len(pair.features0))
        assert list(stored["image_size"]) == [320, 240]
    with h5py.File(tmp_path / "matches.h5") as file:
        partners = np.asarray(file["db-a.jpg"]["q.jpg"]["matches0"])
    index0 = np.flatnonzero(partners >= 0)
    found = set(zip(index0.tolist(), partners[index0].tolist(), strict=True))
    assert found == set(zip(pair.index0.tolist(), pair.index1.tolist(), strict=True))
    assert (tmp_path / "pairs.txt").read_text() == "db/a.jpg q.jpg\n"


@pytest.mark.parametrize("names", [("a.jpg", "b.jpg"), ("b.jpg", "a.jpg")])
def test_a_colmap_database(pair: ImagePair, tmp_path: Path, names: tuple[str, str]) -> None:
    path = tmp_path / "database.db"
    write_colmap(path, [(*names, pair)], dict.fromkeys(names, CAMERA))
    with sqlite3.connect(path) as database:
        ((model, width, parameters),) = database.execute("SELECT model, width, params FROM cameras")
        ids = dict(database.execute("SELECT name, image_id FROM images"))
        keypoints = database.execute(
            "SELECT rows, data FROM keypoints WHERE image_id = ?", (ids[names[0]],)
        ).fetchone()
        row = database.execute("SELECT pair_id, rows, data, E, qvec FROM two_view_geometries")
        number, count, inliers, essential, quaternion = row.fetchone()
    assert (model, width) == (4, 320)
    assert np.frombuffer(parameters)[2] == CAMERA.matrix[0, 2] + 0.5
    points = np.frombuffer(keypoints[1], np.float32).reshape(keypoints[0], 2)
    np.testing.assert_array_equal(points, pair.features0.keypoints + np.float32(0.5))
    assert number == 1 * MAX_IMAGES + 2
    index = np.frombuffer(inliers, np.uint32).reshape(count, 2)
    forward = names[0] < names[1]
    first, second = (
        (pair.features0, pair.features1) if forward else (pair.features1, pair.features0)
    )
    rays = [
        np.column_stack([CAMERA.rays(f.keypoints[i]), np.ones(count)])
        for f, i in ((first, index[:, 0]), (second, index[:, 1]))
    ]
    residual = np.sum(rays[1] * (rays[0] @ np.frombuffer(essential).reshape(3, 3).T), axis=1)
    assert np.median(np.abs(residual)) < 2 / CAMERA.focal
    assert np.linalg.norm(np.frombuffer(quaternion)) == pytest.approx(1)


def test_arrays_say_why_there_is_no_pose(room: list[Any], pair: ImagePair) -> None:
    arrays = pair_arrays("a", "b", pair)
    assert str(arrays["pose_status"]) == "VALID"
    assert arrays["covariance"].shape == (6, 6)
    plain = superglue_ros.match(room[0].image, room[1].image, QUICK)
    assert "rotation" not in pair_arrays("a", "b", plain)


def test_calibrations(tmp_path: Path) -> None:
    text, yaml, bad = (tmp_path / name for name in ("k.txt", "k.yaml", "bad.yaml"))
    text.write_text("640 480 500 501 320 240\n")
    yaml.write_text(
        "image_width: 640\nimage_height: 480\ncamera_name: left\n"
        "camera_matrix: {rows: 3, cols: 3, data: [500, 0, 320, 0, 501, 240, 0, 0, 1]}\n"
        "distortion_model: plumb_bob\n"
        "distortion_coefficients: {rows: 1, cols: 5, data: [0.1, 0, 0, 0, 0]}\n"
    )
    bad.write_text("image_width: 640\n")
    np.testing.assert_array_equal(read_calibration(yaml).matrix, read_calibration(text).matrix)
    assert read_calibration(yaml).distortion[0] == 0.1
    with pytest.raises(DataError, match=r"bad.yaml is no calibration .*image_height"):
        read_calibration(bad)


@pytest.mark.parametrize(
    ("coefficients", "fisheye", "model"),
    [(5, False, "plumb_bob"), (8, False, "rational_polynomial"), (4, True, "equidistant")],
)
def test_calibrations_of_opencv(
    tmp_path: Path, coefficients: int, fisheye: bool, model: str
) -> None:
    """The names are those of OpenCV's calibration program."""
    matrix = np.array([[500, 0, 320], [0, 501, 240], [0, 0, 1.0]])
    distortion = np.linspace(0.1, -0.05, coefficients)[:, None]
    file = cv2.FileStorage(str(tmp_path / "camera.yml"), cv2.FILE_STORAGE_WRITE)
    for name, value in (("image_width", 640), ("image_height", 480), ("board_width", 9)):
        file.write(name, value)
    if fisheye:
        file.write("fisheye_model", 1)
    file.write("camera_matrix", matrix)
    file.write("distortion_coefficients", distortion)
    file.release()
    camera = read_calibration(tmp_path / "camera.yml")
    assert (camera.width, camera.height, camera.model) == (640, 480, model)
    np.testing.assert_array_equal(camera.matrix, matrix)
    np.testing.assert_array_equal(camera.distortion, distortion[:, 0])


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(room: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images")
    for number, one in enumerate(room):
        cv2.imwrite(str(path / f"{number}.png"), one.image)
    k = CAMERA.matrix
    numbers = f"320 240 {k[0, 0]} {k[1, 1]} {k[0, 2]} {k[1, 2]}\n"
    (path / "camera.txt").write_text(numbers)
    return path


def test_two_images(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [str(folder / "0.png"), str(folder / "1.png")]
    camera = ["--calibration", str(folder / "camera.txt"), "--write", "npz", "csv"]
    assert main(["match", *images, "--output", str(tmp_path), *camera, *WORDS]) == 0
    assert "VALID, turned" in capsys.readouterr().out
    stored = np.load(tmp_path / "0.png_1.png.npz")
    lines = (tmp_path / "0.png_1.png.csv").read_text().splitlines()
    assert len(lines) == 1 + len(stored["points0"]) > 50
    assert float(lines[1].split(",")[0]) == pytest.approx(stored["points0"][0, 0], abs=1e-3)
    picture = cv2.imread(str(tmp_path / "0.png_1.png.jpg"))
    assert picture.shape == (240, 648, 3)


@pytest.mark.parametrize(
    "options, expected",
    [
        ([], {"0.png_1.png", "0.png_2.png", "1.png_2.png"}),
        (["--next", "1"], {"0.png_1.png", "1.png_2.png"}),
        (["--pairs", "list.txt"], {"2.png_0.png"}),
    ],
)
def test_a_folder(folder: Path, tmp_path: Path, options: list[str], expected: set[str]) -> None:
    (tmp_path / "list.txt").write_text("# a comment\n2.png 0.png\n")
    words = [str(tmp_path / w) if w.endswith(".txt") else w for w in options]
    write = ["--no-pictures", "--write", "npz", "h5", "colmap"]
    output = tmp_path / "out"
    assert main(["match", str(folder), *words, *write, "--output", str(output), *WORDS]) == 0
    assert {path.name.removesuffix(".npz") for path in output.glob("*.npz")} == expected
    with sqlite3.connect(output / "database.db") as database:
        assert database.execute("SELECT count(*) FROM matches").fetchone() == (len(expected),)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere.png", "b.png"], "image nowhere.png does not exist"),
        (["nowhere"], "give two images, or one folder"),
        ([".", "--pairs", "nowhere.txt"], "nowhere.txt does not exist"),
        (["a.png", "b.png", "--preset", "indoor", "--config", "c.yaml"], "exclude each other"),
        (["a.png", "b.png", "--calibration", "a", "b", "c"], "a does not exist"),
    ],
)
def test_wrong_arguments_are_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["match", *arguments, *WORDS]) == 1
    assert message in capsys.readouterr().err
