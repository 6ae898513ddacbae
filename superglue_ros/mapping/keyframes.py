"""Keyframes: which frames are kept, which are matched against, and which are removed.

Three rules, each deterministic for a given input:

* **insertion** by matched share, image coverage and parallax to the reference keyframe;
* **selection**: the reference, those that share the most landmarks with it, loop candidates by
  global descriptor, and after tracking is lost all keyframes by falling similarity;
* **removal** of the most redundant keyframe once the map is full.

The reference is the keyframe that is tracked against: the newest, until relocalisation selects
another. There is none before the first frame, and none in a map that was loaded before a frame is
relocalised in it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.config import KeyframesConfig
from superglue_ros.data.image import Resized
from superglue_ros.errors import FeaturesError
from superglue_ros.geometry.camera import Camera
from superglue_ros.geometry.uncertain_pose import UncertainPose
from superglue_ros.mapping.tracks import relabelled
from superglue_ros.types import (
    MAX_DEPTH_M,
    NO_TRACK,
    Features,
    FloatArray,
    FrameId,
    IntArray,
    MatchKind,
)

COVERAGE_CELLS = 8  # the image is cut into 8 x 8 cells
REDUNDANT_VIEWS = 2  # a landmark seen by this many other keyframes survives without this one


@dataclass(frozen=True, eq=False)
class Keyframe:
    """A frame that later frames are matched against, with everything computed once for it.

    ``prepared`` is the matcher's encoding of the features; ``global_descriptor`` (G,) float32 of
    unit length, or None where the features carry no descriptors; ``depth`` (N,) float32 metres at
    the keypoints, 0 = unknown, or None; ``depth_sigma`` (N,) float32 metres its standard deviation,
    None = ``geometry.depth_noise`` of the depth. ``resized``: the image at the network's size, to
    refine matches by; None where it is not known. ``pose``: ``T_map_camera`` in metres, None where
    it is not known. ``turning`` (3,): angular velocity rad/s in the camera's axes, None where it is
    not known.
    """

    id: FrameId
    features: Features
    prepared: Any
    camera: Camera | None = None
    depth: FloatArray | None = None
    global_descriptor: FloatArray | None = None
    rectified: bool = False
    depth_sigma: FloatArray | None = None
    resized: Resized | None = None
    pose: UncertainPose | None = None
    turning: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        """Raises :class:`FeaturesError` on depths that are no distances, one per keypoint."""
        for name in ("depth", "depth_sigma"):
            values = getattr(self, name)
            if values is None:
                continue
            if values.shape != (len(self.features),):
                raise FeaturesError(
                    f"{name} has shape {values.shape} for {len(self.features)} keypoints"
                )
            if not ((values >= 0) & (values <= MAX_DEPTH_M)).all():
                raise FeaturesError(
                    f"{name} has values outside of 0 to {MAX_DEPTH_M:g} m: give 0 where unknown"
                )

    def best(self, limit: int) -> tuple[Keyframe, NDArray[np.intp]]:
        """The frame with its ``limit`` best features, not prepared, and their indices here."""
        features, places = self.features.best(limit)
        depth, sigma = self.depth, self.depth_sigma
        chosen = dataclasses.replace(
            self,
            features=features,
            prepared=None,
            depth=None if depth is None else depth[places],
            depth_sigma=None if sigma is None else sigma[places],
        )
        return chosen, places


@dataclass(frozen=True, eq=False)
class Candidate:
    """A keyframe to match the current frame against, and why."""

    keyframe: Keyframe
    kind: MatchKind


@dataclass(frozen=True)
class Overlap:
    """How much of the reference keyframe the current frame still sees.

    ``matches`` counts correspondences; ``share`` of the keyframe's keypoints matched, [0, 1];
    ``coverage``: of the image cells that hold keypoints of the current frame, the part that holds
    a matched one, [0, 1]; ``parallax_rad`` median angle between matched rays after rotation.
    """

    matches: int
    share: float
    coverage: float
    parallax_rad: float

    @classmethod
    def measure(
        cls, reference: Features, query: Features, index_query: IntArray, parallax_rad: float
    ) -> Overlap:
        """From the matched keypoints ``index_query`` (K,) of the current frame."""
        matched = len(index_query)
        occupied = np.unique(_cells(query))
        covered = np.unique(_cells(query)[index_query])
        return cls(
            matches=matched,
            share=matched / max(len(reference), 1),
            coverage=len(covered) / max(len(occupied), 1),
            parallax_rad=float(np.nan_to_num(parallax_rad)),
        )


class KeyframeStore:
    """A bounded map of keyframes, oldest first."""

    def __init__(self, config: KeyframesConfig) -> None:
        self.config = config
        self._keyframes: dict[FrameId, Keyframe] = {}
        self._parts: dict[FrameId, int] = {}  # keyframes of one part are connected by poses
        self._reference: FrameId | None = None
        self._previous: Keyframe | None = None

    def __len__(self) -> int:
        return len(self._keyframes)

    def __iter__(self) -> Iterator[Keyframe]:
        return iter(tuple(self._keyframes.values()))

    def __contains__(self, frame: FrameId) -> bool:
        return frame in self._keyframes

    def __getitem__(self, frame: FrameId) -> Keyframe:
        """A keyframe, or the frame before the current one."""
        previous = self._previous
        if previous is not None and previous.id == frame and frame not in self._keyframes:
            return previous
        return self._keyframes[frame]

    @property
    def newest(self) -> Keyframe | None:
        """The keyframe inserted last."""
        return next(reversed(self._keyframes.values()), None)

    @property
    def reference(self) -> Keyframe | None:
        """The keyframe that is tracked against."""
        return None if self._reference is None else self._keyframes[self._reference]

    @property
    def placed(self) -> int:
        """How many keyframes have a pose in the map."""
        return sum(keyframe.pose is not None for keyframe in self)

    def part(self, frame: FrameId) -> int:
        """The part of the map that a keyframe is in; within one, poses connect all keyframes."""
        return self._parts[frame]

    # -- selection ---------------------------------------------------------------------------

    def neighbours(self) -> tuple[Candidate, ...]:
        """The reference, then the most covisible keyframes, then the previous frame.

        ``keyframes.window`` bounds the keyframes. The previous frame is added, of kind
        SEQUENTIAL, if ``keyframes.sequential`` is set and it is not a keyframe itself.
        """
        if self.reference is None:
            return ()
        chosen = [self.reference, *self.covisible(self.reference.id)][: self.config.window]
        if len(chosen) < self.config.window:
            recent = [k for k in reversed(self._keyframes.values()) if k not in chosen]
            chosen += recent[: self.config.window - len(chosen)]
        found = [Candidate(keyframe, MatchKind.KEYFRAME) for keyframe in chosen]
        if self._previous is not None and self._previous.id not in self._keyframes:
            found.append(Candidate(self._previous, MatchKind.SEQUENTIAL))
        return tuple(found)

    def loop_candidates(
        self, global_descriptor: FloatArray | None, awaited: Collection[FrameId] = ()
    ) -> tuple[Candidate, ...]:
        """Loop candidates: keyframes that look like the current frame but are not tracked against.

        First those of ``awaited`` (see :mod:`superglue_ros.mapping.loops`), however they look.
        Excluded are those that share landmarks with the reference and, in the part of the map
        connected with it, the newest ``loop_min_gap`` keyframes. A candidate must be at least
        ``loop_similarity`` times as similar to the frame as the reference is: the reference shows
        the same place, so its similarity is the yardstick for views of one place.
        """
        reference = self.reference
        if reference is None or global_descriptor is None or self.config.loop_candidates == 0:
            return ()
        part = self._parts[reference.id]
        connected = [k.id for k in self if self._parts[k.id] == part]
        near = {k.id for k in self.covisible(reference.id)} | {reference.id}
        near.update(connected[-self.config.loop_min_gap :])
        far = [k for k in self if k.id not in near]
        least = self.config.loop_similarity * _similarity(reference, global_descriptor)
        ranked = _by_similarity([k for k in far if k.id not in awaited], global_descriptor)
        chosen = [k for k in far if k.id in awaited]
        chosen += [
            keyframe
            for similarity, keyframe in ranked[: self.config.loop_candidates]
            if similarity >= least
        ]
        return tuple(Candidate(keyframe, MatchKind.LOOP) for keyframe in chosen)

    def relocalisation_candidates(
        self, global_descriptor: FloatArray | None
    ) -> tuple[Candidate, ...]:
        """All keyframes, the most similar first; without global descriptors the newest first."""
        if global_descriptor is None:
            ordered = list(reversed(self._keyframes.values()))
        else:
            ordered = [keyframe for _, keyframe in _by_similarity(list(self), global_descriptor)]
        return tuple(Candidate(keyframe, MatchKind.RELOCALISE) for keyframe in ordered)

    def covisible(self, frame: FrameId) -> list[Keyframe]:
        """Keyframes that share landmarks with keyframe ``frame``, the most first."""
        mine = _tracks(self._keyframes[frame])
        shared = [
            (int(np.isin(_tracks(keyframe), mine).sum()), order, keyframe)
            for order, keyframe in enumerate(self)
            if keyframe.id != frame
        ]
        shared.sort(key=lambda entry: (-entry[0], -entry[1]))
        return [keyframe for count, _, keyframe in shared if count > 0]

    # -- insertion ---------------------------------------------------------------------------

    def should_insert(self, features: Features, overlap: Overlap | None) -> bool:
        """Whether the current frame becomes a keyframe, given its overlap with the reference.

        ``overlap`` is None where there is no reference yet. A frame with fewer than
        ``keyframes.min_keypoints`` keypoints never does: nothing could be matched against it.
        """
        config = self.config
        if len(features) < config.min_keypoints:
            return False
        if overlap is None:
            return True
        return (
            overlap.matches < config.min_matches
            or overlap.share < config.min_matched_share
            or overlap.coverage < config.min_coverage
            or overlap.parallax_rad > math.radians(config.max_parallax_deg)
        )

    def insert(
        self, keyframe: Keyframe, connected_to: Sequence[FrameId] = ()
    ) -> tuple[FrameId, ...]:
        """Keep ``keyframe``, make it the reference, and return the ids of those removed for it.

        ``connected_to``: the keyframes relative to which its pose is known. Without any it begins a
        new part of the map; connected to several parts, by a loop, it joins them.

        Raises :class:`FeaturesError` if the map has a keyframe of this id.
        """
        if keyframe.id in self._keyframes:
            raise FeaturesError(
                f"keyframe {keyframe.id.id} is already in the map: frame ids are never reused"
            )
        joined = {self._parts[frame] for frame in connected_to if frame in self._parts}
        part = min(joined, default=max(self._parts.values(), default=-1) + 1)
        self._parts = {frame: part if p in joined else p for frame, p in self._parts.items()}
        self._parts[keyframe.id] = part
        self._keyframes[keyframe.id] = keyframe
        self._reference = keyframe.id
        removed = []
        while len(self._keyframes) > self.config.max_keyframes:
            removed.append(self._most_redundant())
            del self._keyframes[removed[-1]], self._parts[removed[-1]]
        return tuple(removed)

    def pass_by(self, frame: Keyframe) -> None:
        """Store the current frame as the previous one of the next."""
        self._previous = frame if self.config.sequential else None

    def activate(self, frame: FrameId) -> None:
        """Make keyframe ``frame`` the reference, after relocalisation against it."""
        if frame not in self._keyframes:
            raise KeyError(f"no keyframe {frame.id} in the map")
        self._reference = frame

    def deactivate(self) -> None:
        """Track against no keyframe: it is not known which of them the next frame shows."""
        self._reference = None

    def place(self, frame: FrameId, pose: UncertainPose) -> None:
        """Keyframe ``frame``, or the frame before the current one, is at ``pose``."""
        self._change(frame, pose=pose)

    def turn(self, frame: FrameId, turning: NDArray[np.float64]) -> None:
        """Keyframe ``frame``, or the frame before the current one, turned so fast (3,) [rad/s]."""
        self._change(frame, turning=turning)

    def _change(self, frame: FrameId, **values: Any) -> None:
        if frame in self._keyframes:
            self._keyframes[frame] = dataclasses.replace(self._keyframes[frame], **values)
        if self._previous is not None and self._previous.id == frame:
            self._previous = dataclasses.replace(self._previous, **values)

    def relabel(self, merged: Mapping[int, int]) -> None:
        """Replace landmark ids that were merged (old id -> surviving id) in every keyframe."""
        if not merged:
            return
        self._keyframes = {k.id: _relabelled(k, merged) for k in self}
        if self._previous is not None:
            self._previous = _relabelled(self._previous, merged)

    def clear(self) -> None:
        """Drop all keyframes."""
        self._keyframes.clear()
        self._parts.clear()
        self._reference = None
        self._previous = None

    def _most_redundant(self) -> FrameId:
        """The most redundant keyframe by shared landmarks; not the newest or the reference.

        Among equals, the one most similar to its successor, then the oldest: without landmarks the
        map is thinned out rather than cut off at its start.
        """
        keyframes = list(self)
        ids, views = np.unique(
            np.concatenate([np.unique(_tracks(k)) for k in keyframes]), return_counts=True
        )
        best, worst = (-1.0, -2.0), keyframes[0].id
        for keyframe, successor in pairwise(keyframes):
            if keyframe.id == self._reference:
                continue
            mine = np.unique(_tracks(keyframe))
            others = views[np.searchsorted(ids, mine)] - 1
            redundancy = float((others >= REDUNDANT_VIEWS).mean()) if len(mine) else 0.0
            likeness = (
                -1.0
                if successor.global_descriptor is None
                else _similarity(keyframe, successor.global_descriptor)
            )
            if (redundancy, likeness) > best:
                best, worst = (redundancy, likeness), keyframe.id
        return worst


def _tracks(keyframe: Keyframe) -> np.ndarray:
    """The landmark ids that a keyframe observes, without -1."""
    ids = keyframe.features.track_ids
    return ids[ids != NO_TRACK]


def _relabelled(keyframe: Keyframe, merged: Mapping[int, int]) -> Keyframe:
    ids = keyframe.features.track_ids
    if not np.isin(ids, list(merged)).any():
        return keyframe
    features = dataclasses.replace(keyframe.features, track_ids=relabelled(ids, merged))
    return dataclasses.replace(keyframe, features=features)


def _cells(features: Features) -> np.ndarray:
    """(N,) index of the image cell each keypoint lies in."""
    size = np.array([features.width, features.height], np.float32) / COVERAGE_CELLS
    cell = np.clip((features.keypoints + 0.5) // size, 0, COVERAGE_CELLS - 1).astype(np.int64)
    return cell[:, 1] * COVERAGE_CELLS + cell[:, 0]


def _similarity(keyframe: Keyframe, global_descriptor: FloatArray) -> float:
    """Cosine similarity; -1 where the keyframe has no global descriptor of this size."""
    mine = keyframe.global_descriptor
    if mine is None or mine.shape != global_descriptor.shape:
        return -1.0
    return float(mine @ global_descriptor)


def _by_similarity(
    keyframes: list[Keyframe], global_descriptor: FloatArray
) -> list[tuple[float, Keyframe]]:
    """Falling similarity; among equals the newer first."""
    scored = [(_similarity(keyframe, global_descriptor), keyframe) for keyframe in keyframes]
    order = sorted(range(len(scored)), key=lambda i: (-scored[i][0], -i))
    return [scored[i] for i in order]
