from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from superglue_ros.data.sequences.base import open_sequence
from superglue_ros.errors import DataError
from superglue_ros.evaluation.pairs.frame_depths import FrameDepths


def write_sequence(folder: Path, frames: int, distortion: str = "") -> Path:
    """Frame k shows a wall at 1 + k metres; the last frame has no depth."""
    folder.mkdir()
    lines = []
    for k in range(frames):
        cv2.imwrite(str(folder / f"{k}.png"), np.full((30, 40), 90, np.uint8))
        cv2.imwrite(str(folder / f"{k}.depth.png"), np.full((30, 40), 1000 * (1 + k), np.uint16))
        lines.append(f"{k} {k}.png" + (f" {k}.depth.png\n" if k < frames - 1 else "\n"))
    (folder / "images.txt").write_text("".join(lines))
    (folder / "intrinsics.txt").write_text(f"40 30 50 50 19.5 14.5 {distortion}\n")
    return folder


def test_depth_is_found_by_the_image_file(tmp_path):
    folder = write_sequence(tmp_path / "walk", 12)
    depths = FrameDepths(open_sequence(folder))
    for k in (*range(11), 0):  # more than are kept, and back to the first
        depth = depths.of(folder / ".." / "walk" / f"{k}.png")
        assert depth.shape == (30, 40)
        np.testing.assert_allclose(depth, 1 + k)


def test_images_without_depth_or_of_another_sequence_are_told(tmp_path):
    folder = write_sequence(tmp_path / "walk", 3)
    depths = FrameDepths(open_sequence(folder))
    with pytest.raises(DataError, match=r"2\.png has no depth in walk"):
        depths.of(folder / "2.png")
    with pytest.raises(DataError, match=r"x\.png is no image of sequence walk"):
        depths.of(folder / "x.png")
    bent = write_sequence(tmp_path / "bent", 3, "0.1 0 0 0")
    with pytest.raises(DataError, match=r"distorted.*--rectified"):
        FrameDepths(open_sequence(bent))
