from __future__ import annotations

import numpy as np
import pytest

from superglue_ros.errors import DataError
from superglue_ros.evaluation.pairs.predictions import (
    FeatureCache,
    Missing,
    PredictionStore,
    differences,
    predict_all,
)
from superglue_ros.types import Correspondences, Features

IMAGE = np.zeros((40, 60), np.uint8)


class Case:
    def __init__(self, *keys: str) -> None:
        self.keys = keys

    def image(self, which: int) -> np.ndarray:
        if self.keys[which] == "gone":
            raise DataError("image gone does not exist")
        return IMAGE


class Method:
    """Counts its calls; ``stop_after`` matches it is interrupted."""

    def __init__(self, stop_after: int = 99) -> None:
        self.extracted: list[str] = []
        self.matched = 0
        self.stop_after = stop_after

    def extract(self, image: np.ndarray, name: str) -> Features:
        self.extracted.append(name)
        points = np.array([[1.0, 2], [3, 4]], np.float32)
        return Features(points, np.ones(2, np.float32), 60, 40, "test", np.eye(2))

    refines = False

    def refine(self, images, points0, points1):
        raise AssertionError

    def match_mutual(self, features0: Features, features1: Features) -> np.ndarray:
        return np.array([[0, 1]], np.int32)

    def match(self, features0: Features, features1: Features, image1: object) -> Correspondences:
        if self.matched == self.stop_after:
            raise KeyboardInterrupt
        self.matched += 1
        index = np.array([1, 0], np.int32)
        return Correspondences(index, index[::-1].copy(), np.array([0.9, 0.1], np.float32))


CASES = [Case("a", "b"), Case("b", "c"), Case("a", "gone"), Case("c", "a")]


def test_pairs_share_the_features_of_an_image_and_missing_ones_are_told(tmp_path):
    method = Method()
    found = list(predict_all(CASES, lambda: method, PredictionStore(tmp_path, {})))
    assert method.extracted == ["a", "b", "c"]
    assert isinstance(found[2], Missing)
    assert "gone" in found[2].reason
    np.testing.assert_array_equal(found[0].matches, [[1, 0], [0, 1]])
    assert found[0].size0 == (60, 40)
    kept = found[0].above(0.5)
    np.testing.assert_array_equal(kept.points0, [[3, 4]])
    np.testing.assert_array_equal(kept.points1, [[1, 2]])


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    first = Method(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        list(predict_all(CASES, lambda: first, PredictionStore(tmp_path, {"a": 1})))
    second = Method()
    resumed = list(predict_all(CASES, lambda: second, PredictionStore(tmp_path, {"a": 1})))
    assert second.matched == 1
    in_one_go = list(predict_all(CASES, Method, PredictionStore(tmp_path / "x", {"a": 1})))
    for one, other in zip(resumed, in_one_go, strict=True):
        if not isinstance(one, Missing):
            np.testing.assert_array_equal(one.confidence, other.confidence)
    # All kept: the method is not even made.
    list(predict_all(CASES[:2], lambda: pytest.fail("made"), PredictionStore(tmp_path, {"a": 1})))


def test_a_damaged_prediction_is_made_again(tmp_path):
    list(predict_all(CASES[:2], Method, PredictionStore(tmp_path, {})))
    (tmp_path / "000001.npz").write_bytes(b"PK half a file")
    method = Method()
    list(predict_all(CASES[:2], lambda: method, PredictionStore(tmp_path, {})))
    assert method.matched == 1


def test_another_configuration_is_refused_by_name_unless_overwritten(tmp_path):
    list(predict_all(CASES[:1], Method, PredictionStore(tmp_path, {"matcher": {"ratio": 0.8}})))
    with pytest.raises(DataError, match=r"matcher.ratio: 0.8 became 0.7"):
        PredictionStore(tmp_path, {"matcher": {"ratio": 0.7}})
    store = PredictionStore(tmp_path, {"matcher": {"ratio": 0.7}}, overwrite=True)
    assert store.get(0) is None


def test_differences_are_dotted():
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 1}, "d": 3}) == [
        "c: 2 became None",
        "d: None became 3",
    ]
    assert differences({"a": [1, 2]}, {"a": [1, 2]}) == []


def test_feature_cache_knows_images_and_settings_apart(tmp_path):
    calls: list[int] = []

    def make() -> Features:
        calls.append(1)
        return Method().extract(IMAGE, "")

    cache = FeatureCache(tmp_path, {"threshold": 1})
    first, again = cache.get_or_make(IMAGE, make), cache.get_or_make(IMAGE, make)
    assert len(calls) == 1
    np.testing.assert_array_equal(first.descriptors, again.descriptors)
    assert again.detector == "test"
    cache.get_or_make(IMAGE + 1, make)
    FeatureCache(tmp_path, {"threshold": 2}).get_or_make(IMAGE, make)
    assert len(calls) == 3
