"""Refined matches in pixels of the original images, and in the pipeline."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data

from superglue_ros.config import Config
from superglue_ros.data.image import resize, to_grey
from superglue_ros.geometry.angle_errors import direction_error_deg, rotation_error_deg
from superglue_ros.geometry.refinement import make_refiner
from superglue_ros.mapping.refinement import refined
from superglue_ros.pipeline import Pipeline
from superglue_ros.settings import from_flat
from superglue_ros.synthetic.demo_room import RoomSequence
from superglue_ros.types import Frame, FrameId


@pytest.mark.parametrize("max_size", [0, 320])
def test_pixels_are_those_of_the_original_whatever_the_networks_size(max_size):
    grey = to_grey(skimage.data.coffee()[..., ::-1])  # 600x400
    shift = np.array([4.4, -2.2], np.float32)
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
    moved = cv2.warpAffine(grey, matrix, grey.shape[::-1], flags=cv2.INTER_CUBIC)
    corners = cv2.goodFeaturesToTrack(grey, 60, 0.05, 20)[:, 0]
    inside = (corners > 40).all(axis=1) & (corners < [560, 360]).all(axis=1)
    corners = corners[inside]
    images = resize(grey, max_size), resize(moved, max_size)
    rough = corners + shift + np.float32(0.8)
    found = refined(make_refiner("lk"), *images, corners, rough).points
    error = np.linalg.norm(found - corners - shift, axis=1)
    assert np.median(error) < 0.1 * max(images[0].scale_x, 1)


def test_without_an_image_pixels_stay():
    points = np.array([[3.0, 4.0]], np.float32)
    image = resize(np.zeros((48, 64), np.uint8), 0)
    for pair in ((None, image), (image, None), (None, None)):
        assert refined(make_refiner("lk"), *pair, points, points).points is points


def test_pixels_never_leave_the_image():
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 256, (48, 64), np.uint8), (0, 0), 1.5)
    image = resize(noise, 0)
    points = np.array([[-0.5, -0.5], [63.4, 47.4], [63.4, 20], [30, -0.4]], np.float32)
    found = refined(make_refiner("lk"), image, image, points[::-1].copy(), points).points
    assert (found >= -0.5).all()
    assert (found <= [63.5, 47.5]).all()


def poses(refinement: str) -> tuple[list[float], list[np.ndarray]]:
    """Pose errors [deg] of a short walk through the room, and the refined steps of its matches."""
    names = {"device": "cpu", "refinement": refinement, "front_end.subpixel": False}
    pipeline = Pipeline(from_flat(Config, {**names, "front_end.max_keypoints": 400}))
    room, errors, steps = RoomSequence(), [], []
    truth = {}
    for number in range(0, 20, 4):
        item = room[number]
        truth[number] = item.T_world_camera
        frame = Frame(FrameId(number, item.stamp_ns), to_grey(item.image), item.camera)
        result = pipeline.process(frame)
        for pair in result.pairs:
            true = np.linalg.inv(truth[pair.matches.reference.id]) @ truth[number]
            errors.append(
                max(
                    rotation_error_deg(pair.pose.rotation, true[:3, :3]),
                    direction_error_deg(pair.pose.translation, true[:3, 3]),
                )
            )
            detected = result.features.keypoints[pair.matches.index_query]
            steps.append(np.linalg.norm(pair.matches.points_query - detected, axis=1))
    return errors, steps


def test_refined_matches_give_better_poses_in_the_pipeline():
    rough, unmoved = poses("none")
    better, steps = poses("lk")
    assert all((step == 0).all() for step in unmoved)
    assert 0.05 < np.median(np.concatenate(steps)) < 1.0
    assert max(map(np.max, steps)) < 2.6
    assert np.mean(better) < 0.8 * np.mean(rough)
