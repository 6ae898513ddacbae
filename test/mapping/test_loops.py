"""A loop is closed once a further keyframe agrees with it, and not before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from superglue_ros.mapping.loops import LoopConfirmation, Motion, agree
from superglue_ros.mapping.verification import FramePair
from superglue_ros.types import FrameId, MatchKind, PoseStatus, RelativePose

from .. import pair_results
from ..landmark_world import heading

OLD, OTHER = 1, 2


def relative(
    reference: int,
    query: int,
    degrees: float,
    position: tuple[float, float, float] = (0, 0, 1),
    status: PoseStatus = PoseStatus.VALID,
    metric: bool = False,
) -> RelativePose:
    return replace(
        pair_results.pose(FrameId(reference), FrameId(query)),
        status=status,
        rotation=heading(degrees),
        translation=np.array(position, np.float64),
        scale_known=metric,
        num_inliers=40,
    )


def pair(kind: MatchKind, pose: RelativePose) -> FramePair:
    nothing = np.zeros(0, np.int64)
    matches = pair_results.matches(pose.reference, pose.query)
    return FramePair(replace(matches, kind=kind, merged_from=nothing, merged_into=nothing), pose)


def loop(query: int, degrees: float, reference: int = OLD, **more) -> FramePair:
    return pair(MatchKind.LOOP, relative(reference, query, degrees, **more))


def step(reference: int, query: int, degrees: float, **more) -> FramePair:
    return pair(MatchKind.KEYFRAME, relative(reference, query, degrees, **more))


def statuses(pairs: tuple[FramePair, ...]) -> list[PoseStatus]:
    return [one.pose.status for one in pairs]


def test_the_first_keyframe_only_sights_the_loop_and_the_second_closes_it():
    confirmation = LoopConfirmation()
    sighted = confirmation.judge([loop(10, 5)], [step(9, 10, 8)], 1)
    assert statuses(sighted) == [PoseStatus.UNCONFIRMED]
    assert not sighted[0].tracked
    assert confirmation.awaited == (FrameId(OLD),)
    closed = confirmation.judge([loop(11, 17)], [step(10, 11, 10)], 1)
    assert statuses(closed) == [PoseStatus.VALID]
    # It goes on being closed as long as keyframes agree.
    assert statuses(confirmation.judge([loop(12, 27)], [step(11, 12, 10)], 1)) == [PoseStatus.VALID]


def test_a_neighbour_of_the_old_keyframe_confirms_it_too():
    confirmation = LoopConfirmation()
    confirmation.judge([], [step(OLD, OTHER, 12)], 1)  # when the old ones were new
    confirmation.judge([loop(10, 5)], [step(9, 10, 8)], 1)
    # 10 was turned by 5 degrees against OLD, and so by -7 against OTHER; 11 by 10 more.
    right = confirmation.judge([loop(11, 3, reference=OTHER)], [step(10, 11, 10)], 1)
    assert statuses(right) == [PoseStatus.VALID]


@pytest.mark.parametrize(
    ("second", "tracked"),
    [
        (loop(11, 40), step(10, 11, 10)),  # turned by 35 degrees where tracking turned by 10
        (loop(11, 15, reference=OTHER), step(10, 11, 10)),  # another place
        (loop(11, 15), step(3, 11, 10)),  # tracked from elsewhere
        (loop(11, 15), step(10, 11, 10, status=PoseStatus.REJECTED)),
    ],
)
def test_what_does_not_agree_is_a_new_sighting(second, tracked):
    confirmation = LoopConfirmation()
    confirmation.judge([loop(10, 5)], [], 1)
    assert statuses(confirmation.judge([second], [tracked], 1)) == [PoseStatus.UNCONFIRMED]
    assert confirmation.awaited == (second.matches.reference,)


def test_keyframes_removed_from_the_map_are_forgotten():
    confirmation = LoopConfirmation()
    confirmation.judge([loop(10, 5)], [step(9, 10, 8)], 1)
    confirmation.drop([FrameId(9)])
    assert confirmation.awaited == (FrameId(OLD),)
    confirmation.drop([FrameId(OLD)])
    assert confirmation.awaited == ()


def test_a_keyframe_that_sees_nothing_of_it_ends_the_sighting():
    confirmation = LoopConfirmation()
    confirmation.judge([loop(10, 5)], [], 1)
    missed = confirmation.judge([loop(11, 15, status=PoseStatus.FEW)], [step(10, 11, 10)], 1)
    assert statuses(missed) == [PoseStatus.FEW]
    assert confirmation.awaited == ()


def test_none_are_asked_for_or_several():
    confirmation = LoopConfirmation()
    assert statuses(confirmation.judge([loop(10, 5)], [], 0)) == [PoseStatus.VALID]
    assert confirmation.awaited == ()
    found = [
        statuses(confirmation.judge([loop(k, 10 * k - 90)], [step(k - 1, k, 10)], 2))[0]
        for k in range(10, 14)
    ]
    assert found == [PoseStatus.UNCONFIRMED] * 2 + [PoseStatus.VALID] * 2
    confirmation.forget()
    assert confirmation.awaited == ()


def test_metric_poses_must_agree_in_position_too():
    first = Motion.of(relative(OLD, 10, 90, (2, 0, 0), metric=True))
    onward = Motion.of(relative(10, 11, 0, (0, 0, 1), metric=True))  # along +x of the old one
    expected = first.then(onward)
    np.testing.assert_allclose(expected.pose[:3, 3], [3, 0, 0], atol=1e-12)
    np.testing.assert_allclose(expected.then(expected.inverse()).pose, np.eye(4), atol=1e-12)
    right, wrong = (Motion.of(relative(OLD, 11, 90, (x, 0, 0), metric=True)) for x in (3.5, 2.0))
    assert agree(expected, right)
    assert not agree(expected, wrong)
    # Without scale only the direction is known, which is not compared.
    assert agree(Motion.of(relative(OLD, 10, 90)).then(onward), wrong)
