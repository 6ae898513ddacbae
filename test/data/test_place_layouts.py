"""The layouts of the localization data sets, on tiny examples of each."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from superglue_ros.data.sequences.base import open_sequence
from superglue_ros.data.trajectories import quaternion_of
from superglue_ros.errors import DataError
from superglue_ros.geometry.camera import Camera
from superglue_ros.geometry.rotation import exp

POSE = np.eye(4)
POSE[:3, :3], POSE[:3, 3] = exp(np.array([0.3, -0.2, 0.5])), [1, 2, 3]


def image(path: Path, width: int = 64, height: int = 48) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width), 128, np.uint8))


def test_seven_scenes(tmp_path: Path) -> None:
    scene = tmp_path / "chess"
    for sequence, frames in ((1, 2), (2, 1), (3, 1)):
        for frame in range(frames):
            stem = scene / f"seq-{sequence:02d}" / f"frame-{frame:06d}"
            image(Path(f"{stem}.color.png"), 640, 480)
            np.savetxt(f"{stem}.pose.txt", POSE)
    (scene / "TrainSplit.txt").write_text("sequence1\nsequence3\n")
    train = open_sequence(scene / "TrainSplit.txt")
    names = [path.relative_to(scene).as_posix() for path in train.image_paths]
    assert names == [
        "seq-01/frame-000000.color.png",
        "seq-01/frame-000001.color.png",
        "seq-03/frame-000000.color.png",
    ]
    np.testing.assert_allclose(train.pose(2), POSE, atol=1e-9)
    assert train[0].camera is not None
    assert train[0].camera.matrix[0, 0] == 525
    assert len(open_sequence(scene / "seq-02")) == 1
    (scene / "TestSplit.txt").write_text("sequence4\n")
    with pytest.raises(DataError, match=r"TestSplit.txt, line 1: .*seq-04 does not exist"):
        open_sequence(scene / "TestSplit.txt")


def test_cambridge(tmp_path: Path) -> None:
    x, y, z, w = quaternion_of(POSE[:3, :3].T)
    heading = "Visual Landmark Dataset V1\nImageFile, Camera Position [X Y Z W P Q R]\n\n"
    line = f"seq1/frame00001.png 1 2 3 {w} {x} {y} {z}\n"
    image(tmp_path / "seq1/frame00001.png")
    (tmp_path / "dataset_test.txt").write_text(heading + line)
    sequence = open_sequence(tmp_path / "dataset_test.txt")
    np.testing.assert_allclose(sequence.pose(0), POSE, atol=1e-9)
    assert sequence[0].camera is None
    assert sequence.outdoor
    (tmp_path / "dataset_train.txt").write_text(heading + "seq1/frame00001.png 1 2 3\n")
    with pytest.raises(DataError, match=r"line 4: 4 values, but a line is 'image X Y Z W P Q R'"):
        open_sequence(tmp_path / "dataset_train.txt")


def test_aachen(tmp_path: Path) -> None:
    queries = tmp_path / "queries" / "night_time_queries_with_intrinsics.txt"
    queries.parent.mkdir()
    queries.write_text("query/night/a.jpg SIMPLE_RADIAL 64 48 50 32 24 0.1\n")
    image(tmp_path / "images_upright/query/night/a.jpg")
    sequence = open_sequence(queries, root=tmp_path / "images_upright")
    item = sequence[0]
    assert isinstance(item.camera, Camera)
    assert item.camera.matrix[:2].tolist() == [[50, 0, 31.5], [0, 50, 23.5]]
    assert item.camera.distortion[0] == 0.1
    assert item.T_world_camera is None
    queries.write_text("query/night/a.jpg SIMPLE_RADIAL 64 48 50 32 24\n")
    with pytest.raises(DataError, match="line 1: SIMPLE_RADIAL has 4 parameters, not 3"):
        open_sequence(queries)
    queries.write_text("a.jpg THIN_PRISM 64 48 50\n")
    with pytest.raises(DataError, match="MODEL one of SIMPLE_PINHOLE"):
        open_sequence(queries)
