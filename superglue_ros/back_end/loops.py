"""Loop closing: distributes the drift by a pose graph of similarities on GTSAM.

A monocular map also drifts in scale, so every camera has its own scale (Strasdat et al., RSS
2010); in a metric map the scales are fixed at one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import gtsam
import numpy as np

from superglue_ros.back_end.scene import Array, Edge, Scene, in_camera, inverse, pose_of, scaled
from superglue_ros.types import FrameId

# Standard deviations of one edge: rotation [rad], translation (part of the median step), log scale.
_ROTATION, _TRANSLATION, _SCALE = 0.01, 0.1, 0.05
_METRIC_SCALE = 1e-4
_LEAST_SCALE = 0.02  # of a loop: nearby landmarks share their errors
_LEAST_RATIOS = 5
_MAD_TO_SIGMA, _MEDIAN_EFFICIENCY = 1.4826, 1.2533  # of a Gaussian
_BRIDGE = 100.0  # a guess over a gap in tracking is less certain by this factor
_ITERATIONS = 50


@dataclass(frozen=True)
class Scale:
    """How much larger the old map is than the new one, and the standard deviation of its logarithm.

    By default it is unknown: the pose graph estimates it.
    """

    factor: float = 1.0
    log_sigma: float = 10.0


@dataclass(frozen=True, eq=False)
class Loop:
    """``query`` should be at ``pose`` (4, 4), its surroundings ``scale`` times as large."""

    reference: FrameId
    query: FrameId
    pose: Array
    scale: Scale


def scale_of(scene: Scene, query: FrameId, pose: Array, merged: dict[int, int]) -> Scale:
    """How much larger the old map is than the new one: the median ratio of landmark depths.

    ``merged`` maps landmarks of the new map to the same ones of the old map, in which ``query`` is
    at ``pose``. Its standard deviation is that of a median, from the spread of
    the ratios; with fewer than five common landmarks it is unknown.
    """
    both = [
        (scene.landmarks[retired], scene.landmarks[surviving])
        for retired, surviving in merged.items()
        if retired in scene.landmarks and surviving in scene.landmarks
    ]
    if len(both) < _LEAST_RATIOS:
        return Scale()
    recent, former = np.array(both).transpose(1, 0, 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = in_camera(pose, former)[:, 2] / in_camera(scene.poses[query], recent)[:, 2]
    logs = np.log(ratios[np.isfinite(ratios) & (ratios > 0)])
    if len(logs) < _LEAST_RATIOS:
        return Scale()
    middle = float(np.median(logs))
    deviation = _MAD_TO_SIGMA * float(np.median(np.abs(logs - middle)))
    certain = _MEDIAN_EFFICIENCY * deviation / np.sqrt(len(logs))
    return Scale(float(np.exp(middle)), max(certain, _LEAST_SCALE))


def close(scene: Scene, loop: Loop) -> None:
    """Distribute the loop error over all poses; landmarks move with the first frame seeing them."""
    frames = list(scene.poses)
    key = {frame: i for i, frame in enumerate(frames)}
    graph = gtsam.NonlinearFactorGraph()
    values = gtsam.Values()
    similarities = {f: _similarity(scene.poses[f]) for f in frames}
    for frame in frames:
        values.insert(key[frame], similarities[frame])
    held = gtsam.noiseModel.Isotropic.Sigma(7, 1e-6)
    graph.add(gtsam.PriorFactorSimilarity3(key[frames[0]], similarities[frames[0]], held))
    step = _median_step(scene)
    for edge in scene.edges:
        if edge.reference in key and edge.query in key:
            relative = similarities[edge.reference].inverse() * similarities[edge.query]
            noise = _noise(step, scene.metric, edge.bridge)
            ends = key[edge.reference], key[edge.query]
            graph.add(gtsam.BetweenFactorSimilarity3(*ends, relative, noise))
    target = similarities[loop.reference].inverse() * _similarity(loop.pose, loop.scale.factor)
    noise = _noise(step, scene.metric, bridge=False, scale=loop.scale.log_sigma)
    ends = key[loop.reference], key[loop.query]
    graph.add(gtsam.BetweenFactorSimilarity3(*ends, target, noise))
    parameters = gtsam.LevenbergMarquardtParams()
    parameters.setMaxIterations(_ITERATIONS)
    optimised = gtsam.LevenbergMarquardtOptimizer(graph, values, parameters).optimize()
    moved = {frame: optimised.atSimilarity3(key[frame]) for frame in frames}
    _move_landmarks(scene, similarities, moved)
    for frame in frames:
        new, old = moved[frame], scene.poses[frame]
        scene.poses[frame] = pose_of(new.rotation().matrix(), new.scale() * new.translation())
        if frame in scene.motions:
            turn = scene.poses[frame][:3, :3] @ old[:3, :3].T
            motion = scene.motions[frame]
            scene.motions[frame] = replace(motion, velocity=turn @ motion.velocity)
    for frame, one in scene.attached.items():
        pose = scaled(one.pose, moved[one.anchor].scale())
        scene.attached[frame] = replace(one, pose=pose)


def _similarity(pose: Array, scale: float = 1.0) -> gtsam.Similarity3:
    """The similarity p -> scale R p + t; GTSAM keeps t divided by the scale."""
    return gtsam.Similarity3(pose[:3, :3], pose[:3, 3] / scale, scale)


def _noise(step: float, metric: bool, bridge: bool, scale: float = _SCALE) -> gtsam.noiseModel.Base:
    sigmas = np.array([_ROTATION] * 3 + [_TRANSLATION * step] * 3 + [scale])
    if bridge:
        sigmas *= _BRIDGE
    if metric:
        sigmas[6] = _METRIC_SCALE
    return gtsam.noiseModel.Diagonal.Sigmas(sigmas)


def _median_step(scene: Scene) -> float:
    lengths = [_length(scene, e) for e in scene.edges if e.reference in scene.poses]
    moving = [length for length in lengths if length > 0]
    return float(np.median(moving)) if moving else 1.0


def _length(scene: Scene, edge: Edge) -> float:
    if edge.query not in scene.poses:
        return 0.0
    relative = inverse(scene.poses[edge.reference]) @ scene.poses[edge.query]
    return float(np.linalg.norm(relative[:3, 3]))


def _move_landmarks(
    scene: Scene, before: dict[FrameId, gtsam.Similarity3], after: dict[FrameId, gtsam.Similarity3]
) -> None:
    for track, point in scene.landmarks.items():
        anchor = next(iter(scene.placed_views(track)), None)
        if anchor is not None:
            local = before[anchor].inverse().transformFrom(point)
            scene.landmarks[track] = after[anchor].transformFrom(local)
