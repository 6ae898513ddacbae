import numpy as np
import pytest

from superglue_ros.synthetic.worlds.patches import tessellate


def test_a_parabola_is_met_exactly():
    """Control points of z = x^2 over [0, 2], flat in y: two patches side by side."""
    x = np.array([0, 0.5, 1, 1.5, 2])
    z = np.array([0, 0, 1, 2, 4])  # where neighbouring tangents meet
    control = np.stack([np.stack([x, np.full(5, y), z], axis=1) for y in (0.0, 0.5, 1.0)])
    points, triangles = tessellate(control.astype(np.float32), steps=4)
    assert points.shape == (5 * 9, 3)
    np.testing.assert_allclose(points[:, 2], points[:, 0] ** 2, atol=1e-6)
    corners = points[triangles]
    sides = corners[:, 1:] - corners[:, :1]
    normals = np.cross(sides[:, 0], sides[:, 1])
    # Every triangle faces the same way, and together they cover the square exactly once.
    assert (normals[:, 2] < 0).all()
    assert -normals[:, 2].sum() / 2 == pytest.approx(2.0)


def test_all_channels_are_interpolated():
    control = np.zeros((3, 3, 8), np.float32)
    control[..., 5] = [[0, 1, 2]] * 3
    points, _ = tessellate(control, steps=2)
    np.testing.assert_allclose(points.reshape(3, 3, 8)[..., 5], [[0, 1, 2]] * 3)


@pytest.mark.parametrize("shape", [(1, 3), (3, 2), (4, 3), (0, 0)])
def test_what_is_no_patch_is_empty(shape):
    points, triangles = tessellate(np.zeros((*shape, 8), np.float32))
    assert points.shape == (0, 8)
    assert triangles.shape == (0, 3)
