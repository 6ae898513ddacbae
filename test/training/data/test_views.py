import cv2
import numpy as np
import pytest

from superglue_ros.errors import DataError
from superglue_ros.synthetic.homographies import HomographyRecipe
from superglue_ros.synthetic.photometric import PhotometricRecipe
from superglue_ros.synthetic.rendering import Texture
from superglue_ros.training.data.views import RoomConfig, homography_views, room_views

from ..conftest import textured

PLAIN = PhotometricRecipe(probability=0.0)


def test_homography_views_show_the_same_where_the_truth_says():
    recipe = HomographyRecipe(width=160, height=120, rotation_deg=15)
    views = homography_views(textured(0, 500, 400), np.random.default_rng(1), 3, recipe, PLAIN)
    assert [image.shape for image in views.images] == [(120, 160)] * 3
    x, y = np.meshgrid(np.arange(20, 140, 7.0), np.arange(20, 100, 7.0))
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        projection = views.project(points, i, j)
        seen = ~projection.hidden
        assert seen.sum() > 20
        a = cv2.remap(views.images[i], points[seen].astype(np.float32)[None], None, 1)
        b = cv2.remap(views.images[j], projection.points[seen].astype(np.float32)[None], None, 1)
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9


def test_views_lie_inside_the_photograph():
    recipe = HomographyRecipe(width=64, height=48)
    image = textured(1, 300, 200)
    for seed in range(10):
        views = homography_views(image, np.random.default_rng(seed), 2, recipe, PLAIN)
        corners = np.array([[[0.0, 0], [63, 0], [63, 47], [0, 47]]])
        for from_first in views.from_first:
            to_source = views.source_from_first @ np.linalg.inv(from_first)
            quad = cv2.perspectiveTransform(corners, to_source)[0]
            assert (quad > -1e-6).all()
            assert (quad < [299 + 1e-6, 199 + 1e-6]).all()


def test_the_same_generator_gives_the_same_views():
    recipe = HomographyRecipe(width=64, height=48)
    image = textured(2, 200, 150)
    a, b = (
        homography_views(image, np.random.default_rng(3), 2, recipe, PhotometricRecipe())
        for _ in range(2)
    )
    for first, second in zip(a.images, b.images, strict=True):
        np.testing.assert_array_equal(first, second)


def test_rendered_rooms_show_the_same_where_the_truth_says():
    textures = [Texture(textured(seed, 128, 128)) for seed in range(4)]
    views = room_views(
        textures, np.random.default_rng(0), 2, 160, 120, RoomConfig(max_baseline=0.3), PLAIN
    )
    assert views.overlap(0, 1) >= RoomConfig().min_overlap
    x, y = np.meshgrid(np.arange(10, 150, 5.0), np.arange(10, 110, 5.0))
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    projection = views.project(points, 0, 1)
    seen = ~projection.hidden & ~projection.unknown
    assert seen.sum() > 40
    a = cv2.remap(views.images[0], points[seen].astype(np.float32)[None], None, 1)
    b = cv2.remap(views.images[1], projection.points[seen].astype(np.float32)[None], None, 1)
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.8


def test_an_overlap_that_cannot_be_had_is_refused():
    textures = [Texture(textured(0, 32, 32))]
    config = RoomConfig(min_overlap=1.01)
    with pytest.raises(DataError, match=r"lower min_overlap"):
        room_views(textures, np.random.default_rng(0), 2, 32, 24, config, PLAIN)
