"""The pose of one image in a map: retrieval, matches with the map's images, PnP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.image import resize
from superglue_ros.errors import CalibrationError
from superglue_ros.geometry.absolute_pose import AbsolutePose, absolute_pose
from superglue_ros.geometry.camera import Camera
from superglue_ros.geometry.refinement import make_refiner
from superglue_ros.localization.scene_map import EncodedMap, MapImage
from superglue_ros.mapping.keyframes import Candidate, Keyframe
from superglue_ros.mapping.refinement import refined
from superglue_ros.mapping.verification import sigma_of_matches
from superglue_ros.rig import Pairing, Rig
from superglue_ros.types import Correspondences, FrameId, MatchKind

Array = NDArray[np.float64]

BATCH = 8
_LEAST_SIGMA_PX = 0.05


@dataclass(frozen=True, eq=False)
class Localized:
    """Where an image was taken; ``pose`` None where it could not be found, ``reason`` says why.

    ``pose`` maps camera points to the map. ``retrieved``: the images of the map it was matched
    with; ``points``: how many of its keypoints were matched to points of the map.
    """

    pose: AbsolutePose | None
    reason: str
    retrieved: tuple[str, ...]
    points: int

    @property
    def T_map_camera(self) -> Array | None:
        """(4, 4), or None."""
        if self.pose is None:
            return None
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = self.pose.rotation, self.pose.translation
        return matrix


@dataclass(frozen=True, eq=False)
class PointMatches:
    """``keypoints`` (K,) of the query, ``point_ids`` (K,) of the map, ``scores`` (K,), ``pixels``
    (K, 2) of the query as refined, and their ``sigma_px`` (K,).
    """

    keypoints: NDArray[np.int64]
    point_ids: NDArray[np.int64]
    scores: Array
    pixels: Array
    sigma_px: Array


class Localizer:
    """Localizes images in a map. Not thread-safe.

    ``retrieve``: how many images of the map a query is matched with.
    """

    def __init__(self, encoded: EncodedMap, rig: Rig, retrieve: int = 10) -> None:
        self._map, self._rig, self._retrieve = encoded, rig, retrieve

    def localize(self, image: NDArray[np.uint8], camera: Camera) -> Localized:
        """The pose of a grey (H, W) image. Raises :class:`CalibrationError` on another size."""
        height, width = image.shape
        if (width, height) != (camera.width, camera.height):
            raise CalibrationError(
                f"the query is {width}x{height} pixels, its calibration is for "
                f"{camera.width}x{camera.height}"
            )
        query = self._encoded(image)
        names = self._map.most_similar(query.global_descriptor, self._retrieve)
        if not names:
            return Localized(None, "no image of the map is like it: it has no keypoints", (), 0)
        found = joined(list(self._matches(names, query)))
        if not len(found.keypoints):
            return Localized(None, "no match with a point of the map", tuple(names), 0)
        points = np.stack([self._map.scene.points[int(n)] for n in found.point_ids])
        config = self._rig.config.geometry
        pose = absolute_pose(points, found.pixels, found.sigma_px, camera, config)
        count = len(points)
        reason = "" if pose else f"too few of {count} matches with the map agree on a pose"
        return Localized(pose, reason, tuple(names), count)

    def _encoded(self, image: NDArray[np.uint8]) -> Keyframe:
        config = self._rig.config
        features = self._rig.front_end.extract(image)
        refine = config.refinement != "none" and not self._rig.front_end.exact
        pixels = resize(image, config.front_end.max_size) if refine else None
        raw = Keyframe(id=FrameId(id=0), features=features, prepared=None, resized=pixels)
        return self._rig.prepare(raw)

    def _matches(self, names: Sequence[str], query: Keyframe) -> Iterator[PointMatches]:
        for start in range(0, len(names), BATCH):
            part = names[start : start + BATCH]
            pairings = [Pairing(Candidate(self._map[n], MatchKind.RELOCALISE), query) for n in part]
            matched = self._rig.match_pairings(pairings)
            for name, pairing, found in zip(part, pairings, matched, strict=True):
                yield self._with_points(self._map.scene.images[name], pairing, found)

    def _with_points(
        self, image: MapImage, pairing: Pairing, found: Correspondences
    ) -> PointMatches:
        """The matches that lead to a point of the map, refined against where the map has it."""
        have = image.point_ids[found.index_ref] >= 0
        kept = Correspondences(
            found.index_ref[have], found.index_query[have], found.scores[have], found.turns
        )
        reference, query = pairing.candidate.keyframe, pairing.query
        better = refined(
            make_refiner(self._rig.config.refinement),
            reference.resized,
            query.resized,
            image.keypoints[kept.index_ref],
            query.features.keypoints[kept.index_query],
            kept.turns,
        )
        sigma = better.sigma_or(sigma_of_matches(reference.features, query.features, kept))
        return PointMatches(
            keypoints=kept.index_query.astype(np.int64),
            point_ids=image.point_ids[kept.index_ref],
            scores=kept.scores.astype(np.float64),
            pixels=better.points.astype(np.float64),
            sigma_px=np.maximum(sigma.astype(np.float64), _LEAST_SIGMA_PX),
        )


def joined(parts: Sequence[PointMatches]) -> PointMatches:
    """One point for each keypoint, the one with the largest sum of scores, and its mean pixel.

    The mean over the images is weighted by the variances; its own is not smaller than that of the
    best image, because they share the query's error.
    """
    names = ("keypoints", "point_ids", "scores", "pixels", "sigma_px")
    keypoints, ids, scores, pixels, sigma = (
        np.concatenate([getattr(part, name) for part in parts]) for name in names
    )
    pairs, group = np.unique(np.stack([keypoints, ids], axis=1), axis=0, return_inverse=True)
    group = group.ravel()
    count = len(pairs)
    total = np.bincount(group, scores, count)
    weight = 1 / sigma**2
    sums = np.bincount(group, weight, count)
    mean = np.stack(
        [np.bincount(group, weight * pixels[:, axis], count) / sums for axis in (0, 1)], axis=1
    )
    best_sigma = np.full(count, np.inf)
    np.minimum.at(best_sigma, group, sigma)
    order = np.lexsort((-total, pairs[:, 0]))
    _, first = np.unique(pairs[order, 0], return_index=True)
    chosen = order[first]
    return PointMatches(
        keypoints=pairs[chosen, 0],
        point_ids=pairs[chosen, 1],
        scores=np.asarray(total[chosen], np.float64),
        pixels=mean[chosen].reshape(-1, 2),
        sigma_px=best_sigma[chosen],
    )
