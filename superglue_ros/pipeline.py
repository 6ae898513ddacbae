"""The middle-end from end to end: a frame in, matches and relative poses to keyframes out.

    image -> features -> matches with keyframes -> refinement -> geometry -> tracks -> a keyframe?

This file is the overview (figure 3 of the SuperGlue paper, and what a SLAM system needs around
it); every step is one call into the module of that name. :class:`~superglue_ros.rig.Rig` holds what
several cameras share, above all the networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from superglue_ros.config import Config
from superglue_ros.errors import DescriptorKindError, ImageError, SuperglueError
from superglue_ros.geometry.uncertain_pose import UncertainPose
from superglue_ros.mapping import map_io
from superglue_ros.mapping.encoding import Extracted
from superglue_ros.mapping.keyframes import Candidate, Keyframe, KeyframeStore, Overlap
from superglue_ros.mapping.loops import LoopConfirmation
from superglue_ros.mapping.motion_prior import MotionPrior
from superglue_ros.mapping.placement import (
    candidates_in_map,
    place,
    reachable,
    with_depth_of,
)
from superglue_ros.mapping.relocalisation import relocalise
from superglue_ros.mapping.stereo_pair import right_tracks, verify_stereo
from superglue_ros.mapping.time_jumps import TimeJumps
from superglue_ros.mapping.turning import Turning
from superglue_ros.mapping.verification import FramePair, verify
from superglue_ros.rig import Matched, Pairing, Plan, Rig, attempt
from superglue_ros.stage_clock import StageClock, StageSeconds
from superglue_ros.types import Correspondences, Features, FloatArray, Frame, FrameId, MatchKind

LATE_NS = 1_000_000
"""A frame that is older than the one before it by no more than this is matched all the same."""
LEAPT = 0.75
"""A frame that shares less than this part of ``keyframes.min_matched_share`` with every keyframe
has leapt: the frame before it becomes a keyframe as well. Otherwise hardly a landmark is seen both
before and after a quick turn, and a monocular map loses its scale."""
KEYFRAMES_OF_THE_MAP = 2
"""Keyframes with a pose that are tried before a frame becomes a keyframe beside them."""


@dataclass(frozen=True, eq=False)
class FrameResult:
    """The results of one frame. ``pairs`` is empty where there was no keyframe yet.

    ``depth``, ``depth_sigma`` (N,) float32 metres at the keypoints, 0 = unknown, or None;
    ``stereo`` and ``right_features`` (with landmarks) are those of a stereo pair, or None.
    ``masked`` keypoints were dropped: they lay on pixels that are not to be used.
    ``map_pose`` is ``T_map_camera``, or None; ``unplaced`` says why, if there are keyframes with
    poses.
    """

    frame_id: FrameId
    features: Features
    pairs: tuple[FramePair, ...]
    is_keyframe: bool
    seconds: StageSeconds
    depth: FloatArray | None = None
    depth_sigma: FloatArray | None = None
    stereo: FramePair | None = None
    right_features: Features | None = None
    masked: int = 0
    map_pose: UncertainPose | None = None
    unplaced: str = ""


@dataclass(frozen=True, eq=False)
class Extraction:
    """The first stage of frames that go together: features of each, or the error that refuses it.

    ``seconds``: the share of each frame.
    """

    outcomes: tuple[Extracted | SuperglueError, ...]
    seconds: StageSeconds


class Pipeline:
    """One camera: matches every frame against a window of keyframes. Not thread-safe.

    The cameras of a robot have one pipeline each and share a ``rig``. Without one the pipeline
    makes its own from ``config``.
    """

    def __init__(self, config: Config | None = None, rig: Rig | None = None) -> None:
        self.config = config or Config()
        self.rig = rig or Rig(self.config)
        self.keyframes = KeyframeStore(self.config.keyframes)
        self.time = TimeJumps()
        self._newest: tuple[Keyframe, tuple[FramePair, ...]] | None = None
        self._lost_frames = 0
        self._prior = MotionPrior()
        self._loops = LoopConfirmation()
        self._turning = Turning()

    def configure(self, config: Config) -> None:
        """Apply new settings from the next frame on; fixed settings must not change."""
        self.config = config
        self.rig.configure(config)
        self.keyframes.config = config.keyframes

    # -- one frame ---------------------------------------------------------------------------

    def process(self, frame: Frame) -> FrameResult:
        """Features, matches and poses of one frame; keeps it as a keyframe where it adds something.

        Where time jumped backwards (a bag that starts over) all keyframes are dropped first.
        Raises an error of :mod:`superglue_ros.errors` on bad input, and on a frame that is a little
        older than the one before it; the pipeline's state is then unchanged.
        """
        outcome = process_together([self], [frame])[0]
        if isinstance(outcome, SuperglueError):
            raise outcome
        return outcome

    def plan(self, encoded: Extracted) -> Plan:
        """What to match the frame against: the keyframes with it, its right image with its left."""
        query = encoded.frame
        self._check_time(query.id)
        pairings = [self._pairing(candidate, query) for candidate in self.keyframes.neighbours()]
        if encoded.right is not None:
            pairings.append(Pairing(Candidate(query, MatchKind.STEREO), encoded.right))
        return Plan(encoded, tuple(pairings))

    def finish(self, matched: Matched, clock: StageClock) -> FrameResult:
        """From the correspondences on: geometry, landmarks, keyframe or not."""
        encoded, query, stereo = matched.plan.encoded, matched.plan.encoded.frame, None
        pairings, found = matched.plan.pairings, matched.found
        if encoded.right is not None:
            with clock.stage("geometry"):
                measured = verify_stereo(
                    query, encoded.right, encoded.baseline, found[-1], self.config
                )
            query = replace(query, depth=measured.depth, depth_sigma=measured.depth_sigma)
            pairings, found, stereo = pairings[:-1], found[:-1], measured.pair
        candidates = [pairing.candidate for pairing in pairings]
        query, pairs = self._verify_turning(list(zip(candidates, found, strict=True)), query, clock)
        if any(pairing.guided is not None for pairing in pairings):
            pairs = self._confirm(pairings, pairs, query, clock)
        pairs = self._step_between(query, pairs, clock)
        if len(self.keyframes) and not any(pair.tracked for pair in pairs):
            pairs = self._relocalise(query, pairs, clock)
        else:
            self._lost_frames = 0
        is_keyframe = self._adds_something(query.features, pairs)
        if is_keyframe and self.keyframes.placed and not self._lost_frames:
            pairs += self._find_in_map(query, pairs, clock)
            is_keyframe = self._adds_something(query.features, pairs)
        if is_keyframe:
            pairs += self._loop_pairs(query, pairs, clock)
        query, pairs = self._track(query, pairs, is_keyframe)
        placement = place(pairs, self.keyframes)
        kept = query
        if placement.pose is not None:
            for keyframe, pose in reachable(placement.pose, pairs, self.keyframes).items():
                self.keyframes.place(keyframe.id, pose)
            kept = replace(with_depth_of(query, pairs, self.keyframes), pose=placement.pose)
        connected = tuple(pair.matches.reference for pair in pairs if pair.tracked)
        if self.config.matcher.prior != "none":
            self._prior.learn(query, [(self.keyframes[p.matches.reference], p) for p in pairs])
        if is_keyframe:
            self._loops.drop(self.keyframes.insert(kept, connected))
        self.keyframes.pass_by(kept)
        before = self._turning.learn(query.id, pairs)
        if before is not None:
            self.keyframes.turn(*before)
        self._newest = (kept, tuple(pair for pair in pairs if pair.tracked))
        result = FrameResult(
            frame_id=query.id,
            features=query.features,
            pairs=pairs,
            is_keyframe=is_keyframe,
            seconds=clock.seconds(),
            depth=query.depth,
            depth_sigma=query.depth_sigma,
            masked=encoded.masked,
            map_pose=placement.pose,
            unplaced=placement.reason,
        )
        if encoded.right is None or stereo is None:
            return result
        ids = right_tracks(stereo, query.features.track_ids, len(encoded.right.features))
        return replace(
            result,
            stereo=stereo.with_ids(ids[stereo.matches.index_query]),
            right_features=replace(encoded.right.features, track_ids=ids),
        )

    # -- the map -----------------------------------------------------------------------------

    def reset(self) -> None:
        """Drop all keyframes; landmark ids and the caller's frame ids keep counting."""
        self._forget_keyframes()
        self.time.forget()

    def save_map(self, path: str | Path, last_frame: int = 0) -> int:
        """Write all keyframes to a file; returns their number. Raises :class:`DataError`.

        ``last_frame`` is the highest number that the caller gave to any frame.
        """
        return map_io.save(path, self.keyframes, last_frame, self.rig.tracks.next_id)

    def load_map(self, path: str | Path) -> int:
        """Replace all keyframes by those of a file; returns their number.

        As :meth:`read_map` and :meth:`take_map`.
        """
        return self.take_map(self.read_map(path))

    def read_map(self, path: str | Path, detector: str = "") -> map_io.StoredMap:
        """A map with its keyframes ready to be matched; nothing changes yet.

        ``detector``: kind of the frames' descriptors, empty = any that the matcher takes. Raises
        :class:`DataError` on a bad file and :class:`DescriptorKindError` on features of another
        network.
        """
        stored = map_io.load(path)
        expected = self.rig.matcher.descriptor_kind or detector
        other = {entry.keyframe.features.detector for entry in stored.keyframes} - {expected}
        if expected and other:
            raise DescriptorKindError(
                f"{path} is a map of {', '.join(sorted(other))} descriptors, frames have "
                f"{expected}: configure the front-end and weights that made the map, or make it "
                f"again with these"
            )
        prepared = (
            replace(entry, keyframe=self.rig.prepare(entry.keyframe)) for entry in stored.keyframes
        )
        return replace(stored, keyframes=tuple(prepared))

    def take_map(self, stored: map_io.StoredMap) -> int:
        """Replace all keyframes by a map; returns the number of keyframes kept.

        The next frame is relocalised in the whole map. Later frames must be numbered above
        ``stored.last_frame``.
        """
        self.reset()
        first_of: dict[int, FrameId] = {}
        for entry in stored.keyframes:
            keyframe = entry.keyframe
            first = first_of.setdefault(entry.part, keyframe.id)
            self.keyframes.insert(keyframe, [first] if first != keyframe.id else [])
            self.rig.tracks.reserve(keyframe.features.track_ids)
        self.keyframes.deactivate()
        self.rig.tracks.reserve(np.array([stored.next_landmark - 1]))
        return len(self.keyframes)

    def keep_newest(self) -> FrameId | None:
        """Make the newest frame a keyframe regardless of the rules; None if there is no frame."""
        if self._newest is None:
            return None
        query, pairs = self._newest
        if query.id not in self.keyframes:
            ids = self.rig.tracks.begin(query.features.track_ids)
            kept = replace(query, features=replace(query.features, track_ids=ids))
            self._loops.connect(pairs)
            references = [pair.matches.reference for pair in pairs]
            self._loops.drop(self.keyframes.insert(kept, references))
        return query.id

    # -- apart from the map ------------------------------------------------------------------

    def match_pair(self, reference: Frame, query: Frame) -> FramePair:
        """Match two frames with each other, independently of the map."""
        frames = []
        for one in self.rig.encode(self.rig.extract([reference, query])):
            if isinstance(one, SuperglueError):
                raise one
            frames.append(one.frame)
        return self._match([Candidate(frames[0], MatchKind.KEYFRAME)], frames[1], StageClock())[0]

    def match_peer(self, frame: Keyframe, keyframes: int) -> tuple[FramePair, ...]:
        """Match another robot's frame against the ``keyframes`` most similar keyframes.

        The map does not change. Without the other frame's calibration there are matches but no
        poses; with depth of either frame, the poses are metric. At most the best
        ``front_end.max_keypoints`` keypoints are matched; matches index the features as received.
        """
        best, places = frame.best(self.config.front_end.max_keypoints)
        query = self.rig.prepare(best)
        candidates = self.keyframes.relocalisation_candidates(query.global_descriptor)[:keyframes]
        alike = [Candidate(candidate.keyframe, MatchKind.LOOP) for candidate in candidates]
        pairs = self._match(alike, query, StageClock())
        return tuple(pair.with_query_indices(places) for pair in pairs)

    # -- steps -------------------------------------------------------------------------------

    def _forget_keyframes(self) -> None:
        self.keyframes.clear()
        self._newest = None
        self._lost_frames = 0
        self._prior.forget()
        self._loops.forget()
        self._turning.forget()

    def _check_time(self, frame: FrameId) -> None:
        """Drop all keyframes where time jumped backwards; raise where a frame is out of order."""
        behind_ns, newest_ns = self.time.behind_ns(frame.stamp_ns), self.time.newest_ns()
        if self.time.passed(frame.stamp_ns):
            self._forget_keyframes()
        elif behind_ns > LATE_NS:
            raise ImageError(
                f"the frame of {frame.stamp_ns * 1e-9:.6f} s lies {behind_ns * 1e-9:.6f} s before "
                f"the newest, of {(newest_ns or 0) * 1e-9:.6f} s: send frames in order of time"
            )

    def _pairing(self, candidate: Candidate, query: Keyframe) -> Pairing:
        """With matches near the predicted places, if the last frames tell where these are."""
        if self.config.matcher.prior == "none":
            return Pairing(candidate, query)
        return Pairing(candidate, query, self._prior.guide(candidate.keyframe, query))

    def _confirm(
        self,
        pairings: Sequence[Pairing],
        pairs: tuple[FramePair, ...],
        query: Keyframe,
        clock: StageClock,
    ) -> tuple[FramePair, ...]:
        """The pairs, those that were guided by the matcher where that was not good enough.

        All of them where the frame would become a keyframe: what the map is made of is the
        matcher's.
        """
        every = self._adds_something(query.features, pairs)
        again = [
            k
            for k, (pairing, pair) in enumerate(zip(pairings, pairs, strict=True))
            if pairing.guided is not None and (every or not self._prior.good(pair))
        ]
        matched = self._match([pairings[k].candidate for k in again], query, clock)
        replaced = dict(zip(again, matched, strict=True))
        return tuple(replaced.get(k, pair) for k, pair in enumerate(pairs))

    def _match(
        self, candidates: Sequence[Candidate], query: Keyframe, clock: StageClock
    ) -> tuple[FramePair, ...]:
        """One network batch over all candidates, then the geometry of each pair."""
        with clock.stage("match"):
            found = self.rig.match_pairings([Pairing(one, query) for one in candidates])
        return self._verify(zip(candidates, found, strict=True), query, clock)

    def _verify_turning(
        self,
        matched: Sequence[tuple[Candidate, Correspondences]],
        query: Keyframe,
        clock: StageClock,
    ) -> tuple[Keyframe, tuple[FramePair, ...]]:
        """Verified pairs, and the frame with how fast it turns if rows are exposed in turn.

        First as it turned before, then as these pairs say, if more matches agree then: a wrong pose
        must not spoil the pixels.
        """
        if not self.config.geometry.readout_s:
            return query, self._verify(matched, query, clock)
        query = replace(query, turning=self._turning.expected(query.id))
        pairs = self._verify(matched, query, clock)
        turning = self._turning.at(query.id, pairs)
        if turning is None:
            return query, pairs
        turned = replace(query, turning=turning)
        again = self._verify(matched, turned, clock)
        better = sum(p.pose.num_inliers for p in again) >= sum(p.pose.num_inliers for p in pairs)
        return (turned, again) if better else (query, pairs)

    def _verify(
        self,
        matched: Iterable[tuple[Candidate, Correspondences]],
        query: Keyframe,
        clock: StageClock,
    ) -> tuple[FramePair, ...]:
        with clock.stage("geometry"):
            return tuple(
                verify(candidate, query, found, self.config) for candidate, found in matched
            )

    def _step_between(
        self, query: Keyframe, pairs: tuple[FramePair, ...], clock: StageClock
    ) -> tuple[FramePair, ...]:
        """The pairs; where the frame has leapt, the one with the frame before it first.

        The frame before then becomes a keyframe and the reference, if it is tracked itself: a third
        view carries the scale over. Not where depth does, nor in a known map, whose keyframes have
        poses.
        """
        if self._newest is None or self.keyframes.placed or query.depth is not None:
            return pairs
        previous, tracked = self._newest
        shares = [
            overlap_of(pair, self.keyframes[pair.matches.reference], query.features).share
            for pair in pairs
            if pair.tracked and pair.matches.kind is MatchKind.KEYFRAME
        ]
        leapt = max(shares, default=0.0) < LEAPT * self.config.keyframes.min_matched_share
        if not leapt or not tracked or previous.id in self.keyframes:
            return pairs
        (pair,) = self._match([Candidate(previous, MatchKind.KEYFRAME)], query, clock)
        if not pair.tracked:
            return pairs
        self.keep_newest()
        return (pair, *(one for one in pairs if one.matches.reference != previous.id))

    def _relocalise(
        self, query: Keyframe, pairs: tuple[FramePair, ...], clock: StageClock
    ) -> tuple[FramePair, ...]:
        """Relocalise the frame in the map; the keyframe that it matches becomes the reference.

        Otherwise the frame is lost, and so is each of ``pairs``; where there are none, as in a map
        that was just loaded, the pair with the most similar keyframe says so.
        """
        tried = {pair.matches.reference for pair in pairs}
        candidates = self.keyframes.relocalisation_candidates(query.global_descriptor)
        limits = self.config.keyframes
        found = relocalise(
            [candidate for candidate in candidates if candidate.keyframe.id not in tried],
            lambda batch: self._match(batch, query, clock),
            limits.relocalise_keyframes,
            limits.relocalise_budget_s,
        )
        if found is None or not found.tracked:
            self._lost_frames += 1
            tried_first = (found,) if found is not None else ()
            return tuple(pair.lost() for pair in pairs or tried_first)
        self._lost_frames = 0
        self.keyframes.activate(found.matches.reference)
        return (found, *pairs)

    def _find_in_map(
        self, query: Keyframe, pairs: Sequence[FramePair], clock: StageClock
    ) -> tuple[FramePair, ...]:
        """The frame against keyframes of a known map that the window does not hold, if verified.

        The one with the most inliers becomes the reference if the frame adds nothing to it: a known
        map is used before it is extended.
        """
        tried = {pair.matches.reference for pair in pairs}
        seen = candidates_in_map(query, place(pairs, self.keyframes).pose, self.keyframes)
        new = [one for one in seen if one.keyframe.id not in tried][:KEYFRAMES_OF_THE_MAP]
        found = [pair for pair in self._match(new, query, clock) if pair.tracked]
        found.sort(key=lambda pair: -pair.pose.num_inliers)
        for pair in found[:1]:
            reference = self.keyframes[pair.matches.reference]
            overlap = overlap_of(pair, reference, query.features)
            if not self.keyframes.should_insert(query.features, overlap):
                self.keyframes.activate(reference.id)
        return tuple(found)

    def _loop_pairs(
        self, query: Keyframe, pairs: Sequence[FramePair], clock: StageClock
    ) -> tuple[FramePair, ...]:
        """A new keyframe with its loop candidates; what was only sighted is marked as such."""
        candidates = self.keyframes.loop_candidates(query.global_descriptor, self._loops.awaited)
        matched = self._match(candidates, query, clock)
        return self._loops.judge(matched, pairs, self.config.keyframes.loop_confirmations)

    def _adds_something(self, features: Features, pairs: Sequence[FramePair]) -> bool:
        """Whether the frame becomes a keyframe; a lost one only after several lost frames."""
        if 0 < self._lost_frames <= self.config.keyframes.lost_frames:
            return False
        reference = self.keyframes.reference
        if reference is None:
            return self.keyframes.should_insert(features, None)
        pair = next(pair for pair in pairs if pair.matches.reference == reference.id)
        return self.keyframes.should_insert(features, overlap_of(pair, reference, features))

    def _track(
        self, query: Keyframe, pairs: Sequence[FramePair], is_keyframe: bool
    ) -> tuple[Keyframe, tuple[FramePair, ...]]:
        """Assign landmarks to keypoints and matches; merge landmarks that a loop identifies."""
        references = [self.keyframes[p.matches.reference].features.track_ids for p in pairs]
        tracking = self.rig.tracks.extend(
            len(query.features),
            [pair.claim(ids) for pair, ids in zip(pairs, references, strict=True)],
            (keyframe.features.track_ids for keyframe in self.keyframes),
        )
        self.keyframes.relabel(tracking.merged)
        ids = self.rig.tracks.begin(tracking.ids) if is_keyframe else tracking.ids
        query = replace(query, features=replace(query.features, track_ids=ids))
        pairs = tuple(
            pair.with_tracks(ids, tracking) for pair, ids in zip(pairs, references, strict=True)
        )
        return query, pairs


