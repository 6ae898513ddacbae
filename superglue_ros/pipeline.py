"""The middle-end from end to end: a frame in, matches and relative poses to keyframes out.

    image -> features -> matches against keyframes -> two-view geometry -> tracks -> keyframe or not

This file tells the whole story (figure 3 of the SuperGlue paper, and what a SLAM system needs
around it); every step is one call into the module of that name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from superglue_ros.config import Config
from superglue_ros.errors import ConfigError, SuperglueError
from superglue_ros.frontends.base import FrontEnd, make_front_end
from superglue_ros.mapping import map_io
from superglue_ros.mapping.encoding import Encoded, encode, prepare
from superglue_ros.mapping.keyframes import Candidate, Keyframe, KeyframeStore, Overlap
from superglue_ros.mapping.relocalisation import relocalise
from superglue_ros.mapping.stereo_pair import right_tracks, verify_stereo
from superglue_ros.mapping.tracks import Tracks
from superglue_ros.mapping.verification import FramePair, verify
from superglue_ros.matchers.base import Matcher, make_matcher
from superglue_ros.networks.device import resolve_device
from superglue_ros.registry import MATCHERS
from superglue_ros.stage_clock import StageClock, StageSeconds
from superglue_ros.types import Correspondences, Features, FloatArray, Frame, FrameId, MatchKind

__all__ = ["FramePair", "FrameResult", "Pipeline", "StageSeconds", "process_together"]


@dataclass(frozen=True, eq=False)
class FrameResult:
    """All that came out of one frame. ``pairs`` is empty where there was no keyframe yet.

    ``depth``, ``depth_sigma`` (N,) float32 metres at the keypoints, 0 = unknown, where known at
    all; ``stereo`` and ``right_features``, with landmarks, of a stereo pair. ``reset``: time jumped
    backwards before the frame, and the keyframes were dropped.
    """

    frame_id: FrameId
    features: Features
    pairs: tuple[FramePair, ...]
    is_keyframe: bool
    reset: bool
    seconds: StageSeconds
    depth: FloatArray | None = None
    depth_sigma: FloatArray | None = None
    stereo: FramePair | None = None
    right_features: Features | None = None


class Pipeline:
    """Matches every frame against a window of keyframes. One thread at a time may use it.

    ``front_end`` and ``matcher`` default to those that ``config`` names. Where a robot has several
    cameras, each with its pipeline, they share ``tracks``, which makes landmark ids unique.
    """

    def __init__(
        self,
        config: Config | None = None,
        front_end: FrontEnd | None = None,
        matcher: Matcher | None = None,
        tracks: Tracks | None = None,
    ) -> None:
        self.config = config or Config()
        device = resolve_device(self.config.device)
        self.front_end = front_end or make_front_end(self.config, device)
        if matcher is None and not MATCHERS[self.config.matcher.name].one_to_one:
            raise ConfigError(
                f"matcher.name {self.config.matcher.name} gives keypoints several partners, which "
                f"no track can follow: it is for evaluation of pairs only"
            )
        self.matcher = matcher or make_matcher(self.config, device)
        self.keyframes = KeyframeStore(self.config.keyframes)
        self.tracks = tracks or Tracks()
        self._newest: tuple[Keyframe, tuple[FrameId, ...]] | None = None
        self._lost_frames = 0
        self._last_stamp_ns: dict[int, int] = {}
        self._jumped = False  # back in time, since the last frame that went through
        self.time_jumps = 0

    def configure(self, config: Config) -> None:
        """Take new settings, from the next frame on; the fixed ones must be as they were."""
        self.config = config
        self.front_end.configure(config.front_end)
        self.matcher.configure(config.matcher)
        self.keyframes.config = config.keyframes

    @property
    def precision(self) -> str:
        """The arithmetic in effect; of front-end and matcher, in this order, where they differ."""
        used = (self.front_end.precision, self.matcher.precision)
        return used[0] if used[0] == used[1] else ", ".join(used)

    def reset(self) -> None:
        """Forget all keyframes; landmark ids, and the caller's frame ids, go on counting."""
        self.keyframes.clear()
        self._newest = None
        self._lost_frames = 0
        self._last_stamp_ns.clear()

    def _reset_if_time_jumped_back(self, frame_id: FrameId) -> None:
        last = self._last_stamp_ns.get(frame_id.camera_index)
        if last is not None and frame_id.stamp_ns < last:
            self.reset()
            self._jumped = True
            self.time_jumps += 1

    def save_map(self, path: str | Path, last_frame: int = 0) -> int:
        """Write all keyframes to a file; returns their number. Raises :class:`DataError`.

        ``last_frame`` is the highest number that the caller gave to any frame.
        """
        return map_io.save(path, self.keyframes, last_frame, self.tracks.next_id)

    def load_map(self, path: str | Path) -> int:
        """Put the keyframes of a file in place of all others; returns their number.

        As :meth:`read_map` and :meth:`take_map`.
        """
        return self.take_map(self.read_map(path))

    def read_map(self, path: str | Path) -> map_io.StoredMap:
        """A map with its keyframes ready to be matched; nothing changes yet.

        Raises :class:`DataError` on a bad file and :class:`DescriptorKindError` on features of
        another network.
        """
        stored = map_io.load(path)
        prepared = (
            replace(entry, keyframe=prepare(entry.keyframe, self.matcher))
            for entry in stored.keyframes
        )
        return replace(stored, keyframes=tuple(prepared))

    def take_map(self, stored: map_io.StoredMap) -> int:
        """Put a map in place of all keyframes; returns the number of those that are kept.

        The next frame is looked for in all of the map. Frames to come must be numbered above
        ``stored.last_frame``.
        """
        self.reset()
        first_of: dict[int, FrameId] = {}
        for entry in stored.keyframes:
            keyframe = entry.keyframe
            first = first_of.setdefault(entry.part, keyframe.id)
            self.keyframes.insert(keyframe, [first] if first != keyframe.id else [])
            self.tracks.reserve(keyframe.features.track_ids)
        self.tracks.reserve(np.array([stored.next_landmark - 1]))
        return len(self.keyframes)

    def match_pair(self, reference: Frame, query: Frame) -> FramePair:
        """Match two frames with each other, apart from the map and without touching it."""
        encoded = self._encode([reference, query])
        for one in encoded:
            if isinstance(one, SuperglueError):
                raise one
        first, second = (one.frame for one in encoded if isinstance(one, Encoded))
        return self._match([Candidate(first, MatchKind.KEYFRAME)], second, StageClock())[0]

    def match_peer(self, frame: Keyframe, keyframes: int) -> tuple[FramePair, ...]:
        """Match another robot's frame against the ``keyframes`` keyframes that look most alike.

        The map is not touched. Without the other's calibration there are matches but no poses; with
        depth of either, the poses are metric.
        """
        query = prepare(frame, self.matcher)
        candidates = self.keyframes.relocalisation_candidates(query.global_descriptor)[:keyframes]
        alike = [Candidate(candidate.keyframe, MatchKind.LOOP) for candidate in candidates]
        return self._match(alike, query, StageClock())

    def keep_newest(self) -> FrameId | None:
        """Make the newest frame a keyframe, whatever the rules say; None where there is none."""
        if self._newest is None:
            return None
        query, connected = self._newest
        if query.id not in self.keyframes:
            ids = self.tracks.begin(query.features.track_ids)
            features = replace(query.features, track_ids=ids)
            self.keyframes.insert(replace(query, features=features), connected)
        return query.id

    def process(self, frame: Frame) -> FrameResult:
        """Features, matches and poses of one frame; keeps it as a keyframe where it adds something.

        A stamp earlier than the previous one of the same camera (a bag that loops) drops all
        keyframes first. Raises an error of :mod:`superglue_ros.errors` on bad input and stays as
        it was, ready for the next frame.
        """
        outcome = process_together([self], [frame])[0]
        if isinstance(outcome, SuperglueError):
            raise outcome
        return outcome

    def _encode(self, frames: Sequence[Frame]) -> list[Encoded | SuperglueError]:
        limit = self.config.front_end.max_keypoints
        return encode(frames, self.front_end, self.matcher, limit)

    def _pairings(self, encoded: Encoded) -> list[tuple[Candidate, Keyframe]]:
        """References and queries to match: the right image with the left, keyframes with it."""
        query = encoded.frame
        pairings = [(candidate, query) for candidate in self.keyframes.neighbours()]
        if encoded.right is not None:
            pairings.append((Candidate(query, MatchKind.STEREO), encoded.right))
        return pairings

    def _finish(
        self,
        encoded: Encoded,
        matched: Sequence[tuple[Candidate, Correspondences]],
        clock: StageClock,
    ) -> FrameResult:
        """From ``matched`` of :meth:`_pairings` on: geometry, landmarks, keyframe or not."""
        query, stereo = encoded.frame, None
        if encoded.right is not None:
            *matched, (_, found) = matched
            with clock.stage("geometry"):
                measured = verify_stereo(query, encoded.right, encoded.baseline, found, self.config)
            query = replace(query, depth=measured.depth, depth_sigma=measured.depth_sigma)
            stereo = measured.pair
        pairs = self._verify(matched, query, clock)
        if pairs and not any(pair.tracked for pair in pairs):
            pairs = self._relocalise(query, pairs, clock)
        else:
            self._lost_frames = 0
        is_keyframe = self._adds_something(query.features, pairs)
        if is_keyframe:
            loops = self.keyframes.loop_candidates(query.global_descriptor)
            pairs += self._match(loops, query, clock)
        query, pairs = self._track(query, pairs, is_keyframe)
        connected = tuple(pair.matches.reference for pair in pairs if pair.tracked)
        if is_keyframe:
            self.keyframes.insert(query, connected)
        self.keyframes.pass_by(query)
        self._newest = (query, connected)
        self._last_stamp_ns[query.id.camera_index] = query.id.stamp_ns
        reset, self._jumped = self._jumped, False
        result = FrameResult(
            query.id,
            query.features,
            pairs,
            is_keyframe,
            reset,
            clock.seconds(),
            query.depth,
            query.depth_sigma,
        )
        if encoded.right is None or stereo is None:
            return result
        ids = right_tracks(stereo, query.features.track_ids, len(encoded.right.features))
        right = replace(encoded.right.features, track_ids=ids)
        stereo = stereo.with_ids(ids[stereo.matches.index_query])
        return replace(result, stereo=stereo, right_features=right)

    def _match(
        self, candidates: Sequence[Candidate], query: Keyframe, clock: StageClock
    ) -> tuple[FramePair, ...]:
        """One network batch over all candidates, then the geometry of each pair."""
        with clock.stage("match"):
            prepared = [candidate.keyframe.prepared for candidate in candidates]
            queries = [query.prepared] * len(candidates)
            assignments = self.matcher.match_pairs(prepared, queries) if candidates else []
        return self._verify(zip(candidates, assignments, strict=True), query, clock)

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

    def _relocalise(
        self, query: Keyframe, pairs: tuple[FramePair, ...], clock: StageClock
    ) -> tuple[FramePair, ...]:
        """Look for the frame in the map; where it is found becomes the reference."""
        tried = {pair.matches.reference for pair in pairs}
        candidates = self.keyframes.relocalisation_candidates(query.global_descriptor)
        limits = self.config.keyframes
        found = relocalise(
            [candidate for candidate in candidates if candidate.keyframe.id not in tried],
            lambda batch: self._match(batch, query, clock),
            limits.relocalise_keyframes,
            limits.relocalise_budget_s,
        )
        if found is None:
            self._lost_frames += 1
            return tuple(pair.lost() for pair in pairs)
        self._lost_frames = 0
        self.keyframes.activate(found.matches.reference)
        return (found, *pairs)

    def _adds_something(self, features: Features, pairs: Sequence[FramePair]) -> bool:
        """Whether the frame becomes a keyframe; a lost one only once the loss has lasted."""
        reference = self.keyframes.reference
        if reference is None:
            return self.keyframes.should_insert(features, None)
        if 0 < self._lost_frames <= self.config.keyframes.lost_frames:
            return False
        pair = next(pair for pair in pairs if pair.matches.reference == reference.id)
        matched = pair.matches.index_query[pair.verified]
        overlap = Overlap.measure(
            reference.features, features, matched, pair.pose.median_parallax_rad
        )
        return self.keyframes.should_insert(features, overlap)

    def _track(
        self, query: Keyframe, pairs: Sequence[FramePair], is_keyframe: bool
    ) -> tuple[Keyframe, tuple[FramePair, ...]]:
        """Give keypoints and matches their landmarks; merge those that a loop shows to be one."""
        references = [self.keyframes[p.matches.reference].features.track_ids for p in pairs]
        tracking = self.tracks.extend(
            len(query.features),
            [pair.claim(ids) for pair, ids in zip(pairs, references, strict=True)],
            (keyframe.features.track_ids for keyframe in self.keyframes),
        )
        self.keyframes.relabel(tracking.merged)
        ids = self.tracks.begin(tracking.ids) if is_keyframe else tracking.ids
        query = replace(query, features=replace(query.features, track_ids=ids))
        pairs = tuple(
            pair.with_tracks(ids, tracking) for pair, ids in zip(pairs, references, strict=True)
        )
        return query, pairs


