import numpy as np
import pytest

from superglue_ros.errors import DataError
from superglue_ros.geometry.depth_overlap import check_depth, overlap, project_depth, sample_depth

K = np.array([[100.0, 0, 49.5], [0, 100.0, 39.5], [0, 0, 1]])
SHAPE = (80, 100)


def moved(x: float) -> np.ndarray:
    """Camera 1 stands ``x`` metres to the right of camera 0: points move left in it."""
    T_1_0 = np.eye(4)
    T_1_0[0, 3] = -x
    return T_1_0


def test_a_point_moves_by_focal_length_times_baseline_over_depth():
    wall = np.full(SHAPE, 2.0)
    points = np.array([[50.0, 40.0], [3.0, 40.0]])
    projection = project_depth(points, wall, wall, K, K, moved(0.2))
    np.testing.assert_allclose(projection.points, [[40, 40], [-7, 40]], atol=1e-9)
    assert projection.hidden.tolist() == [False, True]
    assert not projection.unknown.any()


def test_behind_a_nearer_surface_is_hidden_and_before_it_unknown():
    far, near = np.full(SHAPE, 4.0), np.full(SHAPE, 1.0)
    point = np.array([[50.0, 40.0]])
    occluded = project_depth(point, far, near, K, K, np.eye(4))
    assert occluded.hidden.tolist() == [True]
    contradicting = project_depth(point, near, far, K, K, np.eye(4))
    assert (contradicting.hidden.tolist(), contradicting.unknown.tolist()) == ([False], [True])


@pytest.mark.parametrize("missing", [0.0, np.nan])
def test_missing_depth_is_unknown_on_either_side(missing):
    wall, holes = np.full(SHAPE, 2.0), np.full(SHAPE, missing)
    point = np.array([[50.0, 40.0]])
    for a, b in ((wall, holes), (holes, wall)):
        projection = project_depth(point, a, b, K, K, np.eye(4))
        assert projection.unknown.tolist() == [True]
        assert projection.hidden.tolist() == [False]


def test_a_point_behind_the_other_camera_is_hidden():
    wall = np.full(SHAPE, 2.0)
    T_1_0 = np.eye(4)
    T_1_0[2, 3] = -3.0
    projection = project_depth(np.array([[50.0, 40.0]]), wall, wall, K, K, T_1_0)
    assert projection.hidden.tolist() == [True]


def test_depth_is_read_at_the_nearest_pixel():
    depth = np.arange(12, dtype=float).reshape(3, 4)
    found = sample_depth(depth, np.array([[1.4, 0.6], [3.4, 2.4], [3.6, 0.0], [0.0, 0.0]]))
    np.testing.assert_array_equal(found, [5, 11, np.nan, np.nan])


def test_overlap_of_a_shifted_wall_is_what_stays_in_view():
    wall = np.full((480, 640), 2.0)
    matrix = np.array([[500.0, 0, 319.5], [0, 500.0, 239.5], [0, 0, 1]])
    assert overlap(wall, wall, matrix, matrix, moved(0.64)) == pytest.approx(0.75, abs=0.02)
    assert overlap(wall, wall, matrix, matrix, np.eye(4)) == 1


def test_depth_of_another_size_is_refused_by_name():
    with pytest.raises(DataError, match=r"frame\.png: the depth map has shape \(80, 100\)"):
        check_depth(np.ones(SHAPE), 640, 480, "frame.png")
