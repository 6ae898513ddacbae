"""Which pictures a run leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from superglue_ros.data.bag_sequences import BagSequence, write_bag
from superglue_ros.data.sequences.base import SequenceItem
from superglue_ros.demo import pictures
from superglue_ros.demo.pictures import draw_results
from superglue_ros.demo.results import PairResult, Results
from superglue_ros.types import FrameId, Matches, MatchKind, MatchStatus, PoseStatus


@pytest.fixture
def bag(tmp_path: Path) -> BagSequence:
    """Nine grey frames, ten a second."""

    class Grey:
        name = "grey"

        def __len__(self) -> int:
            return 9

        def __iter__(self) -> Iterator[SequenceItem]:
            image = np.full((120, 160), 90, np.uint8)
            return (SequenceItem(i * 10**8, image, None, None, None) for i in range(9))

    write_bag(Grey(), tmp_path / "bag")
    return BagSequence(tmp_path / "bag")


def result(
    ref: int, query: int, error_px: float | None, status: PoseStatus = PoseStatus.VALID
) -> PairResult:
    count = 4
    points = np.random.default_rng(query).uniform(10, 110, (count, 2)).astype(np.float32)
    matches = Matches(
        FrameId(ref, ref * 10**8), FrameId(query, query * 10**8), MatchKind.KEYFRAME,
        MatchStatus.OK, np.arange(count, dtype=np.int32), np.arange(count, dtype=np.int32), points,
        points + 1, np.full(count, 0.9, np.float32), np.ones(count, bool),
        np.ones(count, np.float32), np.full(count, -1, np.int64),
    )  # fmt: skip
    errors = None if error_px is None else np.full(count, error_px)
    return PairResult(matches, status, 0.5, np.nan, 2.0, errors)


def test_pairs_are_spread_over_the_run(bag: BagSequence, tmp_path: Path) -> None:
    pairs = tuple(result(query - 1, query, 0.1) for query in range(1, 9))
    paths = draw_results(Results(pairs, (), None), bag, tmp_path, "grey")
    assert [path.name for path in paths] == [
        *(f"{kind}_{n}.png" for n in (1, 2, 3, 4) for kind in ("matches", "epipolar_error")),
        "errors_over_time.png",
    ]
    for path in paths:
        image = cv2.imread(str(path))
        assert image is not None
        assert image.std() > 1  # not the grey alone
    assert cv2.imread(str(paths[0])).shape == (120, 160 + 8 + 160, 3)


def test_no_truth_and_no_pairs(bag: BagSequence, tmp_path: Path) -> None:
    paths = draw_results(Results((result(0, 1, None),), (), None), bag, tmp_path, "grey")
    assert [path.name for path in paths] == ["matches_1.png", "errors_over_time.png"]
    assert draw_results(Results((), (), None), bag, tmp_path, "grey") == []


def test_failed_attempts_are_shown_last(bag: BagSequence, tmp_path: Path) -> None:
    """A long pair without a pose does not take the place of a shorter one with a pose."""
    pairs = (result(0, 8, None, PoseStatus.FEW), result(5, 8, None), result(7, 8, None))
    shown = pictures.pairs_to_show((*pairs, *pairs, *pairs, *pairs))
    assert [pair.matches.reference.id for pair in shown] == [5, 5, 5, 5]
    only_failed = draw_results(Results(pairs[:1], (), None), bag, tmp_path, "grey")
    assert [path.name for path in only_failed] == ["matches_1.png", "errors_over_time.png"]
