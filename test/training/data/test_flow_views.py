"""Labels of sequences without poses, by optical flow."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from superglue_ros.errors import DataError
from superglue_ros.training.data.cache_builder import view_drawer
from superglue_ros.training.data.flow_views import FlowDrawer, FlowViews
from superglue_ros.training.data.views import ScaledViews, label_views
from superglue_ros.training.recipes import SequenceSource, ViewRecipe

from ..conftest import textured

SHIFT = np.array([6.0, -3.0])


def shifted(count: int = 2) -> list[np.ndarray]:
    """Windows of one texture, each moved by ``SHIFT``."""
    whole = cv2.GaussianBlur(textured(0, 400, 300), (0, 0), 1.0)
    return [
        np.ascontiguousarray(whole[60 + 3 * i : 156 + 3 * i, 60 - 6 * i : 188 - 6 * i])
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def views() -> FlowViews:
    return FlowViews(shifted())


def test_points_follow_the_flow(views):
    points = np.array([[40.0, 40.0], [70.5, 52.25], [90.0, 30.0]])
    found = views.project(points, 0, 1)
    assert not (found.hidden | found.unknown).any()
    np.testing.assert_allclose(found.points, points + SHIFT, atol=0.5)
    back = views.project(found.points, 1, 0)
    np.testing.assert_allclose(back.points, points, atol=0.5)


def test_what_leaves_the_image_is_hidden_and_its_border_unknown(views):
    found = views.project(np.array([[127.0, 50.0], [122.5, 50.0], [60.0, 50.0]]), 0, 1)
    assert (found.hidden | found.unknown).tolist() == [True, True, False]
    assert views.project(np.zeros((0, 2)), 0, 1).points.shape == (0, 2)


def test_where_the_directions_disagree_there_is_no_label():
    """A part of the second image is of another texture."""
    first, second = shifted()
    second = second.copy()
    second[30:70, 40:90] = textured(7, 50, 40)
    views = FlowViews([first, second])
    inside = views.project(
        np.stack(np.meshgrid([52, 60, 68], [45, 53, 60]), -1).reshape(-1, 2), 0, 1
    )
    outside = views.project(np.array([[100.0, 40], [20, 20], [60, 15]]), 0, 1)
    assert inside.unknown.mean() > 0.8
    assert not outside.unknown.any()
    assert views.overlap(0, 1) < FlowViews(shifted()).overlap(0, 1) < 1


def test_labels_match_what_moved(views):
    first = np.array([[30.0, 30.0], [60, 40], [90, 60], [50, 70]])
    second = np.concatenate([(first + SHIFT)[::-1][:3], [[20.0, 80.0]]])
    labels = label_views(views, 0, 1, (first, second))
    assert labels.matches0.tolist() == [-1, 2, 1, 0]
    assert labels.matches1.tolist() == [3, 2, 1, -1]


def test_scaled_views_project_as_the_views_do(views):
    half = ScaledViews.of(views, 0.5)
    assert [image.shape for image in half.images] == [(48, 64)] * 2
    points = np.array([[40.0, 40.0], [70.5, 52.25]])
    whole = views.project(points, 0, 1).points
    found = half.project((points + 0.5) / 2 - 0.5, 0, 1).points
    np.testing.assert_allclose(found, (whole + 0.5) / 2 - 0.5)
    assert half.thresholds == views.thresholds


def write(folder: Path, images: list[np.ndarray]) -> Path:
    folder.mkdir()
    for i, image in enumerate(images):
        cv2.imwrite(str(folder / f"{i:03d}.png"), image)
    return folder


def recipe_for(folder: Path, **changes) -> ViewRecipe:
    source = SequenceSource(folder=str(folder), gap=(1, 2))
    options = {"overlap": (0.3, 1.0), "width": 128, "height": 96, **changes}
    return ViewRecipe(source="flow", sequences=(source,), **options)


def test_frames_that_follow_one_another_are_drawn(tmp_path):
    draw = view_drawer(recipe_for(write(tmp_path / "walk", shifted(4))), "train")()
    views = draw(np.random.default_rng(0))
    assert [image.shape for image in views.images] == [(96, 128)] * 2
    moved = views.project(np.array([[64.0, 48.0]]), 0, 1).points[0] - [64, 48]
    steps = round(moved[0] / SHIFT[0])
    assert steps in (1, 2)
    np.testing.assert_allclose(moved, steps * SHIFT, atol=0.7)


def test_frames_without_anything_in_common_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("superglue_ros.training.data.flow_views._TRIES", 5)
    folder = write(tmp_path / "cuts", [textured(seed, 128, 96) for seed in range(3)])
    with pytest.raises(
        DataError, match=r"optical flow finds 0\.9 to 1\.0 of the area again in no 2"
    ):
        FlowDrawer(recipe_for(folder, overlap=(0.9, 1.0)))(np.random.default_rng(0))


def test_a_folder_with_one_image_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"walk has 1 images: give at least two"):
        FlowDrawer(recipe_for(write(tmp_path / "walk", shifted(1))))
    with pytest.raises(DataError, match=r"no sequence is at .*nowhere: check sequences"):
        FlowDrawer(recipe_for(tmp_path / "nowhere"))
