from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from superglue_ros.cli import main
from superglue_ros.data.sequences.base import open_sequence
from superglue_ros.data.trajectories import Trajectory, write_trajectory
from superglue_ros.errors import DataError
from superglue_ros.evaluation.pairs.make_pairs import FrameRange, pairs_by_gap, pairs_by_overlap
from superglue_ros.evaluation.pairs.pairs_file import read_pairs

FRAMES = 6


def write_sequence(folder: Path, distortion: str = "0 0 0 0") -> Path:
    """A camera that moves sideways along a wall 2 m away, a tenth of its view per frame."""
    folder.mkdir()
    rows, poses = [], []
    for k in range(FRAMES):
        image = np.full((60, 80), 100, np.uint8)
        image[20 + k : 30 + k, 30:50] = 220
        cv2.imwrite(str(folder / f"{k}.png"), image)
        cv2.imwrite(str(folder / f"{k}d.png"), np.full((60, 80), 2000, np.uint16))
        rows.append(f"{k + 1}.0 {k}.png {k}d.png")
        pose = np.eye(4)
        pose[0, 3] = 0.2 * k
        poses.append(pose)
    (folder / "images.txt").write_text("\n".join(rows) + "\n")
    (folder / "intrinsics.txt").write_text(f"80 60 80 80 39.5 29.5 {distortion}\n")
    stamps = np.arange(1, FRAMES + 1, dtype=np.int64) * 1_000_000_000
    write_trajectory(folder / "groundtruth.tum", Trajectory(stamps, np.array(poses)))
    return folder


def test_gap_pairs_hold_the_true_motion(tmp_path):
    folder = write_sequence(tmp_path / "s")
    pairs = pairs_by_gap(open_sequence(folder), 2, FrameRange(), folder)
    assert [(p.name0, p.name1) for p in pairs] == [(f"{k}.png", f"{k + 2}.png") for k in range(4)]
    for pair in pairs:
        # The camera moves to the right, so points move to the left.
        np.testing.assert_allclose(pair.transform[:3, 3], [-0.4, 0, 0], atol=1e-9)
        np.testing.assert_allclose(pair.intrinsics0[0], [80, 0, 39.5])
    last = pairs_by_gap(open_sequence(folder), 1, FrameRange(first=-3), folder)
    assert [p.name0 for p in last] == ["3.png", "4.png"]
    assert list(FrameRange(1, 5, 2).indices(FRAMES)) == [1, 3]
    with pytest.raises(DataError, match="no two frames 9 apart"):
        pairs_by_gap(open_sequence(folder), 9, FrameRange(), folder)


def test_overlap_pairs_share_what_was_asked_for(tmp_path):
    # View of 2 m width at the wall: a step of 0.2 m leaves 90, 80, 70 ... percent.
    folder = write_sequence(tmp_path / "s")
    pairs = pairs_by_overlap(open_sequence(folder), 0.55, 0.75, 99, 0, FrameRange(), folder)
    gaps = {int(p.name1[0]) - int(p.name0[0]) for p in pairs}
    assert gaps == {3, 4}
    assert len(pairs) == 5
    few = pairs_by_overlap(open_sequence(folder), 0.55, 0.75, 2, 0, FrameRange(), folder)
    assert len(few) == 2
    with pytest.raises(DataError, match="overlap"):
        pairs_by_overlap(open_sequence(folder), 0.0, 0.1, 9, 0, FrameRange(), folder)


def test_distorted_images_are_rectified_on_request(tmp_path, capsys):
    folder = write_sequence(tmp_path / "s", "-0.3 0.05 0 0")
    command = ["evaluate", "make-pairs", str(folder), "--gap", "1"]
    output = tmp_path / "pairs.txt"
    assert main([*command, "--output", str(output)]) == 1
    assert "--rectified" in capsys.readouterr().err
    flat = tmp_path / "flat"
    assert main([*command, "--output", str(output), "--rectified", str(flat)]) == 0
    assert len(read_pairs(output)) == FRAMES - 1
    sequence = open_sequence(flat)
    assert not sequence.camera.distorted
    # A corner of the square lies where the camera model says that it appears without distortion.
    before, after = open_sequence(folder), sequence[0].image
    corner = before.camera.rays(np.array([[30.0, 20.0]])) * 80 + [39.5, 29.5]
    x, y = corner[0]
    assert after[round(y) + 3, round(x) + 3] > 180
    assert after[round(y) - 3, round(x) - 3] < 140
    assert np.median(sequence[0].depth) == pytest.approx(2.0)
