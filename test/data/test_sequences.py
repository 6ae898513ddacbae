"""Image folders in both layouts, written here and read back."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from superglue_ros.data.sequences.base import open_sequence
from superglue_ros.errors import ConfigError, DataError

CALIBRATION = "# width height fx fy cx cy k1 k2 p1 p2\n8 6 10 11 3.5 2.5 0.1 0 0 0\n"
TRUTH = "0 0 0 0 0 0 0 1\n0.1 1 0 0 0 0 0 1\n0.2 2 0 0 0 0 0 1\n"


def image(value: int) -> np.ndarray:
    return np.full((6, 8), value, np.uint8)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    folder = tmp_path / "walk"
    (folder / "color").mkdir(parents=True)
    for index in range(3):
        cv2.imwrite(str(folder / f"color/{index}.png"), image(index))
        cv2.imwrite(str(folder / f"color/d{index}.png"), np.full((6, 8), 1500, np.uint16))
    (folder / "images.txt").write_text(
        "# timestamp colour depth\n"
        + "".join(f"0.{i} color/{i}.png color/d{i}.png\n" for i in range(3))
    )
    (folder / "intrinsics.txt").write_text(CALIBRATION)
    (folder / "groundtruth.tum").write_text(TRUTH)
    return folder


@pytest.fixture
def tum(tmp_path: Path) -> Path:
    folder = tmp_path / "rgbd_dataset_freiburg2_desk"
    folder.mkdir()
    lines = []
    for index in range(3):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((480, 640, 3), index, np.uint8))
        lines.append(f"0.{index} {index}.png\n")
    cv2.imwrite(str(folder / "d.png"), np.full((480, 640), 5000, np.uint16))
    (folder / "rgb.txt").write_text("# colour images\n" + "".join(lines))
    (folder / "depth.txt").write_text("0.115 d.png\n0.17 d.png\n")
    (folder / "groundtruth.txt").write_text(TRUTH)
    return folder


def test_plain_layout(plain: Path) -> None:
    sequence = open_sequence(plain)
    assert (sequence.name, len(sequence)) == ("walk", 3)
    items = list(sequence)
    assert [item.stamp_ns for item in items] == [0, 100_000_000, 200_000_000]
    assert [int(item.image[0, 0]) for item in items] == [0, 1, 2]
    assert items[2].T_world_camera is not None
    assert items[2].T_world_camera[0, 3] == 2.0
    assert items[0].depth is not None
    np.testing.assert_allclose(items[0].depth, 1.5)
    camera = items[0].camera
    assert camera is not None
    assert (camera.width, camera.height) == (8, 6)
    np.testing.assert_array_equal(camera.matrix, [[10, 0, 3.5], [0, 11, 2.5], [0, 0, 1]])
    np.testing.assert_array_equal(camera.distortion, [0.1, 0, 0, 0])


def test_depth_unit_can_be_given(plain: Path) -> None:
    depth = open_sequence(plain, depth_unit_m=0.0002)[0].depth
    assert depth is not None
    np.testing.assert_allclose(depth, 0.3)


def test_depth_and_truth_may_be_missing(plain: Path) -> None:
    (plain / "groundtruth.tum").unlink()
    (plain / "images.txt").write_text("0.0 color/0.png\n")
    item = open_sequence(plain)[0]
    assert item.depth is None
    assert item.T_world_camera is None


def test_tum_layout_associates_depth_by_time(tum: Path) -> None:
    items = list(open_sequence(tum))
    assert [item.depth is not None for item in items] == [False, True, False]
    assert items[1].depth is not None
    np.testing.assert_allclose(items[1].depth, 1.0)
    assert items[0].camera is not None
    assert items[0].camera.matrix[0, 0] == 520.9
    assert items[1].T_world_camera is not None
    assert items[1].T_world_camera[0, 3] == 1.0


def test_tum_calibration_by_name_or_file(tum: Path) -> None:
    renamed = tum.rename(tum.parent / "desk")
    with pytest.raises(DataError, match=r"no calibration. Add intrinsics\.txt"):
        open_sequence(renamed)
    (renamed / "intrinsics.txt").write_text("640 480 500 500 320 240 0 0 0 0 0\n")
    camera = open_sequence(renamed).camera
    assert camera is not None
    assert not camera.distorted


@pytest.mark.parametrize(
    "file, text, message",
    [
        ("images.txt", "0.0\n", r"images\.txt, line 1: 1 values"),
        ("images.txt", "zero color/0.png\n", r"images\.txt, line 1: 'zero' is not a timestamp"),
        ("images.txt", "0.1 color/0.png\n0.1 color/1.png\n", r"1\.png is not later than that of 0"),
        ("images.txt", "# none\n", r"images\.txt lists no image"),
        ("intrinsics.txt", "8 6 10 11 3.5\n", "must hold one line"),
        ("intrinsics.txt", "8 6 0 11 3.5 2.5\n", "focal lengths"),
        ("groundtruth.tum", "0 0 0\n", r"groundtruth\.tum, line 1: 3 values"),
    ],
)
def test_malformed_files_are_named(plain: Path, file: str, text: str, message: str) -> None:
    (plain / file).write_text(text)
    with pytest.raises(DataError, match=message):
        open_sequence(plain)


def test_bad_images_are_named_when_read(plain: Path) -> None:
    (plain / "color/0.png").unlink()
    (plain / "color/1.png").write_bytes(b"no image")
    cv2.imwrite(str(plain / "color/2.png"), np.zeros((5, 5), np.uint8))
    sequence = open_sequence(plain)
    for index, message in enumerate(["0.png does not exist", "cannot be read", "is 5x5, but"]):
        with pytest.raises(DataError, match=message):
            sequence[index]


def test_what_is_no_sequence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_sequence(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no sequence of a known layout\. plain: images\.txt"):
        open_sequence(tmp_path)


def write_scannet(folder: Path) -> Path:
    for part in ("color", "depth", "pose", "intrinsic"):
        (folder / part).mkdir(parents=True)
    for i in (0, 2, 10):
        cv2.imwrite(str(folder / f"color/{i}.jpg"), image(i))
        cv2.imwrite(str(folder / f"depth/{i}.png"), np.full((3, 4), 1500, np.uint16))
        np.savetxt(folder / f"pose/{i}.txt", np.eye(4) if i != 2 else np.full((4, 4), -np.inf))
    np.savetxt(folder / "intrinsic/intrinsic_color.txt", np.diag([50.0, 51, 1, 1]))
    return folder


def test_scannet_leaves_out_lost_frames_and_enlarges_depth(tmp_path: Path) -> None:
    sequence = open_sequence(write_scannet(tmp_path / "scene0000_00"))
    assert [path.stem for path in sequence.image_paths] == ["0", "10"]
    item = sequence[1]
    assert item.depth is not None
    assert item.depth.shape == (6, 8)  # the sensor has half the resolution
    np.testing.assert_allclose(item.depth, 1.5)
    np.testing.assert_array_equal(item.T_world_camera, np.eye(4))
    assert item.camera is not None
    assert (item.camera.width, item.camera.matrix[1, 1]) == (8, 51)


def test_scannet_without_any_pose_is_refused(tmp_path: Path) -> None:
    folder = write_scannet(tmp_path / "s")
    for file in (folder / "pose").iterdir():
        np.savetxt(file, np.full((4, 4), np.nan))
    with pytest.raises(DataError, match="no frame with a pose"):
        open_sequence(folder)
    (folder / "pose" / "0.txt").write_text("1 2\n3 x")
    with pytest.raises(DataError, match=r"0\.txt cannot be read as a matrix"):
        open_sequence(folder)


def test_megadepth_turns_poses_round_and_leaves_out_missing_images(tmp_path: Path) -> None:
    T_camera_world = np.eye(4)
    T_camera_world[0, 3] = 5.0
    (tmp_path / "scene_info").mkdir()
    scene = tmp_path / "scene_info" / "0001.npz"
    np.savez(
        scene,
        image_paths=np.array([None, "a.jpg"], object),
        depth_paths=np.array(["b.h5", "a.h5"], object),
        intrinsics=np.array([None, np.diag([30.0, 31, 1])], object),
        poses=np.array([None, T_camera_world], object),
    )
    sequence = open_sequence(scene)
    assert (len(sequence), sequence.outdoor, sequence.name) == (1, True, "0001")
    assert sequence.image_paths == [tmp_path / "a.jpg"]
    assert sequence.pose(0)[0, 3] == -5
    assert sequence.intrinsics(0)[1, 1] == 31
    assert sequence.camera is None  # photographs of many cameras
    assert open_sequence(scene, root=tmp_path / "x").image_paths == [tmp_path / "x" / "a.jpg"]
    np.savez(scene, image_paths=np.array(["a.jpg"], object))
    with pytest.raises(DataError, match="no MegaDepth scene file: it has no depth_paths"):
        open_sequence(scene)


def test_an_unknown_layout_is_named_with_those_there_are(plain: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown sequence layout 'colmap'.*plain, tum"):
        open_sequence(plain, layout="colmap")


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    """Colour images of camera 2, which stands 0.06 m to the left of camera 0."""
    folder = tmp_path / "sequences" / "03"
    (folder / "image_2").mkdir(parents=True)
    for index in range(2):
        cv2.imwrite(str(folder / f"image_2/{index:06d}.png"), image(index))
    (folder / "calib.txt").write_text(
        "P0: 10 0 3 0 0 10 2 0 0 0 1 0\nP2: 10 0 3 0.6 0 10 2 0 0 0 1 0\n"
    )
    (folder / "times.txt").write_text("0.000000e+00\n1.036224e-01\n")
    (tmp_path / "poses").mkdir()
    turned = "0 0 1 5 0 1 0 0 -1 0 0 7"  # the camera's x is the world's -z
    (tmp_path / "poses/03.txt").write_text(f"1 0 0 0 0 1 0 0 0 0 1 0\n{turned}\n")
    return folder


def test_kitti_layout_moves_the_poses_to_the_camera(kitti: Path) -> None:
    sequence = open_sequence(kitti)
    items = list(sequence)
    assert [item.stamp_ns for item in items] == [0, 103_622_400]
    assert items[0].camera is not None
    assert (items[0].camera.width, items[0].camera.matrix[0, 2]) == (8, 3)
    first, second = (item.T_world_camera for item in items)
    assert first is not None
    assert second is not None
    np.testing.assert_allclose(first[:3, 3], [-0.06, 0, 0])
    np.testing.assert_allclose(second[:3, 3], [5, 0, 7.06])
    with pytest.raises(DataError, match="no rectified stereo pairs"):
        sequence.right_image(0)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("calib.txt", "P2: 10 0 3\n", r"calib\.txt, line 1: 3 values, but a projection has 12"),
        ("calib.txt", "P0: 10 0 3 0 0 10 2 0 0 0 1 0\n", r"calib\.txt has no line P2"),
        ("times.txt", "0\n", r"03\.txt has 2 poses for 1 images"),
        ("../../poses/03.txt", "1 0\n", r"03\.txt, line 1: 2 values, but a pose has 12"),
    ],
)
def test_malformed_files_of_kitti_are_named(
    kitti: Path, file: str, text: str, message: str
) -> None:
    (kitti / file).write_text(text)
    with pytest.raises(DataError, match=message):
        open_sequence(kitti)


SENSOR = """# General sensor definitions.
sensor_type: camera
T_BS:
  cols: 4
  rows: 4
  data: [0.0, -1.0, 0.0, 0.1,
         1.0, 0.0, 0.0, 0.2,
         0.0, 0.0, 1.0, 0.3,
         0.0, 0.0, 0.0, 1.0]
