"""Pictures of matches: where the lines are and what their colours say."""

from __future__ import annotations

import numpy as np
import pytest

from superglue_ros.drawing.matches import (
    draw_correspondences,
    draw_keypoints,
    draw_matches,
    red_to_green,
)
from superglue_ros.types import FrameId, Matches, MatchKind, MatchStatus

LEFT = np.zeros((60, 80), np.uint8)
RIGHT = np.zeros((40, 100), np.uint8)


def matches_of(points_ref: list, points_query: list, scores: list, inlier: list) -> Matches:
    n = len(scores)
    return Matches(
        FrameId(1),
        FrameId(2),
        MatchKind.KEYFRAME,
        MatchStatus.OK,
        np.arange(n, dtype=np.int32),
        np.arange(n, dtype=np.int32),
        np.array(points_ref, np.float32).reshape(-1, 2),
        np.array(points_query, np.float32).reshape(-1, 2),
        np.array(scores, np.float32),
        np.array(inlier, bool),
        np.ones(n, np.float32),
        np.full(n, -1, np.int64),
    )


def test_colours_run_from_red_to_green() -> None:
    colours = red_to_green(np.array([0.0, 0.5, 1.0, -3.0, 9.0, np.nan]))
    red, yellow, green = (0, 0, 255), (0, 230, 255), (0, 230, 0)
    assert [tuple(c) for c in colours.tolist()] == [red, yellow, green, red, green, red]


def test_images_of_different_size_and_kind_stand_side_by_side() -> None:
    colour = np.full((40, 100, 3), (10, 20, 30), np.uint8)
    picture = draw_correspondences(
        LEFT + 7, colour, np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0)
    )
    assert picture.shape == (60, 80 + 8 + 100, 3)
    assert (picture[:60, :80] == 7).all()
    assert (picture[:40, 88:] == (10, 20, 30)).all()


def test_lines_end_at_the_keypoints() -> None:
    picture = draw_correspondences(
        LEFT, RIGHT, np.array([[20.0, 30.0]]), np.array([[50.0, 10.0]]), np.ones(1)
    )
    drawn = picture[:, :, 1] > 100
    assert drawn[30, 20]
    assert drawn[10, 88 + 50]
    assert not drawn[:, :17].any()
    assert not drawn[:, 88 + 53 :].any()


def test_better_lines_lie_on_top_and_rejected_ones_below() -> None:
    crossing = np.array([[40.0, 10.0], [40.0, 10.0]]), np.array([[50.0, 30.0], [50.0, 30.0]])
    for order in ([0.0, 1.0], [1.0, 0.0]):
        picture = draw_correspondences(LEFT, RIGHT, *crossing, np.array(order))
        assert picture[10, 40, 1] > 150  # green, not red
        assert picture[10, 40, 2] < 100
    thin = draw_correspondences(
        LEFT, RIGHT, *crossing, np.array([0.0, 1.0]), np.array([False, True])
    )
    assert thin[10, 40, 2] > 150  # the accepted one, though red


def test_errors_colour_instead_of_confidences() -> None:
    matches = matches_of([[40, 30]], [[40, 30]], [1.0], [True])
    by_score = draw_matches(LEFT, LEFT, matches, caption=[" "])
    by_error = draw_matches(LEFT, LEFT, matches, errors_px=np.array([9.0]), caption=[" "])
    assert by_score[30, 40, 1] > 150
    assert by_score[30, 40, 2] < 100
    assert by_error[30, 40, 2] > 150
    assert by_error[30, 40, 1] < 100


@pytest.mark.parametrize("count", [0, 1])
def test_counts_are_written(count: int) -> None:
    matches = matches_of([[70, 50]] * count, [[70, 50]] * count, [1.0] * count, [True] * count)
    picture = draw_matches(LEFT, LEFT, matches)
    assert picture.shape == (60, 168, 3)
    assert (picture[:40, :60] == 255).any()  # the caption's white


def test_inputs_are_left_as_they_are() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    draw_matches(image, image, matches_of([[10, 10]], [[10, 10]], [1.0], [True]))
    draw_keypoints(image, np.array([[20.0, 20.0]]))
    assert not image.any()


def test_keypoints_are_ringed() -> None:
    picture = draw_keypoints(LEFT, np.array([[20.0, 30.0]]))
    assert picture[30, 23, 1] > 150
    assert picture[30, 20, 1] == 0
