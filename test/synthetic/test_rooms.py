"""Rooms and the cameras in them."""

from __future__ import annotations

import numpy as np
import pytest

from superglue_ros.synthetic.rendering import Texture, render
from superglue_ros.synthetic.rooms import box, is_free, look_at, random_room, random_views

MATRIX = np.array([[70.0, 0, 39.5], [0, 70.0, 29.5], [0, 0, 1]])
GREY = Texture(np.full((16, 16), 128, np.uint8))


def test_look_at_is_a_rotation_that_faces_the_target() -> None:
    position, target = np.array([1.0, 2, 3]), np.array([4.0, -1, 2])
    for roll in (0.0, 0.7):
        pose = look_at(position, target, roll)
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)
        in_camera = pose[:3, :3].T @ (target - position)
        np.testing.assert_allclose(in_camera[:2], 0, atol=1e-12)
        assert in_camera[2] > 0
    upright = look_at(position, target)
    assert (upright[:3, :3].T @ np.array([0, 0, 1]))[1] < 0  # up is towards the image's top


@pytest.mark.parametrize("seed", range(8))
def test_rooms_are_closed_and_views_free(seed: int) -> None:
    """From any free position every ray ends on a wall or box, not nearer than the clearance."""
    rng = np.random.default_rng(seed)
    room = random_room(rng, [GREY])
    for pose in random_views(rng, room, 3, max_roll=3.0):
        assert is_free(room, pose[:3, 3])
        _, depth = render(room, MATRIX, 80, 60, pose)
        assert (depth > 0).all()
        assert depth.max() < np.linalg.norm(room.bounds[1])


def test_views_overlap() -> None:
    """Cameras of one call look at the same place: its point is in every image."""
    rng = np.random.default_rng(1)
    room = random_room(rng, [GREY])
    for _ in range(20):
        first, second = random_views(rng, room, 2)
        distance = np.linalg.norm(first[:3, 3] - second[:3, 3])
        assert 0 < distance < 0.6 * np.linalg.norm(room.bounds[1])
        assert first[:3, 2] @ second[:3, 2] > 0.3


def test_box_shows_a_face_from_every_side() -> None:
    centre, size = np.array([0.0, 0, 0]), np.array([1.0, 1.0, 1.0])
    faces = box([GREY], centre, size, yaw=0.0)
    assert len(faces) == 6
    for direction in np.vstack([np.eye(3), -np.eye(3)]):
        seen = [
            face
            for face in faces
            if np.cross(face.edge_u, face.edge_v) @ (face.origin - 3 * direction) > 1e-9
        ]
        facing = [f for f in seen if abs(np.cross(f.edge_u, f.edge_v) @ direction) > 0.9]
        assert len(facing) == 1
        middle = facing[0].origin + 0.5 * (facing[0].edge_u + facing[0].edge_v)
        np.testing.assert_allclose(middle, 0.5 * direction, atol=1e-12)
