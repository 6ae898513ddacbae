"""Rotations: the identities that define them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from superglue_ros.geometry.rotation import angle, exp, log, nearest, skew, tangent_basis

vectors = st.tuples(*[st.floats(-1.5, 1.5)] * 3).map(np.array)


@given(vectors)
def test_log_inverts_exp_and_angle_is_its_length(vector):
    np.testing.assert_allclose(log(exp(vector)), vector, atol=1e-7)
    np.testing.assert_allclose(angle(exp(vector)), np.linalg.norm(vector), atol=1e-7)


def test_log_of_a_small_rotation_is_not_zero():
    for small in (1e-12, 1e-6, 1e-5, 9e-5, 1.1e-4):
        np.testing.assert_allclose(log(exp(np.array([0, small, 0]))), [0, small, 0], rtol=1e-6)


def test_angles_are_exact_where_the_arc_cosine_is_not():
    np.testing.assert_allclose(angle(exp(np.array([1e-9, 0, 0]))), 1e-9, rtol=1e-6)
    np.testing.assert_allclose(angle(exp(np.array([0, np.pi - 1e-9, 0]))), np.pi, atol=1e-7)


@given(vectors, vectors)
def test_skew_is_the_cross_product(a, b):
    np.testing.assert_allclose(skew(a) @ b, np.cross(a, b), atol=1e-12)


@given(vectors.filter(lambda v: np.linalg.norm(v) > 1e-3))
def test_tangent_basis_is_orthonormal(vector):
    direction = vector / np.linalg.norm(vector)
    frame = np.column_stack((direction, tangent_basis(direction)))
    np.testing.assert_allclose(frame.T @ frame, np.eye(3), atol=1e-12)


@given(vectors)
def test_nearest_undoes_small_damage(vector):
    rotation = exp(vector)
    repaired = nearest(rotation * 1.001)
    np.testing.assert_allclose(repaired, rotation, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(nearest(-rotation)), 1.0)