def process_together(
    pipelines: Sequence[Pipeline], frames: Sequence[Frame]
) -> list[FrameResult | SuperglueError]:
    """What :meth:`Pipeline.process` of each pipeline gives for its frame, or why it refuses it.

    For frames of a rig that are there together: the networks are called once for all. The
    pipelines, each given once, share front-end, matcher and tracks. Results are those of one after
    the other, up to rounding; the seconds of shared calls are shared out evenly.
    """
    clock = StageClock()
    with clock.stage("extract"):
        encoded = pipelines[0]._encode(frames)
    jobs: list[list[tuple[Candidate, Keyframe]]] = []
    for pipeline, one in zip(pipelines, encoded, strict=True):
        if isinstance(one, SuperglueError):
            jobs.append([])
            continue
        pipeline._reset_if_time_jumped_back(one.frame.id)
        jobs.append(pipeline._pairings(one))
    with clock.stage("match"):
        found = _match_all(pipelines[0].matcher, jobs)
    shared = clock.seconds(len(frames))
    outcomes: list[FrameResult | SuperglueError] = []
    for pipeline, one, job, matched in zip(pipelines, encoded, jobs, found, strict=True):
        if isinstance(one, SuperglueError):
            outcomes.append(one)
        elif isinstance(matched, SuperglueError):
            outcomes.append(matched)
        else:
            pairs = [(candidate, pair) for (candidate, _), pair in zip(job, matched, strict=True)]
            try:
                outcomes.append(pipeline._finish(one, pairs, StageClock(shared)))
            except SuperglueError as error:
                outcomes.append(error)
    return outcomes


def _match_all(
    matcher: Matcher, jobs: Sequence[Sequence[tuple[Candidate, Keyframe]]]
) -> list[list[Correspondences] | SuperglueError]:
    """The matches of every job, all in one batch; a job that cannot be matched spoils no other."""
    try:
        found = iter(_match_batch(matcher, [pairing for job in jobs for pairing in job]))
        return [[next(found) for _ in job] for job in jobs]
    except SuperglueError as error:
        if len(jobs) == 1:
            return [error]
    return [outcome for job in jobs for outcome in _match_all(matcher, [job])]


def _match_batch(
    matcher: Matcher, pairings: Sequence[tuple[Candidate, Keyframe]]
) -> list[Correspondences]:
    if not pairings:
        return []
    return matcher.match_pairs(
        [candidate.keyframe.prepared for candidate, _ in pairings],
        [query.prepared for _, query in pairings],
    )
