"""The weights in the package on photographs, as a user runs them: precision and recall."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
import torch

from superglue_ros.config import Config
from superglue_ros.frontends.base import make_front_end
from superglue_ros.geometry.ground_truth import HOMOGRAPHY, label_matches, project_homography
from superglue_ros.matchers.base import make_matcher, match_pair
from superglue_ros.settings import from_flat
from superglue_ros.synthetic.homographies import HomographyRecipe, sample_pair
from superglue_ros.synthetic.photometric import PhotometricRecipe, distort
from superglue_ros.types import Correspondences, Features

CPU = torch.device("cpu")
SIZE = (320, 240)
PHOTOGRAPHS = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "rocket.jpg")


@pytest.fixture(scope="module")
def figures() -> dict[str, tuple[float, float]]:
    """Mean precision and recall at 3 px, in per cent, over ten homographies, per matcher."""
    front_end = make_front_end(from_flat(Config, {"front_end.max_keypoints": 256}), CPU)
    pairs = []
    for i, name in enumerate(PHOTOGRAPHS * 2):
        rng = np.random.default_rng(i)
        image = cv2.imread(str(Path(skimage.__file__).parent / "data" / name), 0)
        pair = sample_pair(np.asarray(image, np.uint8), rng, HomographyRecipe(*SIZE))
        views = [pair.image0, distort(pair.image1, rng, PhotometricRecipe())]
        pairs.append((*front_end.extract_all(views), np.asarray(pair.homography, np.float64)))
    found = {}
    for name in ("mutual", "nn", "pointcn", "oanet", "superglue"):
        matcher = make_matcher(from_flat(Config, {"matcher.name": name}), CPU)
        quality = []
        for first, second, homography in pairs:
            matches = match_pair(matcher, first, second)
            quality.append(precision_and_recall(first, second, homography, matches))
        precision, recall = np.mean(quality, axis=0) * 100
        found[name] = float(precision), float(recall)
    return found


def precision_and_recall(
    first: Features, second: Features, homography: np.ndarray, matches: Correspondences
) -> tuple[float, float]:
    there = project_homography(first.keypoints, homography, *SIZE)
    back = project_homography(second.keypoints, np.linalg.inv(homography), *SIZE)
    truth = label_matches(first.keypoints, second.keypoints, there, back, HOMOGRAPHY).matches0
    rows, columns = matches.index_ref, matches.index_query
    errors = np.linalg.norm(there.points[rows] - second.keypoints[columns], axis=1)
    found = (truth[rows] == columns).sum() / (truth >= 0).sum()
    return float((errors < HOMOGRAPHY.match).mean()), float(found)


def test_superglue_is_precise_and_complete(figures):
    precision, recall = figures["superglue"]
    assert precision > 85, figures
    assert recall > 88, figures


def test_superglue_is_more_precise_and_complete_than_the_nearest_neighbour(figures):
    assert figures["superglue"][0] > figures["mutual"][0] + 4, figures
    assert figures["superglue"][1] > figures["mutual"][1], figures


def test_superpoint_serves_the_nearest_neighbour(figures):
    precision, recall = figures["mutual"]
    assert precision > 75, figures
    assert recall > 82, figures


@pytest.mark.parametrize("name", ["pointcn", "oanet"])
def test_filters_make_the_nearest_neighbour_precise_and_keep_most_of_it(figures, name):
    assert figures[name][0] > figures["nn"][0] + 8, figures
    assert figures[name][1] > figures["nn"][1] - 15, figures
