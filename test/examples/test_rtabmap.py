"""RTAB-Map's scripts, called as its C++ code calls them: positionally, with its types."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from superglue_ros.data.image import to_grey
from superglue_ros.errors import ConfigError
from superglue_ros.synthetic.demo_room import RoomSequence, built_in_camera

FOLDER = Path(__file__).resolve().parents[2] / "examples/rtabmap"


@pytest.fixture
def scripts(monkeypatch):
    """Found as RTAB-Map finds them: their folder is appended to the path."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(FOLDER)])
    import superglue_ros_detector
    import superglue_ros_matcher

    return superglue_ros_detector, superglue_ros_matcher


def test_an_image_shifted_by_eight_pixels_is_matched(scripts):
    detector, matcher = scripts
    image = to_grey(RoomSequence(frames=60, camera=built_in_camera(320, 240))[10].image)
    detector.init(0)
    sides = [detector.detect(image[:, :-8]), detector.detect(image[:, 8:])]
    for keypoints, descriptors in sides:
        assert keypoints.dtype == descriptors.dtype == np.float32
        assert keypoints.shape[1] == 3
        assert len(descriptors) == len(keypoints) > 100
    (points0, descriptors0), (points1, descriptors1) = sides
    # A C float of 0.2, as PyObject_CallFunction hands it on.
    matcher.init(descriptors0.shape[1], float(np.float32(0.2)), 20, 0, "indoor")
    points, scores = [p[:, :2].copy() for p in (points0, points1)], [points0[:, 2], points1[:, 2]]
    found = matcher.match(*points, *scores, descriptors0, descriptors1, 312, 240)
    assert found.dtype == np.int32
    assert found.flags.c_contiguous
    assert len(found) > 100
    moved = points[0][found[:, 0]] - points[1][found[:, 1]]
    assert np.median(np.abs(moved - [8, 0])) < 0.1
    assert np.mean(np.abs(moved - [8, 0]).max(axis=1) < 1) > 0.9


def test_descriptors_of_another_detector_are_refused(scripts):
    with pytest.raises(ConfigError, match=r"use superglue_ros_detector.py .* have 128 values"):
        scripts[1].init(128, 0.2, 20, 0, "indoor")
