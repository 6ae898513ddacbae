import numpy as np
import pytest
import torch

from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.errors import DataError
from superglue_ros.geometry.ground_truth import HOMOGRAPHY
from superglue_ros.networks.weights import load_superpoint
from superglue_ros.training.data.device_cache import homography_shard, posed_shard
from superglue_ros.training.data.views import HomographyViews, PosedViews, label_views

from ..conftest import textured


@pytest.fixture(scope="module")
def engine() -> SuperPointEngine:
    return SuperPointEngine(load_superpoint().network, torch.device("cpu"))


def _check(shard, views):
    assert len(shard.pairs) > 0
    for (i, j), m0, m1 in zip(shard.pairs.tolist(), shard.matches0, shard.matches1, strict=True):
        points = shard.keypoints[i].double().numpy(), shard.keypoints[j].double().numpy()
        expected = label_views(views, i, j, points)
        np.testing.assert_array_equal(m0.numpy(), expected.matches0)
        np.testing.assert_array_equal(m1.numpy(), expected.matches1)
        assert (m0 >= 0).sum() >= 16


def test_shards_have_full_sets_and_the_labels_of_their_views(engine):
    image = textured(0, 240, 200)
    shifts = [(0, 0), (16, 8), (40, 24)]
    images = np.stack([image[y : y + 120, x : x + 160] for x, y in shifts])
    maps = [np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1.0]]) for x, y in shifts]
    shard = homography_shard(
        engine, torch.from_numpy(images)[None], torch.from_numpy(np.stack(maps))[None], 96
    )
    assert shard.keypoints.shape == (3, 96, 2)
    assert shard.descriptors.dtype == torch.float16
    assert (shard.scores[:, :-1] >= shard.scores[:, 1:]).all()
    _check(shard, HomographyViews(list(images), maps, np.eye(3)))

    # The same pictures as views of a wall 2 m away, by a camera that moves along it.
    K = np.array([[100.0, 0, 79.5], [0, 100.0, 59.5], [0, 0, 1]])
    poses = np.stack([np.eye(4)] * 3)
    poses[:, :2, 3] = np.array(shifts) * 2 / 100
    depths = np.full((3, 120, 160), 2.0, np.float32)
    posed = posed_shard(
        engine,
        torch.from_numpy(images)[None],
        torch.from_numpy(depths)[None],
        torch.from_numpy(np.stack([K] * 3))[None],
        torch.from_numpy(poses)[None],
        96,
    )
    _check(posed, PosedViews(list(images), list(depths), [K] * 3, list(poses), HOMOGRAPHY))


def test_views_that_disagree_are_refused(engine):
    images = torch.zeros(1, 2, 64, 64, dtype=torch.uint8)
    with pytest.raises(DataError, match="same sets"):
        homography_shard(engine, images, torch.eye(3).expand(1, 3, 3, 3), 16)
    eye3, eye4 = torch.eye(3).expand(1, 2, 3, 3), torch.eye(4).expand(1, 2, 4, 4)
    with pytest.raises(DataError, match="same sets"):
        posed_shard(engine, images, torch.zeros(1, 2, 32, 64), eye3, eye4, 16)
