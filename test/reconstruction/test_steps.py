"""The steps of a reconstruction by themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from superglue_ros.data.colmap import ColmapCamera, from_colmap, to_colmap
from superglue_ros.errors import ConfigError, DataError
from superglue_ros.geometry.camera import Camera
from superglue_ros.reconstruction.keypoints import consistent_displacements
from superglue_ros.reconstruction.pairs import (
    Rule,
    default_rules,
    pairs_by_likeness,
    pairs_by_pose,
    parse_rule,
    select_pairs,
)
from superglue_ros.reconstruction.store import PairMatches, Store
from superglue_ros.types import Features

NAMES = ["a", "b", "c", "d", "e"]
ANGLES = np.radians([0, 10, 20, 170, 180])
UNIT = [np.array([np.cos(a), np.sin(a)], np.float32) for a in ANGLES]


def pose(x: float, turned: bool = False) -> np.ndarray:
    matrix = np.eye(4)
    matrix[0, 3] = x
    if turned:
        matrix[:3, :3] = np.diag([-1.0, 1.0, -1.0])
    return matrix


def test_rules_of_pairs() -> None:
    def chosen(*rules: str) -> list[tuple[int, int]]:
        return select_pairs([parse_rule(r) for r in rules], NAMES, [None] * 5, lambda: UNIT)

    assert chosen("sequential:1") == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert len(chosen("exhaustive")) == 10
    # Retrieval adds to the others: 1 has 0 and 2 already, so its most similar one is 3.
    assert set(chosen("retrieval:1", "sequential:1")) - set(chosen("sequential:1")) == {
        (0, 2),
        (1, 3),
        (2, 4),
    }


def test_retrieval_and_poses() -> None:
    assert pairs_by_likeness([*UNIT[:3], None, UNIT[4]], 1) == {(0, 1), (1, 2), (2, 4)}
    poses = [pose(0), pose(1), None, pose(0.1, turned=True), pose(5)]
    assert pairs_by_pose(poses, 1) == {(0, 1), (1, 4)}
    with pytest.raises(ConfigError, match="needs poses"):
        pairs_by_pose([None, None], 1)


def test_words_of_rules() -> None:
    assert parse_rule("retrieval") == Rule("retrieval", 10)
    assert [str(rule) for rule in default_rules(100, ordered=True)] == [
        "sequential:5",
        "retrieval:5",
    ]
    assert str(default_rules(10, ordered=True)[0]) == "exhaustive"
    with pytest.raises(ConfigError, match="give a number of partners, as in poses:10"):
        parse_rule("poses:many")


def test_displacements_agree_with_all_matches_and_distrust_a_wrong_one() -> None:
    """Ten keypoints, each seen in pairs with all others; their true motions are known."""
    rng = np.random.default_rng(1)
    true = rng.normal(0, 0.3, (10, 2))
    true -= true.mean(axis=0)  # what no match tells is left at zero
    first, second = np.triu_indices(10, 1)
    offset = true[second] - true[first] + rng.normal(0, 0.02, (len(first), 2))
    offset[7] += [2.5, 0]
    moved = consistent_displacements(
        11, first.astype(np.int64), second.astype(np.int64), offset, np.full(len(first), 0.05)
    )
    assert np.abs(moved[:10] - true).max() < 0.06
    assert not moved[10].any()


@pytest.mark.parametrize(
    "model, distortion",
    [
        ("plumb_bob", []),
        ("plumb_bob", [0.1, -0.05, 0.001, 0.002]),
        ("plumb_bob", [0.1, -0.05, 0.001, 0.002, 0.01]),
        ("rational_polynomial", [0.1, 0, 0, 0, 0, 0.2, 0.1, 0.05]),
        ("equidistant", [0.1, 0.01, 0, 0]),
    ],
)
def test_cameras_go_to_colmap_and_back(model: str, distortion: list[float]) -> None:
    matrix = np.array([[500.0, 0, 320], [0, 510, 230], [0, 0, 1]])
    camera = Camera(
        width=640, height=480, matrix=matrix, distortion=np.array(distortion), model=model
    )
    back = from_colmap(to_colmap(camera, 640, 480))
    pixels = np.array([[10.0, 20], [320, 230], [600, 400]])
    np.testing.assert_allclose(back.rays(pixels), camera.rays(pixels), atol=1e-9)


def test_a_camera_of_colmap_without_counterpart_is_refused() -> None:
    with pytest.raises(DataError, match="model 7 has no counterpart"):
        from_colmap(ColmapCamera(7, 640, 480, np.ones(5)))
    radial = from_colmap(ColmapCamera(2, 640, 480, np.array([500, 320, 240, 0.1])))
    assert (radial.matrix[0, 2], radial.distortion[0]) == (319.5, 0.1)


def test_a_store_gives_back_what_it_was_given(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    features = Features(
        keypoints=rng.uniform(0, 60, (5, 2)).astype(np.float32),
        scores=rng.uniform(0, 1, 5).astype(np.float32),
        width=64,
        height=64,
        detector="some",
        descriptors=rng.normal(size=(5, 8)).astype(np.float32),
    )
    matches = PairMatches(
        image0=1,
        image1=2,
        index=np.array([[0, 4], [3, 1]], np.int32),
        scores=np.array([0.9, 0.5], np.float32),
        offset=np.array([[0.1, 0.2], [0, -0.3]], np.float32),
        sigma_px=np.array([0.3, 1], np.float32),
    )
    guess = to_colmap(None, 64, 64)
    with Store(tmp_path / "d.db") as store:
        store.add_images(["x", "y"], [guess, guess], [False, False])
        store.write_features({1: features, 2: features})
        store.write_matches([matches])
    with Store(tmp_path / "d.db") as store:
        assert store.images == {"x": 1, "y": 2}
        assert store.camera(1).width == 64
        found, pair = store.features(2), store.matches(1, 2)
        assert store.matched() == {(1, 2)}
    np.testing.assert_array_equal(found.keypoints, features.keypoints)
    np.testing.assert_allclose(found.descriptors, features.descriptors, atol=2e-3)
    for name in ("index", "scores", "offset", "sigma_px"):
        np.testing.assert_array_equal(getattr(pair, name), getattr(matches, name))
