"""The scale of a young map, from its metric relative poses.

A metric map begins with its first pair, which may be a few millimetres long and as uncertain. As
long as longer ones do not say better, the map takes the scale that all of them say together.
Otherwise it would keep the first one: the frames that are held hold it, and metric poses that all
disagree with it look like outliers.
"""

from __future__ import annotations

import numpy as np

from superglue_ros.back_end.scene import Scene, inverse

_LEAST_LENGTH = 2.0  # standard deviations: shorter ones say nothing
_SURE = 0.02  # standard deviation of the scale, relative


class MetricScale:
    """Rescales a map until its scale is known to 2 %."""

    def __init__(self) -> None:
        self._sure = False

    def update(self, scene: Scene) -> None:
        """Rescale the scene to the median of its metric poses, weighted by their certainty."""
        if self._sure:
            return
        ratios, weights = [], []
        for edge in scene.edges:
            ends = edge.reference in scene.poses and edge.query in scene.poses
            if edge.metric is None or edge.covariance is None or not ends:
                continue
            step = inverse(scene.poses[edge.reference]) @ scene.poses[edge.query]
            length, here = (float(np.linalg.norm(pose[:3, 3])) for pose in (edge.metric, step))
            if length == 0 or here == 0:
                continue
            along = edge.metric[:3, 3] / length
            sigma = float(np.sqrt(along @ edge.covariance[:3, :3] @ along))
            if sigma > 0 and length > _LEAST_LENGTH * sigma:
                ratios.append(length / here)
                weights.append((length / sigma) ** 2)
        if not ratios:
            return
        order = np.argsort(ratios)
        total = np.cumsum(np.array(weights)[order])
        scene.rescale(ratios[order[np.searchsorted(total, total[-1] / 2)]])
        self._sure = float(total[-1]) > _SURE**-2
