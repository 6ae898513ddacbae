"""The place of a frame in a map whose keyframes have poses.

A keyframe with depth and a pose gives a frame that is matched to it the pose ``T_map_camera``: the
metric relative pose (PnP among the keyframe's points) behind the keyframe's own, their errors added
up. Frames that become keyframes take their pose along and so join the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from superglue_ros.geometry.epipolar import homogeneous
from superglue_ros.geometry.rotation import angle
from superglue_ros.geometry.uncertain_pose import UncertainPose
from superglue_ros.mapping.keyframes import Candidate, Keyframe, KeyframeStore
from superglue_ros.mapping.verification import FramePair
from superglue_ros.types import PoseStatus, known_depth

_WIDEST_RAD = 1.0  # views farther apart are not compared


@dataclass(frozen=True, eq=False)
class Placement:
    """``pose`` is ``T_map_camera``, or None and ``reason`` says why.

    Both are empty where no keyframe has a pose: there is no map to be placed in.
    """

    pose: UncertainPose | None = None
    reason: str = ""


def place(pairs: Sequence[FramePair], keyframes: KeyframeStore) -> Placement:
    """Where the query of ``pairs`` is in the map: the least uncertain position that a pair gives.

    Pairs are not averaged: they share the errors of the query's keypoints.
    """
    if not keyframes.placed:
        return Placement()
    tracked = [pair for pair in pairs if pair.tracked]
    if not tracked:
        return Placement(reason="no keyframe is recognised")
    if not any(pair.calibrated for pair in tracked):
        return Placement(reason="the camera is not calibrated")
    known = [(pair, keyframes[pair.matches.reference].pose) for pair in tracked]
    if all(pose is None for _, pose in known):
        return Placement(reason="the keyframes that it matches have no pose in the map")
    poses = [pose @ relative(pair) for pair, pose in known if pose is not None and _metric(pair)]
    if not poses:
        return Placement(
            reason="the scale is unknown: neither frame nor keyframe has depth where they match"
        )
    return Placement(min(poses, key=lambda pose: float(np.trace(pose.covariance[:3, :3]))))


def relative(pair: FramePair) -> UncertainPose:
    """``T_ref_query`` of a pair."""
    return UncertainPose(pair.pose.rotation, pair.pose.translation, pair.pose.covariance)


def reachable(
    query: UncertainPose, pairs: Sequence[FramePair], keyframes: KeyframeStore
) -> dict[Keyframe, UncertainPose]:
    """The poses of those keyframes without one that metric pairs connect with a placed query."""
    found = {}
    for pair in pairs:
        reference = keyframes[pair.matches.reference]
        if reference.pose is None and pair.tracked and _metric(pair):
            found[reference] = query @ relative(pair).inverse()
    return found


def with_depth_of(
    query: Keyframe, pairs: Sequence[FramePair], keyframes: KeyframeStore
) -> Keyframe:
    """The query, where it has no depth, with the depth of the map's points at its keypoints.

    So that frames can be placed relative to a keyframe of a camera without depth, as far as its
    view overlaps with that of keyframes that have depth.
    """
    if query.depth is not None:
        return query
    depth = np.zeros(len(query.features))
    for pair in sorted(pairs, key=lambda pair: pair.pose.num_inliers):
        reference = keyframes[pair.matches.reference]
        if reference.depth is None or not (pair.tracked and _metric(pair)):
            continue
        assert reference.camera is not None  # or the pair had no pose
        matches = pair.matches
        good = matches.inlier & (reference.depth[matches.index_ref] > 0)
        rays = homogeneous(reference.camera.rays(matches.points_ref[good]))
        points = rays * reference.depth[matches.index_ref[good]][:, None]
        depth[matches.index_query[good]] = relative(pair).back(points)[:, 2]
    return replace(query, depth=known_depth(depth)) if depth.any() else query


def candidates_in_map(
    query: Keyframe, pose: UncertainPose | None, keyframes: KeyframeStore
) -> list[Candidate]:
    """Keyframes with pose and depth, those first whose view is most like the query's.

    With the query's ``pose`` the views less than a radian apart, the nearest first; without one
    all, by the similarity of global descriptors.
    """
    ranked = [
        one
        for one in keyframes.relocalisation_candidates(query.global_descriptor)
        if one.keyframe.pose is not None and one.keyframe.depth is not None
    ]
    if pose is None:
        return ranked
    apart = np.array([_apart(one.keyframe, pose) for one in ranked])
    return [ranked[k] for k in np.argsort(apart, kind="stable") if apart[k] < _WIDEST_RAD]


def _apart(keyframe: Keyframe, pose: UncertainPose) -> float:
    """How far the keyframe's view and that from ``pose`` are apart, in radians.

    The angle between them, and their distance as an angle at the median depth of the keyframe's
    points: how far these move in the image.
    """
    assert keyframe.pose is not None
    assert keyframe.depth is not None
    known = keyframe.depth[keyframe.depth > 0]
    if not len(known):
        return np.inf
    between = pose.inverse() @ keyframe.pose
    distance = float(np.linalg.norm(between.translation))
    return angle(between.rotation) + distance / float(np.median(known))


def _metric(pair: FramePair) -> bool:
    return pair.pose.status is PoseStatus.VALID and pair.pose.scale_known
