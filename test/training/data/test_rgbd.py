from pathlib import Path

import cv2
import numpy as np
import pytest

from superglue_ros.errors import DataError
from superglue_ros.geometry.ground_truth import INDOOR, OUTDOOR
from superglue_ros.training.data.rgbd import (
    RgbdFrame,
    read_megadepth,
    read_plain,
    read_scannet,
    read_tum,
)

from ..conftest import textured

QUARTER_TURN = "0 0 0.70710678 0.70710678"  # about z


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (64, 48)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), textured(seed, *size))


def write_depth(path: Path, metres: float, unit: float, size: tuple[int, int] = (64, 48)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(size[::-1], round(metres / unit), np.uint16))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    for i in range(3):
        write_image(tmp_path / f"color/{i}.png", i)
        write_depth(tmp_path / f"depth/{i}.png", 1.5 + i, 1e-3)
    rows = [f"{i}.0 color/{i}.png depth/{i}.png" for i in range(3)]
    (tmp_path / "images.txt").write_text("# comment\n" + "\n".join(rows))
    poses = [f"{i}.0 {i} 2 3 {QUARTER_TURN}" for i in range(3)]
    (tmp_path / "groundtruth.tum").write_text("\n".join(poses))
    (tmp_path / "intrinsics.txt").write_text("# w h fx fy cx cy\n64 48 60 61 31 23 0 0 0 0\n")
    return tmp_path


def test_the_plain_layout(plain):
    sequence = read_plain(plain, 1e-3)
    assert len(sequence.frames) == 3
    frame = sequence.frames[2]
    np.testing.assert_allclose(frame.matrix, [[60, 0, 31], [0, 61, 23], [0, 0, 1]])
    np.testing.assert_allclose(frame.pose[:3, 3], [2, 2, 3])
    np.testing.assert_allclose(frame.pose[:3, :3], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-7)
    image, depth, matrix = frame.read((64, 48))
    np.testing.assert_array_equal(image, textured(2, 64, 48))
    assert depth == pytest.approx(3.5)
    np.testing.assert_allclose(matrix, frame.matrix)


def test_views_of_a_sequence_know_where_points_go(plain):
    views = read_plain(plain, 1e-3).views([0, 1], (64, 48))
    assert views.thresholds == INDOOR
    # World x is the camera's -y: the second camera stands 1 m further up in the first's image.
    projection = views.project(np.array([[31.0, 10.0]]), 0, 1)
    np.testing.assert_allclose(projection.points, [[31, 10 + 61 * 1 / 1.5]], atol=1e-6)


def test_resizing_crops_to_the_aspect_and_moves_the_intrinsics(plain):
    frame = read_plain(plain, 1e-3).frames[0]
    image, depth, matrix = frame.read((24, 24))
    assert image.shape == depth.shape == (24, 24)
    # 48 of 64 columns stay, from column 8 on; then half the resolution.
    np.testing.assert_allclose(
        matrix, [[30, 0, (31 - 8 + 0.5) / 2 - 0.5], [0, 30.5, 11.25], [0, 0, 1]]
    )


def test_the_tum_layout_associates_by_time(tmp_path):
    write_image(tmp_path / "rgb/a.png")
    write_depth(tmp_path / "depth/a.png", 2.0, 1 / 5000)
    (tmp_path / "rgb.txt").write_text("10.000 rgb/a.png\n20.000 rgb/b.png\n")
    (tmp_path / "depth.txt").write_text("10.010 depth/a.png\n")
    (tmp_path / "groundtruth.txt").write_text(f"9.995 1 2 3 {QUARTER_TURN}\n20.0 0 0 0 0 0 0 1\n")
    sequence = read_tum(tmp_path)
    assert [frame.image.name for frame in sequence.frames] == ["a.png"]
    assert sequence.frames[0].read((64, 48))[1] == pytest.approx(2.0)
    with pytest.raises(DataError, match=r"no image has depth and a pose within 0\.001 s"):
        read_tum(tmp_path, tolerance_s=0.001)


def test_the_scannet_layout_leaves_out_lost_frames(tmp_path):
    for i in (0, 2, 10):
        write_image(tmp_path / f"color/{i}.jpg", i)
        write_depth(tmp_path / f"depth/{i}.png", 1.0, 1e-3, (32, 24))
        pose = np.eye(4) if i != 2 else np.full((4, 4), -np.inf)
        (tmp_path / "pose").mkdir(exist_ok=True)
        np.savetxt(tmp_path / f"pose/{i}.txt", pose)
    (tmp_path / "intrinsic").mkdir()
    np.savetxt(tmp_path / "intrinsic/intrinsic_color.txt", np.diag([50.0, 50, 1, 1]))
    sequence = read_scannet(tmp_path)
    assert [frame.image.stem for frame in sequence.frames] == ["0", "10"]
    _, depth, _ = sequence.frames[0].read((64, 48))  # the sensor has half the resolution
    assert depth.shape == (48, 64)


def test_the_megadepth_layout_turns_poses_round(tmp_path):
    T_camera_world = np.eye(4)
    T_camera_world[0, 3] = 5.0
    np.savez(
        tmp_path / "0001.npz",
        image_paths=np.array(["a.jpg", None], object),
        depth_paths=np.array(["a.h5", None], object),
        intrinsics=np.array([np.eye(3), None], object),
        poses=np.array([T_camera_world, None], object),
    )
    sequence = read_megadepth(tmp_path / "0001.npz", tmp_path)
    assert sequence.thresholds == OUTDOOR
    assert sequence.frames[0].pose[0, 3] == -5
    with pytest.raises(DataError, match=r"none\.npz is not a MegaDepth scene"):
        read_megadepth(tmp_path / "none.npz", tmp_path)


def test_depth_that_does_not_fit_its_image_is_refused(tmp_path):
    write_image(tmp_path / "a.png")
    write_depth(tmp_path / "d.png", 1.0, 1e-3, (50, 48))
    frame = RgbdFrame(tmp_path / "a.png", tmp_path / "d.png", np.eye(3), np.eye(4), 1e-3)
    with pytest.raises(DataError, match=r"d\.png: the depth map has shape \(48, 50\)"):
        frame.read((64, 48))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("images.txt", "0.0 color/0.png", r"images\.txt: entry 1 has 2 columns, 3 are needed"),
        ("images.txt", "", r"images\.txt is empty"),
        ("groundtruth.tum", "0 1 2 3 0 0 0 1", r"images\.txt has 3 rows, groundtruth\.tum 1"),
        ("intrinsics.txt", "64 48 f f 1 1", r"could not convert string to float"),
    ],
)
def test_malformed_files_are_named(plain, name, content, message):
    (plain / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_plain(plain, 1e-3)


def test_missing_files_are_named(plain):
    (plain / "groundtruth.tum").unlink()
    with pytest.raises(DataError, match=r"groundtruth\.tum cannot be read"):
        read_plain(plain, 1e-3)
