from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import pytest

from superglue_ros.config import Config, FrontEndConfig
from superglue_ros.errors import ConfigError
from superglue_ros.evaluation.cli import add_subcommands
from superglue_ros.evaluation.commands import method_spec
from superglue_ros.evaluation.pairs.methods import Method, MethodSpec


def test_fingerprints_tell_settings_and_weights_apart_but_not_the_threshold(tmp_path):
    base = Config(front_end=FrontEndConfig(name="sift"))
    one = MethodSpec(base).fingerprint()
    judged_later = replace(base, matcher=replace(base.matcher, threshold=0.5))
    assert MethodSpec(judged_later).fingerprint() == one
    other = replace(base, front_end=replace(base.front_end, max_keypoints=7))
    assert MethodSpec(other).fingerprint() != one
    (tmp_path / "w.safetensors").write_bytes(b"other weights")
    weights = replace(base, matcher=replace(base.matcher, weights=str(tmp_path / "w.safetensors")))
    assert MethodSpec(weights).fingerprint() != one


def test_superpoint_describes_keypoints_that_bring_no_descriptors(tmp_path):
    (tmp_path / "x.png.txt").write_text("20 20 0.5\n40 30 0.9\n60 35 0.7\n")
    config = Config()
    config = replace(
        config,
        front_end=replace(config.front_end, max_keypoints=2),
        matcher=replace(config.matcher, name="mutual"),
    )
    method = Method(MethodSpec(config, str(tmp_path)))
    picture = np.random.default_rng(0).integers(0, 256, (64, 96), np.uint8)
    found = method.extract(picture, "x.png")
    np.testing.assert_array_equal(found.keypoints, [[40, 30], [60, 35]])
    np.testing.assert_allclose(found.scores, [0.9, 0.7])
    assert found.descriptor_dim > 0
    assert len(method.match(found, found, lambda: picture)) == 2


def spec_of(*options: str) -> MethodSpec:
    parser = argparse.ArgumentParser()
    add_subcommands(parser.add_subparsers())
    fixed = ["evaluate", "homography", "--images", "x", "--output", "y"]
    return method_spec(parser.parse_args([*fixed, *options]))


def test_single_options_overrule_the_file_and_the_file_the_defaults(tmp_path):
    assert spec_of().label == "SuperPoint + SuperGlue"
    alone = spec_of("--set", "matcher.verification=false")
    assert alone.label == "SuperPoint + SuperGlue, verification off"
    assert spec_of().config.front_end.max_keypoints == 512
    assert spec_of("--matcher", "lightglue").front_end == "aliked"
    (tmp_path / "c.yaml").write_text(
        "front_end: {name: sift, max_keypoints: 77}\nmatcher: {name: ratio, ratio: 0.7}\n"
    )
    given = ("--config", str(tmp_path / "c.yaml"))
    assert spec_of(*given).label == "SIFT + NN + ratio"
    assert spec_of(*given).config.front_end.max_keypoints == 77
    changed = spec_of(*given, "--matcher", "mutual", "--max-keypoints", "9", "--nms", "3")
    assert changed.label == "SIFT + NN + mutual"
    assert changed.config.front_end.max_keypoints == 9
    assert changed.config.front_end.nms_radius == 3
    assert changed.config.matcher.ratio == 0.7
    with pytest.raises(ConfigError, match=r"matcher\.ratio must be from 0\.0 to 1\.0"):
        spec_of("--ratio", "1.5")
