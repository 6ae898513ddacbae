"""A matcher and a front-end that are not in the package: registered, they work everywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from superglue_ros.cli import main
from superglue_ros.config import Config, MatcherConfig
from superglue_ros.errors import ConfigError
from superglue_ros.frontends.sift import SiftFrontEnd
from superglue_ros.geometry.camera import Camera
from superglue_ros.matchers.base import by_score, check_kind
from superglue_ros.pipeline import Pipeline
from superglue_ros.registry import FRONT_ENDS, MATCHERS
from superglue_ros.settings import from_flat
from superglue_ros.types import Correspondences, Features, Frame, FrameId

from .test_matchers import *  # noqa: F403  the contract suite, run once more for the toy


class ToyMatcher:
    """Mutual nearest neighbours by OpenCV's brute force."""

    descriptor_kind: str | None = None
    precision = "float32"

    def configure(self, config: MatcherConfig) -> None:
        """There is nothing to set."""

    def prepare(self, features: Features) -> Features:
        check_kind(features, None, None)
        return features

    def match_pairs(
        self, references: Sequence[Features], queries: Sequence[Features]
    ) -> list[Correspondences]:
        return [self._match(a, b) for a, b in zip(references, queries, strict=True)]

    def _match(self, reference: Features, query: Features) -> Correspondences:
        if reference.detector != query.detector:
            check_kind(query, reference.detector, reference.descriptor_dim)
        if not len(reference) or not len(query):
            return Correspondences.empty()
        found = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(
            reference.descriptors, query.descriptors
        )
        return by_score(
            np.array([m.queryIdx for m in found], np.int32),
            np.array([m.trainIdx for m in found], np.int32),
            np.array([1 - m.distance / 2 for m in found], np.float32).clip(0, 1),
        )


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    MATCHERS.register("toy", lambda config, device: ToyMatcher(), "Toy", "For this test.")
    FRONT_ENDS.register(
        "toy-sift", lambda config, device: SiftFrontEnd(config.front_end), "Toy SIFT", "Also."
    )
    yield
    MATCHERS.unregister("toy")
    FRONT_ENDS.unregister("toy-sift")


@pytest.fixture(scope="module")
def name(registered) -> str:
    """In place of the suite's own: its fixtures and tests now speak of the toy."""
    return "toy"


@pytest.fixture(scope="module")
def pair(tmp_path_factory, photograph, warped):
    """A folder with two views of one photograph turned about the camera, and a pairs file."""
    folder = tmp_path_factory.mktemp("pair")
    height, width = photograph.shape
    matrix = np.array([[200.0, 0, width / 2], [0, 200.0, height / 2], [0, 0, 1]])
    rotation = cv2.Rodrigues(np.deg2rad([4.0, 8.0, 3.0]))[0]
    turned = cv2.warpPerspective(
        photograph, matrix @ rotation @ np.linalg.inv(matrix), (width, height)
    )
    cv2.imwrite(str(folder / "a.png"), photograph)
    cv2.imwrite(str(folder / "b.png"), turned)
    pose = np.eye(4)
    pose[:3, :3], pose[0, 3] = rotation, 1e-6
    numbers = [*matrix.ravel(), *matrix.ravel(), *pose.ravel()]
    (folder / "pairs.txt").write_text("a.png b.png 0 0 " + " ".join(map(str, numbers)) + "\n")
    return folder, photograph, turned, Camera(width, height, matrix, np.zeros(0)), rotation


def test_the_toys_are_evaluated_by_name(pair, capsys):
    folder, *_ = pair
    command = ["evaluate", "pose", "--pairs", str(folder / "pairs.txt"), "--images", str(folder)]
    command += ["--front-end", "toy-sift", "--matcher", "toy", "--max-keypoints", "200"]
    assert main([*command, "--rotation-only", "--output", str(folder / "out")]) == 0
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert summary["pairs"] == 1
    assert summary["auc"]["5"] > 60
    assert json.loads((folder / "out" / "config.json").read_text())["label"] == "Toy SIFT + Toy"


def test_the_toys_run_in_the_pipeline(pair):
    _, first, second, camera, rotation = pair
    names = {"device": "cpu", "front_end.name": "toy-sift", "matcher.name": "toy"}
    pipeline = Pipeline(from_flat(Config, names))
    pipeline.process(Frame(FrameId(1, 1), first, camera))
    (found,) = pipeline.process(Frame(FrameId(2, 2), second, camera)).pairs
    assert found.pose.num_inliers > 40
    np.testing.assert_allclose(found.pose.rotation, rotation.T, atol=0.02)


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(ValueError, match="already"):
        MATCHERS.register("toy", ToyMatcher, "Toy", "Once more.")


def test_matchers_that_give_several_partners_cannot_run_in_the_pipeline():
    config = replace(Config(), device="cpu", matcher=MatcherConfig(name="paper-nn"))
    with pytest.raises(ConfigError, match=r"paper-nn gives keypoints several partners"):
        Pipeline(config)


def test_nothing_is_imported_for_a_choice_that_nobody_takes():
    MATCHERS.register("broken", "superglue_ros.no_such_module:make", "Broken", "Not there.")
    try:
        assert from_flat(Config, {"matcher.name": "broken"}).matcher.name == "broken"
        with pytest.raises(ModuleNotFoundError, match="no_such_module"):
            MATCHERS.make("broken", Config(), torch.device("cpu"))
    finally:
        MATCHERS.unregister("broken")
