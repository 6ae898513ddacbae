"""The pooled descriptor finds the place again, whatever the order and number of keypoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from superglue_ros.errors import DescriptorKindError
from superglue_ros.mapping.global_descriptor import Pooling, learned, vlad
from superglue_ros.networks.places import PlaceAggregation, PlacesConfig
from superglue_ros.networks.weights import load_places, save
from superglue_ros.types import Features

PLACES = load_places()
pool = Pooling()


def features(descriptors: np.ndarray, detector: str = "test") -> Features:
    n = len(descriptors)
    pixels = np.zeros((n, 2), np.float32)
    return Features(pixels, np.ones(n, np.float32), 64, 48, detector, descriptors)


def place(rng: np.random.Generator, n: int = 200, dim: int = 64) -> np.ndarray:
    values = 0.3 + rng.standard_normal((n, dim)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def revisit(rng: np.random.Generator, descriptors: np.ndarray, kept: float) -> np.ndarray:
    """The same place later: part of its descriptors with noise, the rest new, another order."""
    same = descriptors[rng.random(len(descriptors)) < kept]
    seen = np.concatenate([same, place(rng, len(descriptors) - len(same))])
    seen = seen + 0.05 * rng.standard_normal(seen.shape).astype(np.float32)
    return rng.permutation(seen / np.linalg.norm(seen, axis=1, keepdims=True))


@pytest.mark.parametrize("seed", range(3))
def test_the_place_seen_before_is_the_most_similar_of_fifty(seed):
    rng = np.random.default_rng(seed)
    places = [place(rng) for _ in range(50)]
    pooled = np.stack([pool(features(p)) for p in places])
    found = [int(np.argmax(pooled @ pool(features(revisit(rng, p, 0.6))))) for p in places]
    assert np.mean(np.array(found) == np.arange(50)) >= 0.98


def test_unit_length_and_order_does_not_matter():
    rng = np.random.default_rng(0)
    descriptors = place(rng)
    one, other = pool(features(descriptors)), pool(features(rng.permutation(descriptors)))
    assert one.dtype == np.float32
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_keypoints_have_none(count):
    assert pool(features(np.ones((count, 8), np.float32))) is None


def test_keypoints_without_descriptors_have_none():
    keypoints = Features(np.zeros((4, 2), np.float32), np.ones(4, np.float32), 64, 48, "")
    assert pool(keypoints) is None


def test_equal_descriptors_give_a_finite_result():
    assert np.isfinite(pool(features(np.ones((5, 8), np.float32)))).all()


def test_what_all_descriptors_of_an_image_share_does_not_count():
    rng = np.random.default_rng(0)
    descriptors = place(rng)
    shared = 2 * rng.standard_normal(64).astype(np.float32)
    plain, shifted = pool(features(descriptors)), pool(features(descriptors + shared))
    np.testing.assert_allclose(shifted, plain, atol=1e-4)


def test_each_kind_of_descriptors_is_pooled_by_what_is_made_for_it():
    descriptors = place(np.random.default_rng(0), dim=256)
    packaged = pool(features(descriptors, PLACES.descriptor_kind))
    np.testing.assert_array_equal(packaged, learned(descriptors, PLACES.network))
    np.testing.assert_array_equal(pool(features(descriptors)), vlad(descriptors))
    config = PLACES.network.config
    assert packaged.shape == (config.clusters * config.width,)
    assert vlad(descriptors).shape == (32 * 256,)


def test_the_learned_one_has_unit_length_whatever_the_order():
    rng = np.random.default_rng(0)
    descriptors = place(rng, dim=256)
    one = learned(descriptors, PLACES.network)
    other = learned(rng.permutation(descriptors), PLACES.network)
    assert one.dtype == np.float32
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.isfinite(learned(np.ones((5, 256), np.float32), PLACES.network)).all()


def test_weights_of_ones_own_pool_the_descriptors_that_they_are_for(tmp_path: Path):
    torch.manual_seed(0)
    file = tmp_path / "own.safetensors"
    save(PlaceAggregation(PlacesConfig(64, 4, 1, 8)), file, "test", "")
    own = Pooling(str(file))
    descriptors = place(np.random.default_rng(0))
    found = own(features(descriptors))
    np.testing.assert_array_equal(found, learned(descriptors, load_places(file).network))
    assert found.shape == (4 * 8,)
    with pytest.raises(DescriptorKindError) as refused:
        own(features(descriptors, "orb"))
    assert str(refused.value) == (
        f"descriptors are 'orb' but the weights in {file} were made for 'test': use that "
        f"front-end, or set place_weights to weights trained on these descriptors, or to auto"
    )
    assert own(features(np.ones((1, 64), np.float32))) is None
