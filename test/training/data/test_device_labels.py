import numpy as np
import pytest
import torch

from superglue_ros.geometry.depth_overlap import project_depth
from superglue_ros.geometry.ground_truth import (
    HOMOGRAPHY,
    INDOOR,
    OUTDOOR,
    label_matches,
    project_homography,
)
from superglue_ros.training.data.device_labels import (
    label_pairs,
    project_depths,
    project_homographies,
)


def _equal(found, expected):
    for side, labels in enumerate((expected.matches0, expected.matches1)):
        np.testing.assert_array_equal(found[side][0].numpy(), labels)


@pytest.mark.parametrize("thresholds", [HOMOGRAPHY, OUTDOOR])
def test_labels_of_homographies_equal_the_reference(thresholds):
    rng = np.random.default_rng(0)
    first = rng.uniform(0, 160, (200, 2))
    matrix = np.array([[1.1, 0.1, -9], [-0.05, 0.9, 7], [5e-4, 1e-4, 1]])
    mapped = np.c_[first, np.ones(200)] @ matrix.T
    second = mapped[:, :2] / mapped[:, 2:] + rng.normal(0, 2, (200, 2))
    there = project_homography(first, matrix, 160, 120)
    back = project_homography(second, np.linalg.inv(matrix), 160, 120)
    expected = label_matches(first, second, there, back, thresholds)
    assert (expected.matches0 >= 0).sum() > 20
    a, b, h = (torch.from_numpy(x)[None] for x in (first, second, matrix))
    found = label_pairs(
        a,
        b,
        project_homographies(a, h, 160, 120),
        project_homographies(b, h.inverse(), 160, 120),
        thresholds,
    )
    _equal(found, expected)


@pytest.mark.parametrize("thresholds", [HOMOGRAPHY, INDOOR])
def test_labels_of_depth_equal_the_reference_with_occlusion_and_missing_depth(thresholds):
    rng = np.random.default_rng(1)
    depths = np.full((2, 120, 160), 4.0, np.float32)
    depths[0, 40:80, 60:100] = 2.0
    depths[1, 40:80, 48:88] = 2.0
    depths[0, :10] = 0
    depths[1, -10:] = np.nan
    K = np.array([[100.0, 0, 79.5], [0, 100.0, 59.5], [0, 0, 1]])
    T = np.eye(4)
    T[:3, 3] = [-0.3, 0.05, 0.02]
    first, second = rng.uniform(0, (160, 120), (2, 400, 2))
    there = project_depth(first, depths[0], depths[1], K, K, T)
    second[:250] = np.nan_to_num(there.points[:250], nan=5.0) + rng.normal(0, 1, (250, 2))
    back = project_depth(second, depths[1], depths[0], K, K, np.linalg.inv(T))
    assert there.hidden.any()
    assert there.unknown.any()
    expected = label_matches(first, second, there, back, thresholds)
    assert (expected.matches0 >= 0).sum() > 50
    assert (expected.matches0 == -2).any()
    a, b = torch.from_numpy(first)[None], torch.from_numpy(second)[None]
    d, k = torch.from_numpy(depths), torch.from_numpy(np.stack([K, K]))
    t = torch.from_numpy(T)[None]
    zero, one = torch.tensor([0]), torch.tensor([1])
    found = label_pairs(
        a,
        b,
        project_depths(a, d, zero, one, k, t),
        project_depths(b, d, one, zero, k, t.inverse()),
        thresholds,
    )
    _equal(found, expected)