def overlap_of(pair: FramePair, reference: Keyframe, features: Features) -> Overlap:
    """How much of ``reference`` the frame with ``features`` still sees, by their pair."""
    matched = pair.matches.index_query[pair.verified]
    return Overlap.measure(reference.features, features, matched, pair.pose.median_parallax_rad)


def process_together(
    pipelines: Sequence[Pipeline], frames: Sequence[Frame]
) -> list[FrameResult | SuperglueError]:
    """The result of :meth:`Pipeline.process` for each pipeline's frame, or the error.

    For frames that the cameras of a rig took at one instant: each network is called once for all.
    The pipelines must be distinct and share their rig. Results equal those of separate calls up to
    rounding; the time of shared calls is divided evenly.
    """
    return match_together(pipelines, extract_together(pipelines[0].rig, frames))


def extract_together(rig: Rig, frames: Sequence[Frame]) -> Extraction:
    """The first stage of :func:`process_together`, which knows no map.

    It may run in a thread of its own while an earlier extraction is matched in another.
    """
    clock = StageClock()
    with clock.stage("extract"):
        outcomes = rig.extract(frames)
    return Extraction(tuple(outcomes), clock.seconds(len(frames)))


def match_together(
    pipelines: Sequence[Pipeline], extraction: Extraction
) -> list[FrameResult | SuperglueError]:
    """The second stage of :func:`process_together`: matches, geometry and the map."""
    rig, clock = pipelines[0].rig, StageClock()
    with clock.stage("match"):
        encoded = rig.encode(extraction.outcomes)
    plans = [attempt(one.plan, frame) for one, frame in zip(pipelines, encoded, strict=True)]
    with clock.stage("match"):
        matched = rig.match(plans)
    shared = replace(clock.seconds(len(plans)), extract=extraction.seconds.extract)
    return [
        attempt(partial(one.finish, clock=StageClock(shared)), found)
        for one, found in zip(pipelines, matched, strict=True)
    ]
