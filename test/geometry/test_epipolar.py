"""Epipolar geometry on closed forms."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from superglue_ros.geometry import epipolar
from superglue_ros.geometry.rotation import exp

motions = st.tuples(
    st.tuples(*[st.floats(-0.3, 0.3)] * 3).map(lambda v: exp(np.array(v))),
    st.tuples(*[st.floats(-1, 1)] * 3).map(np.array).filter(lambda t: np.linalg.norm(t) > 0.1),
)


def points(count: int = 12) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.column_stack((rng.uniform(-1, 1, (count, 2)), rng.uniform(4, 9, count)))


def rays(points: np.ndarray) -> np.ndarray:
    return points[:, :2] / points[:, 2:]


@settings(max_examples=40)
@given(motions)
@example((exp(np.array([1e-244, -0.16, 0.0])), np.array([0.0, 0.5, 1e-72])))
def test_exact_points_satisfy_everything(motion):
    rotation, translation = motion
    query = points()
    ref = query @ rotation.T + translation
    essential = epipolar.essential_matrix(rotation, translation)
    distances = epipolar.sampson_distance(rays(ref), rays(query), essential)
    np.testing.assert_allclose(distances, 0, atol=1e-12)
    z_ref, z_query = epipolar.depths(rays(ref), rays(query), rotation, translation)
    np.testing.assert_allclose(z_ref, ref[:, 2], rtol=1e-6)
    np.testing.assert_allclose(z_query, query[:, 2], rtol=1e-6)
    assert epipolar.in_front(rays(ref), rays(query), rotation, translation).all()
    assert not epipolar.in_front(rays(ref), rays(query), rotation, -translation).any()
    found = epipolar.decompose_essential(essential, rays(ref), rays(query))
    np.testing.assert_allclose(found[0], rotation, atol=1e-6)
    np.testing.assert_allclose(found[1], translation / np.linalg.norm(translation), atol=1e-6)


@given(motions)
def test_parallax_is_the_angle_at_the_point(motion):
    rotation, translation = motion
    query = points()
    ref = query @ rotation.T + translation
    to_query = ref - translation
    cosine = np.einsum("ki,ki->k", ref, to_query)
    cosine /= np.linalg.norm(ref, axis=1) * np.linalg.norm(to_query, axis=1)
    found = epipolar.parallax(rays(ref), rays(query), rotation)
    np.testing.assert_allclose(np.cos(found), cosine, atol=1e-12)
    turned_only = epipolar.parallax(rays(query @ rotation.T), rays(query), rotation)
    np.testing.assert_allclose(turned_only, 0, atol=1e-12)


def test_sampson_distance_is_the_distance_to_the_nearest_exact_match():
    rotation, translation = exp(np.array([0.1, -0.2, 0.05])), np.array([1.0, 0.2, -0.3])
    query = points(4)
    ref_rays = rays(query @ rotation.T + translation)
    query_rays = rays(query) + np.array([0.002, -0.003])
    essential = epipolar.essential_matrix(rotation, translation)
    found = np.abs(epipolar.sampson_distance(ref_rays, query_rays, essential))
    for index in range(4):
        start = np.concatenate((ref_rays[index], query_rays[index]))

        def constraint(match):
            return np.append(match[:2], 1) @ essential @ np.append(match[2:], 1)

        nearest = minimize(
            lambda match, start=start: 1e6 * np.sum((match - start) ** 2),
            start,
            constraints={"type": "eq", "fun": constraint},
            tol=1e-12,
        )
        assert found[index] == pytest.approx(np.linalg.norm(nearest.x - start), rel=1e-2)


def test_symmetric_distance_of_a_sideways_camera_is_the_row_difference():
    essential = epipolar.essential_matrix(np.eye(3), np.array([1.0, 0, 0]))
    ref, query = np.array([[0.1, 0.2]]), np.array([[0.3, 0.21]])
    distance = epipolar.symmetric_distance_px(ref, query, essential, 500.0, 300.0)
    np.testing.assert_allclose(distance, [(5.0 + 3.0) / 2])


def test_rotation_distance_of_a_shifted_point():
    ref, query = np.array([[0.12, 0.0]]), np.array([[0.1, 0.0]])
    distance = epipolar.rotation_distance_px(ref, query, np.eye(3), 500.0, 500.0)
    np.testing.assert_allclose(distance, [10.0])


def test_symmetric_distance_of_a_turned_camera_is_that_to_the_drawn_lines():
    rotation, translation = exp(np.array([0.1, -0.2, 0.3])), np.array([1.0, 0.2, -0.7])
    query = points(6)
    ref_rays = rays(query @ rotation.T + translation) + np.array([0.01, -0.02])
    query_rays = rays(query) + np.array([-0.015, 0.005])
    # The line through the epipole and a second point, which lies on the other camera's ray.
    to_query = [(rotation.T @ (np.append(r, 1) * 5 - translation)) for r in ref_rays]
    to_ref = [rotation @ (np.append(r, 1) * 5) + translation for r in query_rays]
    epipole_ref, epipole_query = translation, -rotation.T @ translation

    def distance(point, epipole, other):
        epipole, other = epipole[:2] / epipole[2], other[:2] / other[2]
        along = (other - epipole) / np.linalg.norm(other - epipole)
        across = point - epipole
        return abs(along[0] * across[1] - along[1] * across[0])

    expected = [
        (500 * distance(r, epipole_ref, a) + 300 * distance(q, epipole_query, b)) / 2
        for r, q, a, b in zip(ref_rays, query_rays, to_ref, to_query, strict=True)
    ]
    essential = 3 * epipolar.essential_matrix(rotation, translation)  # its scale has no meaning
    found = epipolar.symmetric_distance_px(ref_rays, query_rays, essential, 500.0, 300.0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_rotation_distance_of_a_turned_camera():
    rotation = exp(np.array([0.3, -0.4, 0.2]))
    query = points(6)
    turned, query_rays = rays(query @ rotation.T), rays(query)
    exact = epipolar.rotation_distance_px(turned, query_rays, rotation, 500.0, 300.0)
    np.testing.assert_allclose(exact, 0, atol=1e-9)
    moved = query_rays + np.array([0.003, 0.004])
    back = rays(np.column_stack((moved, np.ones(6))) @ rotation.T)
    expected = (500 * np.linalg.norm(back - turned, axis=1) + 300 * 0.005) / 2
    found = epipolar.rotation_distance_px(turned, moved, rotation, 500.0, 300.0)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
