"""The middle-end from end to end: a frame in, matches and relative poses to keyframes out.

    image -> features -> matches against keyframes -> two-view geometry -> tracks -> keyframe or not

This file tells the whole story (figure 3 of the SuperGlue paper, and what a SLAM system needs
around it); every step is one call into the module of that name.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from superglue_ros import map_io
from superglue_ros.config import Config
from superglue_ros.device import resolve_device
from superglue_ros.frontends import FrontEnd, make_front_end
from superglue_ros.global_descriptor import pool
from superglue_ros.keyframes import Candidate, Keyframe, KeyframeStore, Overlap
from superglue_ros.matching import Matcher, make_matcher
from superglue_ros.relocalisation import relocalise
from superglue_ros.tracks import Tracks
from superglue_ros.types import Features, FloatArray, Frame, FrameId, MatchKind
from superglue_ros.verification import FramePair, verify

__all__ = ["FramePair", "FrameResult", "Pipeline", "StageSeconds"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageSeconds:
    """Wall time of the stages of one frame, in seconds."""

    extract: float
    match: float
    geometry: float

    @property
    def total(self) -> float:
        """All stages together, in seconds."""
        return self.extract + self.match + self.geometry


@dataclass(frozen=True, eq=False)
class FrameResult:
    """All that came out of one frame. ``pairs`` is empty where there was no keyframe yet."""

    frame_id: FrameId
    features: Features
    pairs: tuple[FramePair, ...]
    is_keyframe: bool
    reset: bool
    seconds: StageSeconds


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
        self.matcher = matcher or make_matcher(self.config, device)
        self.keyframes = KeyframeStore(self.config.keyframes)
        self.tracks = tracks or Tracks()
        self._newest: tuple[Keyframe, tuple[FrameId, ...]] | None = None
        self._lost_frames = 0
        self._last_stamp_ns: dict[int, int] = {}

    def configure(self, config: Config) -> None:
        """Take new settings, from the next frame on; the fixed ones must be as they were."""
        self.config = config
        self.front_end.configure(config.front_end)
        self.matcher.configure(config.matcher)
        self.keyframes.config = config.keyframes

    def reset(self) -> None:
        """Forget all keyframes; landmark ids, and the caller's frame ids, go on counting."""
        self.keyframes.clear()
        self._newest = None
        self._lost_frames = 0
        self._last_stamp_ns.clear()

    def save_map(self, path: str | Path) -> int:
        """Write all keyframes to a file; returns their number. Raises :class:`DataError`."""
        return map_io.save(path, self.keyframes)

    def load_map(self, path: str | Path) -> int:
        """Put the keyframes of a file in place of all others; returns their number.

        Raises :class:`DataError` on a bad file and :class:`DescriptorKindError` on features of
        another network, and stays as it was. The next frame is looked for in all of the map.
        """
        stored = map_io.load(path)
        prepared = [self._prepared(entry.keyframe) for entry in stored]
        self.reset()
        first_of: dict[int, FrameId] = {}
        for entry, keyframe in zip(stored, prepared, strict=True):
            first = first_of.setdefault(entry.part, keyframe.id)
            self.keyframes.insert(keyframe, [first] if first != keyframe.id else [])
            self.tracks.reserve(keyframe.features.track_ids)
        return len(self.keyframes)

    def match_pair(self, reference: Frame, query: Frame) -> FramePair:
        """Match two frames with each other, apart from the map and without touching it."""
        clock = _Clock()
        against = Candidate(self._encode(reference, clock), MatchKind.KEYFRAME)
        return self._match([against], self._encode(query, clock), clock)[0]

    def match_features(
        self, frame_id: FrameId, features: Features, keyframes: int
    ) -> tuple[FramePair, ...]:
        """Match another robot's features against the ``keyframes`` keyframes that look most alike.

        The map is not touched. Without the other's calibration there are matches but no poses.
        """
        query = self._prepared(Keyframe(frame_id, features, None))
        candidates = self.keyframes.relocalisation_candidates(query.global_descriptor)[:keyframes]
        alike = [Candidate(candidate.keyframe, MatchKind.LOOP) for candidate in candidates]
        return self._match(alike, query, _Clock())

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
        reset = self._time_jumped_back(frame.id)
        if reset:
            self.reset()
        clock = _Clock()
        query = self._encode(frame, clock)
        pairs = self._match(self.keyframes.neighbours(), query, clock)
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
        self._last_stamp_ns[frame.id.camera_index] = frame.id.stamp_ns
        return FrameResult(frame.id, query.features, pairs, is_keyframe, reset, clock.seconds())

    def _encode(self, frame: Frame, clock: _Clock) -> Keyframe:
        """All that is computed of the frame alone, once."""
        with clock.stage("extract"):
            features = self._extract(frame)
            depth = depth_at(frame, features)
            raw = Keyframe(frame.id, features, None, frame.camera, depth, None, frame.rectified)
            return self._prepared(raw)

    def _prepared(self, raw: Keyframe) -> Keyframe:
        prepared = self.matcher.prepare(raw.features)
        return replace(raw, prepared=prepared, global_descriptor=pool(raw.features))

    def _match(
        self, candidates: Sequence[Candidate], query: Keyframe, clock: _Clock
    ) -> tuple[FramePair, ...]:
        """One network batch over all candidates, then the geometry of each pair."""
        with clock.stage("match"):
            prepared = [candidate.keyframe.prepared for candidate in candidates]
            assignments = self.matcher.match(prepared, query.prepared) if candidates else []
        with clock.stage("geometry"):
            return tuple(
                verify(candidate, query, found, self.config)
                for candidate, found in zip(candidates, assignments, strict=True)
            )

    def _relocalise(
        self, query: Keyframe, pairs: tuple[FramePair, ...], clock: _Clock
    ) -> tuple[FramePair, ...]:
        """Look for the frame in all of the map; where it is found becomes the reference."""
        tried = {pair.matches.reference for pair in pairs}
        candidates = self.keyframes.relocalisation_candidates(query.global_descriptor)
        found = relocalise(
            [candidate for candidate in candidates if candidate.keyframe.id not in tried],
            lambda batch: self._match(batch, query, clock),
            self.config.keyframes.relocalise_budget_s,
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

    def _time_jumped_back(self, frame_id: FrameId) -> bool:
        last = self._last_stamp_ns.get(frame_id.camera_index)
        return last is not None and frame_id.stamp_ns < last

    def _extract(self, frame: Frame) -> Features:
        """Features of the frame: our own, or those an outside front-end sent with it."""
        outside = frame.keypoints
        if outside is None:
            return self.front_end.extract(frame.image)
        outside = self._cap(outside)
        if outside.descriptors is not None and outside.descriptor_dim:
            return outside
        described = self.front_end.describe(frame.image, outside.keypoints)
        return replace(
            described,
            scores=outside.scores,
            sigma_px=outside.sigma_px,
        )

    def _cap(self, features: Features) -> Features:
        limit = self.config.front_end.max_keypoints
        if len(features) <= limit:
            return features
        log.warning("%d keypoints given, the best %d are used", len(features), limit)
        best = np.sort(np.argsort(-features.scores, kind="stable")[:limit])
        return features.select(best)


class _Clock:
    """Adds up the wall time of the stages of one frame."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(("extract", "match", "geometry"), 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds[name] += time.perf_counter() - started

    def seconds(self) -> StageSeconds:
        return StageSeconds(**self._seconds)


def depth_at(frame: Frame, features: Features) -> FloatArray | None:
    """Depth in metres at every keypoint (N,), 0 where unknown; None where the frame has no depth.

    The nearest pixel's value: interpolation would invent surfaces across depth edges.
    """
    if frame.depth is None:
        return None
    height, width = frame.depth.shape
    pixels = np.rint(features.keypoints).astype(np.intp)
    x, y = pixels[:, 0].clip(0, width - 1), pixels[:, 1].clip(0, height - 1)
    depth = frame.depth[y, x]
    return np.where(np.isfinite(depth), depth, 0).astype(np.float32)
