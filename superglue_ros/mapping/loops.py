"""Loops are confirmed by further keyframes: one lookalike view does not change the map.

A new keyframe that is verified against an old one only *sights* a loop. It is closed once
``keyframes.loop_confirmations`` later keyframes, one after the other, sight the same: verified
against that old keyframe or one near it, with the pose that follows from the earlier sighting and
from how tracking connected the keyframes of either side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from superglue_ros.geometry.angle_errors import rotation_error_deg
from superglue_ros.mapping.verification import FramePair
from superglue_ros.types import FrameId, MatchKind, PoseArray, RelativePose

_ROTATION_DEG = 8.0  # between two ways to the same keyframe: wide baselines are a few degrees off
_POSITION = 0.25  # likewise, in parts of the way, where all poses are metric
_POSITION_M = 0.3  # or this much, where the way is short
_MOST_LINKS = 6  # between two old keyframes: errors add up


@dataclass(frozen=True, eq=False)
class Motion:
    """A pose ``T_a_b`` (4, 4); ``metric``: its position has metric scale."""

    pose: PoseArray
    metric: bool

    @classmethod
    def of(cls, relative: RelativePose) -> Motion:
        """That of the query in the reference."""
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = relative.rotation, relative.translation
        return cls(pose, relative.scale_known)

    def then(self, other: Motion) -> Motion:
        """``T_a_c`` of this ``T_a_b`` and the other ``T_b_c``."""
        return Motion(self.pose @ other.pose, self.metric and other.metric)

    def inverse(self) -> Motion:
        """``T_b_a``."""
        return Motion(np.asarray(np.linalg.inv(self.pose), np.float64), self.metric)


@dataclass(frozen=True, eq=False)
class Sighting:
    """A verified loop of the newest keyframe, and how many keyframes before it agree with it."""

    pair: FramePair
    agreeing: int


class LoopConfirmation:
    """What the newest keyframe sighted, which the next one confirms or not."""

    def __init__(self) -> None:
        self._sightings: tuple[Sighting, ...] = ()
        self._links: dict[FrameId, dict[FrameId, Motion]] = {}

    @property
    def awaited(self) -> tuple[FrameId, ...]:
        """Old keyframes that the next keyframe is matched against."""
        return tuple(one.pair.matches.reference for one in self._sightings)

    def judge(
        self, loops: Sequence[FramePair], tracked: Sequence[FramePair], confirmations: int
    ) -> tuple[FramePair, ...]:
        """The pairs of a new keyframe with its loop candidates, sightings marked as unconfirmed.

        ``tracked`` are its pairs with the keyframes before it, ``confirmations`` how many further
        keyframes a loop needs; 0 = every verified loop is closed.
        """
        self.connect(tracked)
        judged, sightings = [], []
        for pair in loops:
            if pair.tracked:
                agreeing = self._agreeing(pair)
                pair = pair if agreeing >= confirmations else pair.unconfirmed()
                sightings.append(Sighting(pair, agreeing))
            judged.append(pair)
        self._sightings = tuple(sightings) if confirmations else ()
        return tuple(judged)

    def drop(self, keyframes: Iterable[FrameId]) -> None:
        """Forget keyframes that were removed from the map."""
        for frame in keyframes:
            for neighbour in self._links.pop(frame, {}):
                self._links[neighbour].pop(frame, None)
            self._sightings = tuple(s for s in self._sightings if s.pair.matches.reference != frame)

    def forget(self) -> None:
        """Drop everything, with the map."""
        self._sightings = ()
        self._links.clear()

    def connect(self, tracked: Sequence[FramePair]) -> None:
        """Take in how a new keyframe is connected with those before it."""
        for pair in tracked:
            if pair.tracked and pair.matches.kind is not MatchKind.SEQUENTIAL:  # of keyframes
                motion, ends = Motion.of(pair.pose), (pair.matches.reference, pair.matches.query)
                self._links.setdefault(ends[0], {})[ends[1]] = motion
                self._links.setdefault(ends[1], {})[ends[0]] = motion.inverse()

    def _agreeing(self, pair: FramePair) -> int:
        """How many keyframes before this one agree with its loop, one after the other."""
        counts = [0]
        for earlier in self._sightings:
            near = self._way(pair.matches.reference, earlier.pair.matches.reference)
            step = self._way(earlier.pair.matches.query, pair.matches.query)
            if near is not None and step is not None:
                expected = near.then(Motion.of(earlier.pair.pose)).then(step)
                if agree(expected, Motion.of(pair.pose)):
                    counts.append(earlier.agreeing + 1)
        return max(counts)

    def _way(self, start: FrameId, end: FrameId) -> Motion | None:
        """``T_start_end`` over the fewest links; None where they are too many."""
        reached = {start: (Motion(np.eye(4), True), 0)}
        queue = deque([start])
        while queue:
            here = queue.popleft()
            motion, links = reached[here]
            if here == end:
                return motion
            if links < _MOST_LINKS:
                for neighbour, step in self._links.get(here, {}).items():
                    if neighbour not in reached:
                        reached[neighbour] = (motion.then(step), links + 1)
                        queue.append(neighbour)
        return None


def agree(expected: Motion, found: Motion) -> bool:
    """Whether two motions between the same frames are the same but for their errors.

    Positions are compared where both are metric; directions alone say little over the short
    baselines of a revisit.
    """
    if rotation_error_deg(expected.pose[:3, :3], found.pose[:3, :3]) > _ROTATION_DEG:
        return False
    if not (expected.metric and found.metric):
        return True
    way = max(float(np.linalg.norm(one.pose[:3, 3])) for one in (expected, found))
    off = float(np.linalg.norm(expected.pose[:3, 3] - found.pose[:3, 3]))
    return off <= max(_POSITION_M, _POSITION * way)
