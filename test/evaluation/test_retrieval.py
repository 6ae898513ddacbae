"""Recall of earlier places, on similarities and poses whose answer is known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from superglue_ros.cli import main
from superglue_ros.config import Config, FrontEndConfig
from superglue_ros.data.sequences.base import SequenceItem, open_sequence
from superglue_ros.evaluation.pairs.methods import MethodSpec
from superglue_ros.evaluation.retrieval import (
    RetrievalProtocol,
    _true,
    _View,
    evaluate_retrieval,
    first_true_ranks,
    retrieval_table,
    same_places,
)
from superglue_ros.geometry.camera import Camera
from superglue_ros.networks.places import PlaceAggregation, PlacesConfig
from superglue_ros.networks.weights import save


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


def test_with_depth_a_place_is_what_both_frames_see():
    """A wall 2 m away: what is 2 m further along it is another place, which 1.5 m would not be."""
    camera = Camera(640, 480, np.array([[320.0, 0, 320], [0, 320, 240], [0, 0, 1]]), np.zeros(0))
    wall = np.full((480, 640), 2.0, np.float32)
    image = np.zeros((480, 640), np.uint8)

    def true(protocol: RetrievalProtocol, depth: np.ndarray | None = wall) -> list[bool]:
        items = [
            SequenceItem(0, image, camera, depth, None if x is None else pose(x, 0))
            for x in (0, 1.4, 2.0, 3.5, None)  # views of 4 m: 65, 50 and 12 % are shared
        ]
        views = [_View.of(item) for item in items]
        everything = np.ones((5, 5), bool)
        return _true(views, everything, protocol)[0].tolist()

    assert true(RetrievalProtocol(overlap=0.55))[1:] == [True, False, False, False]
    assert true(RetrievalProtocol(overlap=0.3))[1:] == [True, True, False, False]
    by_distance = [True, False, False, False]
    assert true(RetrievalProtocol(overlap=0.0))[1:] == by_distance
    assert true(RetrievalProtocol(overlap=0.3), None)[1:] == by_distance


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
    words += ["--output", str(tmp_path / "out"), "--distance", "0.1"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    # The learned aggregation is made for SuperPoint's descriptors, and there is one sequence.
    assert [line.split("|")[1:4] for line in shown.splitlines() if "VLAD" in line] == [
        [" sequence ", " VLAD ", " 4 "]
    ]
    assert "learned" not in shown
    assert "| all |" not in shown
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    found = summary["sequences"]["sequence"]
    assert found["queries"] == 4  # one of the five stands still at the turn
    assert {k: v["value"] for k, v in found["recall"]["VLAD"].items()} == {
        "1": 100.0, "5": 100.0, "10": 100.0,
    }  # fmt: skip
    assert main([*words, "--later"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["all"]["queries"] == 8  # the way there asks for the way back
    assert main([*words, "--gap", "50"]) == 1
    assert "without depth within 0.1 m and 30 deg" in capsys.readouterr().err


def test_every_third_frame_and_both_aggregations_of_two_sequences(
    there_and_back: Path, tmp_path: Path
) -> None:
    other = there_and_back.with_name("other")
    shutil.copytree(there_and_back, other)
    sequences = [open_sequence(folder) for folder in (there_and_back, other)]
    spec = MethodSpec(Config(front_end=FrontEndConfig(max_keypoints=100)))
    protocol = RetrievalProtocol(gap=1, distance_m=0.1, stride=3)
    found = evaluate_retrieval(sequences, spec, protocol, tmp_path / "out")
    assert found["sequences"]["other"]["frames"] == 4
    assert found["all"]["queries"] == 4
    table = retrieval_table(found)
    assert [row[:3] for row in table.rows] == [
        [name, method, queries]
        for name, queries in (("sequence", "2"), ("other", "2"), ("all", "4"))
        for method in ("VLAD", "learned")
    ]
    values = {method: one["1"]["value"] for method, one in found["all"]["recall"].items()}
    assert values == {"VLAD": 100.0, "learned": 100.0}


def test_weights_of_ones_own_are_compared_with_vlad(
    there_and_back: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["evaluate", "retrieval", str(there_and_back), "--gap", "2", "--distance", "0.1"]
    own = tmp_path / "own.safetensors"
    words += ["--output", str(tmp_path / "out"), "--set", f"place_weights={own}"]
    torch.manual_seed(0)
    save(PlaceAggregation(PlacesConfig(128, 8)), own, "sift-root", "")
    assert main([*words, "--front-end", "sift"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["place_weights"] == str(own)
    assert summary["all"]["recall"]["learned"]["1"]["value"] == 100.0  # untrained, as NetVLAD's is
    assert main([*words, "--front-end", "orb"]) == 1
    assert "descriptors are 'orb' but the weights in" in " ".join(capsys.readouterr().err.split())
