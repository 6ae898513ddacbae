"""What is adjusted together, and what is held, by the landmarks that frames share."""

from __future__ import annotations

import numpy as np

from superglue_ros.back_end.covisibility import keep_in_place, neighbourhood
from superglue_ros.back_end.scene import Observation, Scene
from superglue_ros.types import FrameId


def corridor(frames: int, view: int = 4) -> Scene:
    """Frame i sees the landmarks i to i + view - 1; all of them have a position."""
    scene = Scene()
    for number in range(frames):
        scene.poses[FrameId(number)] = np.eye(4)
        for track in range(number, number + view):
            scene.observe(FrameId(number), track, Observation(np.zeros(2), 0.001))
            scene.landmarks[track] = np.zeros(3)
    return scene


def numbers(frames) -> list[int]:
    return [frame.id for frame in frames]


def test_the_frames_that_share_most_are_held():
    scene = corridor(10)
    assert numbers(keep_in_place(scene, [FrameId(5), FrameId(6)], 3)) == [7, 4, 8]
    scene.landmarks.clear()
    assert keep_in_place(scene, [FrameId(5)], 3) == []


def test_a_neighbourhood_grows_from_both_ends_of_a_loop():
    scene = corridor(20)
    ends = [FrameId(15), FrameId(2)]
    assert numbers(neighbourhood(scene, ends, 6)) == [15, 2, 16, 14, 3, 1]
    assert numbers(neighbourhood(scene, ends, 1)) == [15]


def test_a_neighbourhood_ends_where_nothing_is_shared():
    scene = corridor(20)
    scene.discard(range(8, 14))
    found = neighbourhood(scene, [FrameId(0)], 30)
    assert set(numbers(found)) == set(range(8))
