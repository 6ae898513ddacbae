"""Which frames see the same landmarks: what is adjusted together, and what is held meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

from superglue_ros.back_end.scene import Scene
from superglue_ros.types import FrameId


def keep_in_place(scene: Scene, frames: Sequence[FrameId], count: int) -> list[FrameId]:
    """The ``count`` frames outside ``frames`` that share the most landmarks with them."""
    return _ranked(scene, frames)[:count]


def neighbourhood(scene: Scene, seeds: Sequence[FrameId], count: int) -> list[FrameId]:
    """At most ``count`` frames: ``seeds``, then ring after ring around them.

    The next ring are the frames that share landmarks with the last one, those with most first.
    """
    ring = list(seeds)[:count]
    found = list(ring)
    while ring and len(found) < count:
        known = set(found)
        beyond = [frame for frame in _ranked(scene, ring) if frame not in known]
        ring = beyond[: count - len(found)]
        found += ring
    return found


def _ranked(scene: Scene, frames: Sequence[FrameId]) -> list[FrameId]:
    """The frames outside ``frames`` that share landmarks with them, those with most first."""
    inside = set(frames)
    shared: dict[FrameId, int] = {}
    for track in scene.tracks_seen_by(frames):
        if track in scene.landmarks:
            for frame in scene.placed_views(track):
                if frame not in inside:
                    shared[frame] = shared.get(frame, 0) + 1
    order = {frame: i for i, frame in enumerate(scene.poses)}
    return sorted(shared, key=lambda frame: (-shared[frame], -order[frame]))
