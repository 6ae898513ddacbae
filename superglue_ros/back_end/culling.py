"""Frames that add nothing leave the map, so that memory and time depend on the place, not the run.

A frame goes if nearly all of its landmarks are seen by at least three others (Mur-Artal et al.,
"ORB-SLAM", IEEE T-RO 2015, section VI.E). Its observations and edges go with it; its pose stays in
the trajectory and moves with the frame that shares most landmarks with it. A frame that is matched
again later returns.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from superglue_ros.back_end.scene import Attached, Edge, Scene, inverse
from superglue_ros.types import FrameId

_OTHERS = 3  # frames that see a landmark that can spare one


def cull(scene: Scene, candidates: Collection[FrameId], share: float) -> int:
    """Remove those of ``candidates`` of whose landmarks ``share`` are covered by others.

    One after another, so that none relies on a frame that went before it. Returns their number.
    """
    removed = 0
    for frame in candidates:
        if frame in scene.poses and _redundant(scene, frame, share):
            anchor = _anchor(scene, frame)
            if anchor is not None:
                _remove(scene, frame, anchor)
                removed += 1
    return removed


def _redundant(scene: Scene, frame: FrameId, share: float) -> bool:
    seen = [track for track in scene.tracks_of.get(frame, ()) if track in scene.landmarks]
    covered = sum(len(scene.placed_views(track)) > _OTHERS for track in seen)
    return bool(seen) and covered >= share * len(seen)


def _anchor(scene: Scene, frame: FrameId) -> FrameId | None:
    """The frame joined to this one by an edge that shares most landmarks with it."""
    tracks = scene.tracks_of[frame]
    joined = [edge.query for edge in _outwards(scene, frame)]
    return max(joined, key=lambda one: len(tracks & scene.tracks_of.get(one, set())), default=None)


def _outwards(scene: Scene, frame: FrameId) -> list[Edge]:
    """The edges between a frame and others that have a pose, each as seen from it."""
    return [
        edge if edge.reference == frame else edge.inverse()
        for edge in scene.edges
        if frame in (edge.reference, edge.query)
        and edge.reference in scene.poses
        and edge.query in scene.poses
    ]


def _remove(scene: Scene, frame: FrameId, anchor: FrameId) -> None:
    outwards = _outwards(scene, frame)
    scene.edges = [edge for edge in scene.edges if frame not in (edge.reference, edge.query)]
    # What the frame held together stays together.
    joined = {(edge.query, _is_metric(edge)) for edge in _outwards(scene, anchor)}
    to_frame = max((e for e in outwards if e.query == anchor), key=_is_metric).inverse()
    for edge in outwards:
        around = to_frame.then(edge)
        known = {(edge.query, True), (edge.query, _is_metric(around))}
        if edge.query != anchor and joined.isdisjoint(known):
            scene.edges.append(around)
            joined.add((edge.query, _is_metric(around)))
    for track in tuple(scene.tracks_of[frame]):
        scene.forget(frame, track)
    del scene.tracks_of[frame]
    scene.motions.pop(frame, None)
    step = np.asarray(inverse(scene.poses[anchor]) @ scene.poses.pop(frame))
    for other, one in scene.attached.items():
        if one.anchor == frame:
            scene.attached[other] = Attached(anchor, step @ one.pose)
    scene.attached[frame] = Attached(anchor, step)


def _is_metric(edge: Edge) -> bool:
    return edge.metric is not None
