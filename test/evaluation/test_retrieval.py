"""Recall of earlier places, on similarities and poses whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from superglue_ros.cli import main
from superglue_ros.evaluation.retrieval import RetrievalProtocol, first_true_ranks, same_places


def pose(x: float, degrees: float) -> np.ndarray:
    a = np.radians(degrees)
    out = np.eye(4)
    out[:3, :3] = [[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]
    out[0, 3] = x
    return out


def test_ranks_of_the_most_similar_true_frame() -> None:
    similarity = np.array([[0, 0, 0, 0], [0.5, 0, 0, 0], [0.1, 0.9, 0, 0], [0.3, 0.2, 0.4, 0]])
    allowed = np.tri(4, k=-1, dtype=bool)
    true = np.zeros((4, 4), bool)
    true[2, 0] = true[3, 0] = true[3, 1] = True
    true[0, 3] = True  # not in the database of frame 0
    assert first_true_ranks(similarity, allowed, true).tolist() == [2, 2]


def test_the_same_place_is_near_and_seen_from_the_same_side() -> None:
    nowhere = np.full((4, 4), np.nan)
    poses = np.array([pose(0, 0), pose(1, 10), pose(1, 100), pose(3, 0), nowhere])
    found = same_places(poses, RetrievalProtocol(distance_m=1.5, angle_deg=30))
    assert [tuple(p) for p in np.argwhere(np.triu(found, 1)).tolist()] == [(0, 1)]


@pytest.fixture
def there_and_back(tmp_path: Path) -> Path:
    """Along a photograph and back: the second half shows what the first half showed."""
    photograph = cv2.cvtColor(data.coffee(), cv2.COLOR_RGB2GRAY)
    folder = tmp_path / "sequence"
    folder.mkdir()
    shifts = [*range(0, 400, 80), *range(320, -1, -80)]
    listed, truth = [], []
    for number, shift in enumerate(shifts):
        cv2.imwrite(str(folder / f"{number}.png"), photograph[100:340, shift : shift + 200])
        listed.append(f"{number}.0 {number}.png\n")
        truth.append(f"{number}.0 {shift / 100} 0 0 0 0 0 1\n")
    (folder / "images.txt").write_text("".join(listed))
    (folder / "groundtruth.tum").write_text("".join(truth))
    (folder / "intrinsics.txt").write_text("200 240 200 200 100 120 0 0 0 0\n")
    return folder


def test_the_command_finds_the_way_back(
    there_and_back: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["evaluate", "retrieval", str(there_and_back), "--front-end", "sift", "--gap", "2"]
    words += ["--output", str(tmp_path / "out")]
    assert main([*words, "--distance", "0.1"]) == 0
    assert "recall at 1 / 5 / 10: 100.0" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["queries"] == 4  # one of the five stands still at the turn
    assert summary["recall"] == {"1": 100.0, "5": 100.0, "10": 100.0}
    assert main([*words, "--distance", "0.1", "--gap", "50"]) == 1
    assert "comes back within 0.1 m and 30 deg" in capsys.readouterr().err
