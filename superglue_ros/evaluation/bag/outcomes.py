"""Results of the middle-end for every frame of a bag: offline without DDS, or recorded live.

Both give the same :class:`FrameOutcome`, so the same code evaluates both and they can be compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.bags import BagReader
from superglue_ros.data.message_reading import matches_from_message, pose_from_message, stamp_to_ns
from superglue_ros.data.sequences.base import SequenceItem
from superglue_ros.errors import DataError, SuperglueError
from superglue_ros.mapping.verification import FramePair
from superglue_ros.pipeline import Pipeline
from superglue_ros.types import Frame, FrameId, MatchStatus, PoseStatus

MATCHES, POSE = "/matches", "/relative_pose"
FEATURES, STATUS = "/matcher/features", "/matcher/status"
RESULTS = (MATCHES, POSE, STATUS)
TOPICS = (FEATURES, *RESULTS)

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PairOutcome:
    """One frame against one reference frame; points (K, 2) float32 pixels, ``x_ref = R x + t``.

    ``said`` are the published results of the pair, for a back-end.
    """

    reference_id: int
    reference_ns: int
    kind: int
    status: MatchStatus
    index_ref: NDArray[np.int32]
    index_query: NDArray[np.int32]
    points_ref: NDArray[np.float32]
    points_query: NDArray[np.float32]
    scores: NDArray[np.float32]
    inlier: NDArray[np.bool_]
    pose_status: PoseStatus
    rotation: Floats
    translation: Floats
    scale_known: bool
    said: FramePair | None = None


@dataclass(frozen=True, eq=False)
class FrameOutcome:
    """One frame: keypoints, pairs, seconds per stage; ``refused``: the reason, "" if it was not."""

    id: int
    stamp_ns: int
    keypoints: int
    pairs: tuple[PairOutcome, ...]
    seconds: tuple[float, float, float]
    refused: str = ""


def offline(
    sequence: Iterable[SequenceItem], pipeline: Pipeline, use_depth: bool = False
) -> Iterator[FrameOutcome]:
    """Run a new ``pipeline`` over frames in the order of recording, without dropping any.

    Frames are numbered from 1, as the node does. ``sequence`` must give grey images.
    """
    for number, item in enumerate(sequence, start=1):
        frame_id = FrameId(id=number, stamp_ns=item.stamp_ns, robot=pipeline.config.robot)
        try:
            depth = item.depth if use_depth else None
            result = pipeline.process(
                Frame(id=frame_id, image=item.image, camera=item.camera, depth=depth)
            )
        except SuperglueError as error:
            yield FrameOutcome(
                id=number,
                stamp_ns=item.stamp_ns,
                keypoints=0,
                pairs=(),
                seconds=(0.0, 0.0, 0.0),
                refused=str(error),
            )
            continue
        seconds = (result.seconds.extract, result.seconds.match, result.seconds.geometry)
        pairs = tuple(_from_pair(pair) for pair in result.pairs)
        yield FrameOutcome(
            id=number,
            stamp_ns=item.stamp_ns,
            keypoints=len(result.features),
            pairs=pairs,
            seconds=seconds,
        )


def recorded(path: Path, complete: bool = True) -> list[FrameOutcome]:
    """The output of a live node, from a recorded bag, in the order of the frames.

    Raises :class:`DataError` where topics are missing, or where the node dropped frames. One that
    need not be ``complete`` may lack frames, and the numbers of keypoints.
    """
    keypoints: dict[int, int] = {}
    stamps: dict[int, int] = {}
    matches: dict[tuple[int, int], Any] = {}
    poses: dict[tuple[int, int], Any] = {}
    seconds: dict[int, tuple[float, float, float]] = {}
    dropped = 0
    with BagReader(path) as bag:
        for name, _, message in bag.messages(TOPICS if complete else RESULTS):
            if name == FEATURES:
                keypoints[int(message.frame.id)] = len(message.u)
                stamps[int(message.frame.id)] = stamp_to_ns(message.frame.stamp)
            elif name == STATUS:
                at = stamp_to_ns(message.header.stamp)
                stages = ("extract_seconds", "match_seconds", "geometry_seconds")
                seconds[at] = tuple(  # type: ignore[assignment]
                    float(getattr(message, stage)) for stage in stages
                )
                dropped = int(message.dropped)
            else:
                key = (int(message.query.id), int(message.reference.id))
                (matches if name == MATCHES else poses)[key] = message
                stamps[key[0]] = stamp_to_ns(message.query.stamp)
    if dropped and complete:
        raise DataError(f"the node dropped {dropped} frames: set intake.mode to lossless")
    if not stamps:
        raise DataError(f"bag {path} holds no output of the node")
    outcomes = []
    for number in sorted(stamps):
        keys = [key for key in matches if key[0] == number]
        refused = any(matches[key].status == MatchStatus.ERROR for key in keys)
        pairs = [
            _from_pair(FramePair(matches_from_message(matches[key]), pose_from_message(poses[key])))
            for key in keys
            if key in poses
        ]
        outcomes.append(
            FrameOutcome(
                id=number,
                stamp_ns=stamps[number],
                keypoints=keypoints.get(number, 0),
                pairs=tuple(pairs),
                seconds=seconds.get(stamps[number], (0.0, 0.0, 0.0)),
                refused="refused by the node" if refused else "",
            )
        )
    return outcomes


def matches_digest(outcomes: Sequence[FrameOutcome]) -> str:
    """SHA-256 over the matches of all frames: equal digests are equal matches, to the bit."""
    digest = hashlib.sha256()
    for outcome in outcomes:
        digest.update(f"{outcome.id} {outcome.stamp_ns} {outcome.keypoints}".encode())
        for pair in sorted(outcome.pairs, key=lambda p: p.reference_id):
            digest.update(f"{pair.reference_id} {pair.kind} {int(pair.status)}".encode())
            for values in (
                pair.index_ref,
                pair.index_query,
                pair.points_ref,
                pair.points_query,
                pair.scores,
                pair.inlier,
            ):
                digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _from_pair(pair: FramePair) -> PairOutcome:
    matches, pose = pair.matches, pair.pose
    return PairOutcome(
        reference_id=matches.reference.id,
        reference_ns=matches.reference.stamp_ns,
        kind=int(matches.kind),
        status=matches.status,
        index_ref=np.asarray(matches.index_ref, np.int32),
        index_query=np.asarray(matches.index_query, np.int32),
        points_ref=np.asarray(matches.points_ref, np.float32),
        points_query=np.asarray(matches.points_query, np.float32),
        scores=np.asarray(matches.scores, np.float32),
        inlier=np.asarray(matches.inlier, bool),
        pose_status=pose.status,
        rotation=np.asarray(pose.rotation, np.float64),
        translation=np.asarray(pose.translation, np.float64),
        scale_known=pose.scale_known,
        said=pair,
    )
