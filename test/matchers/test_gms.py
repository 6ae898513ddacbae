from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from superglue_ros.config import Config, MatcherConfig
from superglue_ros.errors import ConfigError
from superglue_ros.matchers.base import make_matcher, match_pair
from superglue_ros.types import Features

CONFIG = Config(matcher=MatcherConfig(name="gms"))


def grid_features(shift: float, seed: int = 0) -> Features:
    """A grid of keypoints moved sideways, each with a descriptor of its own."""
    x, y = np.meshgrid(np.arange(20, 580, 12), np.arange(20, 440, 12))
    points = np.stack([x.ravel() + shift, y.ravel()], axis=1).astype(np.float32)
    descriptors = np.random.default_rng(seed).standard_normal((len(points), 32)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return Features(points, np.ones(len(points), np.float32), 640, 480, "test", descriptors)


@pytest.mark.skipif(not hasattr(cv2, "xfeatures2d"), reason="OpenCV without contrib")
def test_gms_keeps_what_moves_together_and_is_one_to_one():
    reference, query = grid_features(0), grid_features(30)
    wrong = np.arange(0, len(query), 5)
    order = np.roll(wrong, 37)
    descriptors = query.descriptors.copy()
    descriptors[wrong] = query.descriptors[order]
    noise = np.random.default_rng(1).standard_normal(descriptors.shape).astype(np.float32)
    descriptors += 0.05 * noise
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    query = Features(query.keypoints, query.scores, 640, 480, "test", descriptors)
    matcher = make_matcher(CONFIG, torch.device("cpu"))
    found = match_pair(matcher, reference, query)
    agree = found.index_ref == found.index_query
    assert agree.mean() > 0.97
    assert agree.sum() > 0.6 * len(reference)
    assert len(set(found.index_query.tolist())) == len(found)
    distance = np.linalg.norm(
        reference.descriptors[found.index_ref] - query.descriptors[found.index_query], axis=1
    )
    np.testing.assert_allclose(found.scores, 1 - distance / 2, atol=1e-3)
    empty = Features.empty(640, 480, "test", 32)
    assert len(match_pair(matcher, empty, query)) == 0


def test_an_opencv_without_gms_is_refused_with_the_way_to_get_it(monkeypatch):
    monkeypatch.delattr(cv2, "xfeatures2d", raising=False)
    with pytest.raises(ConfigError, match="pip install opencv-contrib"):
        make_matcher(CONFIG, torch.device("cpu"))
