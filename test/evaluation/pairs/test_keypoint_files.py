from __future__ import annotations

import numpy as np
import pytest

from superglue_ros.errors import DataError
from superglue_ros.evaluation.pairs.keypoint_files import read_keypoints


def test_keypoint_files_of_all_kinds(tmp_path):
    points = np.array([[1.5, 2.0], [30, 20]], np.float32)
    (tmp_path / "a.jpg.txt").write_text("1.5 2\n30 20\n")
    (tmp_path / "b.csv").write_text("1.5,2,0.25\n30,20,0.75\n")
    np.savez(tmp_path / "c.jpg.npz", keypoints=points, descriptors=np.eye(2), detector="mine")
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        np.testing.assert_array_equal(read_keypoints(tmp_path, name).points, points)
    np.testing.assert_array_equal(read_keypoints(tmp_path, "b.jpg").scores, [0.25, 0.75])
    assert read_keypoints(tmp_path, "c.jpg").detector == "mine"
    with pytest.raises(DataError, match="no keypoints for image d"):
        read_keypoints(tmp_path, "d.jpg")
    (tmp_path / "e.txt").write_text("1 2 3 4\n")
    with pytest.raises(DataError, match="cannot be read as keypoints"):
        read_keypoints(tmp_path, "e.jpg")
