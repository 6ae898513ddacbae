"""Synthetic two-view scenes with known motion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from superglue_ros.geometry.camera import Camera, camera_from_info
from superglue_ros.geometry.rotation import exp


@dataclass(frozen=True)
class Scene:
    """Matches of two views with their true motion, depths and which of them are right."""

    ref: np.ndarray
    query: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    depth: np.ndarray
    right: np.ndarray
    camera_ref: Camera
    camera_query: Camera

    @property
    def views(self) -> tuple[np.ndarray, np.ndarray, Camera, Camera]:
        return self.ref, self.query, self.camera_ref, self.camera_query


CAMERA = camera_from_info(640, 480, [500.0, 0, 320, 0, 500, 240, 0, 0, 1], [-0.2, 0.05, 0, 0, 0])


def make_scene(
    seed: int = 0,
    count: int = 200,
    turn: tuple[float, float, float] = (0.02, 0.1, -0.03),
    move: tuple[float, float, float] = (0.4, 0.05, 0.15),
    noise: float = 0.5,
    outliers: float = 0.2,
    planar: bool = False,
    camera_ref: Camera = CAMERA,
    camera_query: Camera = CAMERA,
) -> Scene:
    rng = np.random.default_rng(seed)
    rotation, translation = exp(np.array(turn)), np.array(move)
    size_ref = np.array([camera_ref.width, camera_ref.height])
    size_query = np.array([camera_query.width, camera_query.height])
    ref = rng.uniform(0, size_ref - 1, (8 * count, 2))
    rays = np.column_stack((camera_ref.rays(ref), np.ones(len(ref))))
    if planar:
        depth = 4 / (rays @ np.array([0.25, 0.1, 1.0]))
    else:
        depth = rng.uniform(2, 8, len(ref))
    query = camera_query.project((rays * depth[:, None] - translation) @ rotation)
    seen = (query >= 0).all(axis=1) & (query <= size_query - 1).all(axis=1)
    chosen = np.flatnonzero(seen)[:count]
    assert len(chosen) == count, "the scene's views hardly overlap"
    ref, query, depth = ref[chosen], query[chosen], depth[chosen]
    right = np.arange(count) >= round(outliers * count)
    query[~right] = rng.uniform(0, size_query - 1, ((~right).sum(), 2))
    ref = ref + rng.normal(0, noise, ref.shape)
    query = query + rng.normal(0, noise, query.shape)
    return Scene(ref, query, rotation, translation, depth, right, camera_ref, camera_query)


@pytest.fixture
def scene() -> Callable[..., Scene]:
    return make_scene
