"""A rectified stereo camera in a rendered room: matches along rows, depths, metric poses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from superglue_ros.config import Config
from superglue_ros.errors import CalibrationError, ImageError
from superglue_ros.geometry.camera import Camera
from superglue_ros.pipeline import FrameResult, Pipeline
from superglue_ros.settings import from_flat
from superglue_ros.types import NO_TRACK, MatchKind, PoseMethod, PoseStatus, RightView

from .stereo_room import BASELINE, CAMERA, HEIGHT, MATRIX, WIDTH, motion, view

SETTINGS = {
    "device": "cpu",
    "front_end.name": "sift",
    "matcher.name": "ratio",
    "front_end.max_keypoints": 800,
}


@pytest.fixture(scope="module")
def results() -> list[FrameResult]:
    pipeline = Pipeline(from_flat(Config, SETTINGS))
    return [pipeline.process(view(k).frame(2 * k + 1, k * 10**8)) for k in range(3)]


def test_stereo_matches_lie_on_rows_and_say_so(results):
    for number, result in enumerate(results):
        stereo = result.stereo
        matches = stereo.matches
        assert matches.kind is MatchKind.STEREO
        assert (matches.reference.id, matches.query.id) == (2 * number + 1, 2 * number + 2)
        assert (matches.reference.camera_index, matches.query.camera_index) == (0, 1)
        assert matches.rectified
        rows = np.abs(matches.points_ref[:, 1] - matches.points_query[:, 1])
        disparity = matches.points_ref[:, 0] - matches.points_query[:, 0]
        assert matches.inlier.sum() > 100
        assert rows[matches.inlier].max() < np.sqrt(2) + 1e-3
        assert disparity[matches.inlier].min() > 0
        assert (matches.inlier == ((rows < np.sqrt(2)) & (disparity > 0))).mean() > 0.99
        assert (stereo.pose.status, stereo.pose.method) == (PoseStatus.VALID, PoseMethod.STEREO)
        np.testing.assert_allclose(stereo.pose.translation, [BASELINE, 0, 0])
        assert stereo.pose.scale_known
        np.testing.assert_array_equal(
            result.right_features.keypoints[matches.index_query], matches.points_query
        )


def test_depths_of_the_left_keypoints_are_the_rooms(results):
    for number, result in enumerate(results):
        x, y = np.rint(result.features.keypoints).astype(int).T
        truth = view(number).depth[y, x]
        known = result.depth > 0
        assert known.sum() > 80
        error = np.abs(result.depth - truth)[known] / truth[known]
        assert np.median(error) < 0.02
        # The standard deviations claim what the errors show: 0.67 for normal ones, and a rendered
        # image has little noise.
        normalised = np.abs(result.depth - truth)[known] / result.depth_sigma[known]
        assert 0.1 < np.median(normalised) < 0.8
        assert (result.depth_sigma[known] <= 0.25 * result.depth[known]).all()
        assert (result.depth_sigma[~known] == 0).all()


def test_poses_have_scale_and_an_honest_covariance(results):
    for number, result in enumerate(results[1:], start=1):
        pair = result.pairs[0]
        pose = pair.pose
        assert (pose.status, pose.method) == (PoseStatus.VALID, PoseMethod.PNP)
        assert pose.scale_known
        truth = motion(pair.matches.reference.id // 2, number)
        error = pose.translation - truth[:3, 3]
        assert np.linalg.norm(error) < 0.015, "metres"
        spread = pose.covariance[:3, :3]
        assert np.linalg.matrix_rank(pose.covariance, tol=1e-14) == 6
        assert error @ np.linalg.inv(spread) @ error < 11.3  # 99 % of chi-square, 3 degrees
        assert np.sqrt(np.trace(spread)) < 0.1


def test_both_keypoints_of_a_stereo_match_see_one_landmark(results):
    for result in results:
        matches = result.stereo.matches
        left = result.features.track_ids[matches.index_ref]
        right = result.right_features.track_ids[matches.index_query]
        np.testing.assert_array_equal(matches.track_ids, right)
        seen = matches.inlier & (left != NO_TRACK)
        assert seen.sum() > 50
        np.testing.assert_array_equal(right[seen], left[seen])
        assert (right[~matches.inlier] == NO_TRACK).all()


def test_a_pair_that_is_not_rectified_gives_no_depth():
    """Rows that differ by four pixels: a raw pair, or one not taken together."""
    frame = view(0).frame(1, 0)
    shifted = np.roll(frame.right.image, 4, axis=0)
    right = dataclasses.replace(frame.right, image=shifted)
    result = Pipeline(from_flat(Config, SETTINGS)).process(dataclasses.replace(frame, right=right))
    assert result.stereo.pose.status is PoseStatus.REJECTED
    assert not result.depth.any()
    assert (result.right_features.track_ids == NO_TRACK).all()


def test_a_right_image_without_texture_leaves_a_monocular_camera():
    pipeline = Pipeline(from_flat(Config, SETTINGS))
    for k in range(2):
        frame = view(k).frame(2 * k + 1, k * 10**8)
        blank = dataclasses.replace(frame.right, image=np.full_like(frame.image, 90))
        result = pipeline.process(dataclasses.replace(frame, right=blank))
        assert result.stereo.pose.status is PoseStatus.FEW
    assert result.pairs[0].pose.method in (PoseMethod.ESSENTIAL, PoseMethod.HOMOGRAPHY)
    assert not result.pairs[0].pose.scale_known


def test_pairs_that_make_no_stereo_camera_are_refused():
    frame = view(0).frame(1, 0)
    right = frame.right
    with pytest.raises(ImageError, match="the right image is 320x120 but the left one is 320x240"):
        dataclasses.replace(frame, right=dataclasses.replace(right, image=right.image[:120]))
    with pytest.raises(CalibrationError, match="no calibration"):
        dataclasses.replace(frame, camera=None)
    with pytest.raises(CalibrationError, match="not rectified"):
        dataclasses.replace(frame, rectified=False)
    bent = Camera(WIDTH, HEIGHT, MATRIX, np.array([0.1, 0, 0, 0, 0]))
    with pytest.raises(CalibrationError, match="not rectified"):
        dataclasses.replace(frame, right=dataclasses.replace(right, camera=bent))
    with pytest.raises(ImageError, match="depth of its own"):
        dataclasses.replace(frame, depth=np.ones((HEIGHT, WIDTH), np.float32))
    for baseline in (0.0, -0.1, np.nan):
        with pytest.raises(CalibrationError, match="baseline"):
            RightView(right.id, right.image, CAMERA, baseline)
