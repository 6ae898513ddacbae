"""Right and wrong loops against true poses, and the command's table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from superglue_ros.cli import main
from superglue_ros.data.sequences.base import SequenceItem
from superglue_ros.evaluation.loops import LoopProtocol, judge, loop_counts, loop_table
from superglue_ros.types import MatchKind, PoseStatus

from ..landmark_world import CAMERA, heading
from ..mapping.test_loops import pair, relative


def item(degrees: float, x: float = 0.0, depth: float | None = 2.0) -> SequenceItem:
    pose = np.eye(4)
    pose[:3, :3], pose[0, 3] = heading(degrees), x
    shape = (CAMERA.height, CAMERA.width)
    return SequenceItem(
        stamp_ns=0,
        image=np.zeros(shape, np.uint8),
        camera=CAMERA,
        depth=None if depth is None else np.full(shape, depth, np.float32),
        T_world_camera=pose,
    )


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        (item(12), False),
        (item(25), True),  # turned by 15 degrees less than that
        (item(10, x=9.0), True),  # of a place 9 m away
        (item(10, x=9.0, depth=None), False),  # which nothing tells without depth
        (replace(item(25), T_world_camera=None), None),
    ],
)
def test_a_loop_is_wrong_by_its_rotation_or_by_what_both_see(query, wrong):
    found = judge("walk", pair(MatchKind.LOOP, relative(3, 9, 10)), item(0), query, LoopProtocol())
    assert found.wrong is wrong
    assert (found.reference, found.query) == (2, 8)  # frame n has the id n + 1
    assert (found.sighted, found.closed, found.inliers) == (True, True, 40)


def test_sighted_closed_and_merged_are_counted_with_what_is_wrong_of_them():
    protocol, right, far = LoopProtocol(), item(10), item(90)
    closed = pair(MatchKind.LOOP, relative(1, 9, 10))
    merged = replace(closed, matches=replace(closed.matches, merged_from=np.array([5, 6])))
    records = [
        judge("walk", one, item(0), query, protocol)
        for one, query in (
            (closed, right),
            (merged, right),
            (closed.unconfirmed(), far),
            (pair(MatchKind.LOOP, relative(1, 9, 0, status=PoseStatus.FEW)), far),
        )
    ]
    counts = loop_counts(records)
    assert [counts[k] for k in ("candidates", "sighted", "closed", "merged")] == [4, 3, 2, 1]
    wrong = [counts[f"wrong_{k}"] for k in ("candidates", "sighted", "closed", "merged")]
    assert wrong == [2, 1, 0, 0]
    table = loop_table({"walk": {"frames": 20, "keyframes": 9, **counts}})
    assert table.rows[-1] == ["all", "20", "9", "4", "3 (1)", "2 (0)", "1 (0)"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    photograph = cv2.cvtColor(data.coffee(), cv2.COLOR_RGB2GRAY)
    listed, truth = [], []
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), photograph[100:340, 40 * number :][:, :320])
        listed.append(f"{number}.0 {number}.png\n")
        truth.append(f"{number}.0 {0.1 * number} 0 0 0 0 0 1\n")
    (tmp_path / "images.txt").write_text("".join(listed))
    (tmp_path / "groundtruth.tum").write_text("".join(truth))
    (tmp_path / "intrinsics.txt").write_text("320 240 300 300 160 120 0 0 0 0\n")
    words = ["evaluate", "loops", str(tmp_path), "--front-end", "sift", "--matcher", "ratio"]
    words += ["--stride", "2", "--output", str(tmp_path / "out")]
    assert main(words) == 0
    assert f"| {tmp_path.name} | 2 | " in capsys.readouterr().out
    assert (tmp_path / "out" / "loops.csv").is_file()
    assert main([*words, "--stride", "0"]) == 1
    assert "--stride must be at least 1" in capsys.readouterr().err
