"""Cameras of a rig through one network call: what comes out is what comes out one by one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data

from superglue_ros.config import Config
from superglue_ros.errors import DescriptorKindError
from superglue_ros.geometry.camera import Camera
from superglue_ros.networks.places import PlaceAggregation, PlacesConfig
from superglue_ros.networks.weights import save
from superglue_ros.pipeline import FrameResult, Pipeline, process_together
from superglue_ros.rig import Rig
from superglue_ros.settings import from_flat
from superglue_ros.types import Features, Frame, FrameId

SIZES = [(192, 144), (192, 144), (160, 120)]
SETTINGS = {"device": "cpu", "front_end.max_keypoints": 80, "matcher.sinkhorn_iterations": 20}


class CountingEngine:
    """An engine of SuperPoint that notes how many images each call brought."""

    def __init__(self, engine) -> None:
        self._engine = engine
        self.calls: list[int] = []

    def maps(self, images):
        self.calls.append(len(images))
        return self._engine.maps(images)


def rig() -> tuple[list[Pipeline], CountingEngine]:
    shared = Rig(from_flat(Config, SETTINGS))
    detector = shared.front_end._detect
    detector.engine = CountingEngine(detector.engine)
    return [Pipeline(shared.config, shared) for _ in SIZES], detector.engine


def frames(step: int) -> list[Frame]:
    """One image of each camera at that time: photographs that move by 4 pixels a step."""
    found = []
    pictures = (skimage.data.coffee(), skimage.data.chelsea(), skimage.data.astronaut())
    for index, ((width, height), picture) in enumerate(zip(SIZES, pictures, strict=True)):
        grey = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (width + 20, height))
        image = np.ascontiguousarray(grey[:, 4 * step : 4 * step + width])
        matrix = np.array([[200.0, 0, width / 2], [0, 200.0, height / 2], [0, 0, 1]])
        name = FrameId(10 * step + index + 1, step * 10**8, f"cam{index}", camera_index=index)
        found.append(Frame(name, image, Camera(width, height, matrix, np.zeros(0))))
    return found


def assert_same(found: FrameResult, expected: FrameResult) -> None:
    assert found.frame_id == expected.frame_id
    assert found.is_keyframe == expected.is_keyframe
    np.testing.assert_allclose(found.features.keypoints, expected.features.keypoints, atol=1e-4)
    np.testing.assert_array_equal(found.features.track_ids, expected.features.track_ids)
    assert len(found.pairs) == len(expected.pairs)
    for one, other in zip(found.pairs, expected.pairs, strict=True):
        assert (one.matches.reference, one.matches.kind) == (
            other.matches.reference,
            other.matches.kind,
        )
        assert set(zip(one.matches.index_ref, one.matches.index_query, strict=True)) == set(
            zip(other.matches.index_ref, other.matches.index_query, strict=True)
        )
        assert one.pose.status == other.pose.status
        np.testing.assert_allclose(one.pose.rotation, other.pose.rotation, atol=1e-3)


def test_together_is_one_by_one_in_one_call_a_size():
    (together, engine), (alone, _) = rig(), rig()
    matched = 0
    for step in range(2):
        engine.calls.clear()
        outcomes = process_together(together, frames(step))
        assert sorted(engine.calls) == [1, 2]  # two cameras of one size, one of another
        expected = [p.process(f) for p, f in zip(alone, frames(step), strict=True)]
        for found, one in zip(outcomes, expected, strict=True):
            assert isinstance(found, FrameResult)
            assert_same(found, one)
            matched += sum(len(pair.matches) for pair in found.pairs)
        indices = [found.frame_id.camera_index for found in outcomes]
        assert indices == [0, 1, 2]
    assert matched > 90
    shares = {found.seconds.extract for found in outcomes}
    assert len(shares) == 1, "a shared call is shared out evenly"


def test_a_bad_frame_does_not_affect_the_others():
    pipelines, _ = rig()
    process_together(pipelines, frames(0))
    good = frames(1)
    foreign = Features(
        np.full((3, 2), 50, np.float32), np.ones(3), *SIZES[1], "other", np.ones((3, 7))
    )
    bad = Frame(good[1].id, good[1].image, good[1].camera, foreign)
    first, refused, last = process_together(pipelines, [good[0], bad, good[2]])
    assert isinstance(refused, DescriptorKindError)
    for outcome, index in ((first, 0), (last, 2)):
        assert outcome.frame_id.camera_index == index
        assert len(outcome.pairs[0].matches) > 30
    with pytest.raises(DescriptorKindError, match="other"):
        pipelines[1].process(bad)
    assert len(pipelines[1].process(good[1]).pairs[0].matches) > 30


def test_a_pair_that_cannot_be_matched_does_not_affect_the_others():
    """Descriptors of another kind than the keyframe's, which classical matchers see late."""
    settings = {**SETTINGS, "front_end.name": "sift", "matcher.name": "mutual"}
    shared = Rig(from_flat(Config, settings))
    pipelines = [Pipeline(shared.config, shared), Pipeline(shared.config, shared)]
    process_together(pipelines, frames(0)[:2])
    good, other = frames(1)[:2]
    foreign = Features(
        np.full((3, 2), 50, np.float32), np.ones(3), *SIZES[1], "other", np.ones((3, 128))
    )
    bad = Frame(other.id, other.image, other.camera, foreign)
    found, refused = process_together(pipelines, [good, bad])
    assert isinstance(refused, DescriptorKindError)
    assert len(found.pairs[0].matches) > 30


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "superpoint, superglue (small)"),
        ({"matcher.weights": "wide"}, "superpoint, superglue (wide)"),
        ({"front_end.name": "sift", "matcher.name": "mutual"}, "sift, mutual"),
    ],
)
def test_networks_are_named_with_their_weights(settings, named):
    assert Rig(from_flat(Config, {**SETTINGS, **settings})).networks == named


def test_weights_of_places_for_other_descriptors_than_the_matcher_takes_are_refused(tmp_path):
    own = tmp_path / "own.safetensors"
    save(PlaceAggregation(PlacesConfig(128, 8)), own, "sift-root", "")
    with pytest.raises(DescriptorKindError, match=r"own\.safetensors were made for 'sift-root'"):
        Rig(from_flat(Config, {**SETTINGS, "place_weights": str(own)}))
