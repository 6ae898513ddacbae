"""Guided matching: which frames reach the matcher, and that matches stay right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from superglue_ros.config import Config
from superglue_ros.pipeline import Pipeline
from superglue_ros.settings import from_flat
from superglue_ros.types import NO_TRACK

from ..landmark_world import LandmarkWorld, heading

BASE = {"device": "cpu", "front_end.name": "sift", "matcher.name": "mutual"}


class Counted:
    """A pipeline that counts the pairs that the matcher gets."""

    def __init__(self, prior: str) -> None:
        self.pipeline = Pipeline(from_flat(Config, {**BASE, "matcher.prior": prior}))
        self.matched = 0
        self._match = self.pipeline.rig.matcher.match_pairs
        self.pipeline.rig.matcher.match_pairs = self._counted  # type: ignore[method-assign]

    def _counted(self, references: Any, queries: Any) -> Any:
        self.matched += len(references)
        return self._match(references, queries)

    def run(self, world: LandmarkWorld, angles: Any, first: int = 0) -> list[Any]:
        found = []
        for number, angle in enumerate(angles, first):
            rotation = heading(angle)
            frame, points = world.frame(number, rotation, rotation @ [0, 0, 1.0])
            found.append((self.pipeline.process(frame), points))
        return found


def test_few_frames_of_a_steady_motion_reach_the_matcher() -> None:
    angles = np.arange(0, 60, 1.0)
    plain, guided = Counted("none"), Counted("motion")
    without, runs = plain.run(LandmarkWorld(), angles), guided.run(LandmarkWorld(), angles)
    keyframes = sum(result.is_keyframe for result, _ in runs)
    assert plain.matched >= len(angles) - 1
    # Two frames to know the motion, every keyframe, and the loop candidates of keyframes.
    assert guided.matched <= 3 + 2 * keyframes < len(angles) / 2
    assert abs(keyframes - sum(result.is_keyframe for result, _ in without)) <= 2
    point_of: dict[int, int] = {}
    for (result, points), (plainly, _) in zip(runs, without, strict=True):
        ids = result.features.track_ids
        known = ids != NO_TRACK
        for one, point in zip(ids[known], points[known], strict=True):
            assert point_of.setdefault(int(one), int(point)) == point
        if result.pairs:
            assert result.pairs[0].tracked
            matches = len(result.pairs[0].matches)
            assert matches > 0.8 * len(plainly.pairs[0].matches)


@pytest.mark.parametrize("away", [25.0, -25.0])
def test_a_frame_that_is_elsewhere_is_the_matchers(away: float) -> None:
    counted, world = Counted("motion"), LandmarkWorld()
    counted.run(world, np.arange(0, 5, 1.0))
    before = counted.matched
    ((result, points),) = counted.run(world, [4.0 + away], first=5)
    assert counted.matched > before
    pair = result.pairs[0]
    assert pair.tracked
    assert len(pair.matches) > 60


def test_nothing_is_predicted_after_a_pause_or_a_reset() -> None:
    counted, world = Counted("motion"), LandmarkWorld()
    counted.run(world, np.arange(0, 5, 1.0))
    before = counted.matched
    counted.run(world, [5.0], first=20)  # 1.6 s later, where frames came every 0.1 s
    assert counted.matched > before
    counted.pipeline.reset()
    assert counted.run(world, [6.0, 7.0], first=21)[1][0].pairs[0].tracked