rate_hz: 20
resolution: [8, 6]
camera_model: pinhole
intrinsics: [10, 11, 3.5, 2.5] #fu, fv, cu, cv
distortion_model: radial-tangential
distortion_coefficients: [-0.28, 0.07, 0.0002, 0.00002]
"""


@pytest.fixture
def euroc(tmp_path: Path) -> Path:
    folder = tmp_path / "MH_01_easy"
    data = folder / "mav0" / "cam0" / "data"
    data.mkdir(parents=True)
    stamps = [1403636579763555584, 1403636579813555456]
    for index, stamp in enumerate(stamps):
        cv2.imwrite(str(data / f"{stamp}.png"), image(index))
    (data.parent / "data.csv").write_text(
        "#timestamp [ns],filename\n" + "".join(f"{s},{s}.png\n" for s in stamps)
    )
    (data.parent / "sensor.yaml").write_text(SENSOR)
    truth = folder / "mav0" / "state_groundtruth_estimate0"
    truth.mkdir()
    rest = "0,0,0,0,0,0,0,0,0"
    (truth / "data.csv").write_text(
        "#timestamp, p_RS_R_x [m], ...\n"
        f"{stamps[0]},4,5,6,1,0,0,0,{rest}\n{stamps[1]},4,5,6,0,0,0,1,{rest}\n"
    )
    return folder


def test_euroc_layout_moves_the_body_s_poses_to_the_camera(euroc: Path) -> None:
    for path in (euroc, euroc / "mav0"):
        sequence = open_sequence(path)
        assert (sequence.name, len(sequence)) == ("MH_01_easy", 2)
    items = list(sequence)
    assert items[1].stamp_ns == 1403636579813555456
    assert int(items[1].image[0, 0]) == 1
    camera = items[0].camera
    assert camera is not None
    np.testing.assert_array_equal(camera.matrix, [[10, 0, 3.5], [0, 11, 2.5], [0, 0, 1]])
    np.testing.assert_array_equal(camera.distortion, [-0.28, 0.07, 0.0002, 0.00002])
    first, second = (item.T_world_camera for item in items)
    assert first is not None
    assert second is not None
    np.testing.assert_allclose(first[:3], [[0, -1, 0, 4.1], [1, 0, 0, 5.2], [0, 0, 1, 6.3]])
    # The quaternion's w comes first: half a turn about z.
    np.testing.assert_allclose(second[:3, 3], [3.9, 4.8, 6.3], atol=1e-12)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("cam0/sensor.yaml", "radial-tangential", "equidistant", "must be radial-tangential"),
        ("cam0/sensor.yaml", "[8, 6]", "[8]", r"resolution must be 2 finite numbers"),
        ("cam0/sensor.yaml", "T_BS", "T_SB", "has no T_BS"),
        ("cam0/data.csv", "1403636579763555584,", "x,", "'x' is not a timestamp in nanoseconds"),
        ("state_groundtruth_estimate0/data.csv", ",4,5,6,1,", ",4,5,6,2,", "norm is not 1"),
    ],
)
def test_malformed_files_of_euroc_are_named(
    euroc: Path, file: str, old: str, new: str, message: str
) -> None:
    path = euroc / "mav0" / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        open_sequence(euroc)
