"""Wrong loops: every loop that the pipeline sights or closes on a sequence, against the true poses.

A loop is wrong if its rotation is more than ``rotation_deg`` off the true one, or if both frames
have depth and share less than ``overlap`` of what they see. Loops that were sighted are those that
would have been closed without ``keyframes.loop_confirmations``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.image import to_grey
from superglue_ros.data.sequences.base import IndexedSequence, SequenceItem
from superglue_ros.errors import ConfigError
from superglue_ros.evaluation.bag.run import deterministic
from superglue_ros.evaluation.pairs.methods import MethodSpec
from superglue_ros.evaluation.progress import track
from superglue_ros.evaluation.reports.report import Table
from superglue_ros.evaluation.reports.results import versions, write_json, write_records
from superglue_ros.geometry.angle_errors import rotation_error_deg
from superglue_ros.geometry.depth_overlap import mutual_overlap
from superglue_ros.mapping.verification import FramePair
from superglue_ros.pipeline import Pipeline
from superglue_ros.rig import Rig
from superglue_ros.settings import to_mapping
from superglue_ros.types import Frame, FrameId, MatchKind, PoseStatus

COUNTS = ("candidates", "sighted", "closed", "merged")


@dataclass(frozen=True)
class LoopProtocol:
    """What is wrong, which frames are taken, and whether their depth is used for poses."""

    rotation_deg: float = 10.0
    overlap: float = 0.05
    depth: bool = False
    stride: int = 1

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise ConfigError(f"--stride must be at least 1, not {self.stride}")


@dataclass(frozen=True)
class LoopRecord:
    """One pair of kind LOOP, by the numbers of its frames; ``wrong`` is None without true poses."""

    sequence: str
    reference: int
    query: int
    inliers: int
    sighted: bool
    closed: bool
    merged: int
    rotation_error_deg: float
    overlap: float
    wrong: bool | None


def evaluate_loops(
    sequences: Sequence[IndexedSequence], spec: MethodSpec, protocol: LoopProtocol, output: Path
) -> Table:
    """Run the pipeline over each sequence, with a map of its own; writes ``loops.csv``."""
    config = deterministic(spec.config)
    rig = Rig(config)
    records: list[LoopRecord] = []
    frames: dict[str, tuple[int, int]] = {}
    for sequence in sequences:
        numbers = range(0, len(sequence), protocol.stride)
        pipeline = Pipeline(config, rig)
        keyframes, found = _run(sequence, numbers, pipeline, protocol)
        records += found
        frames[sequence.name] = (len(numbers), keyframes)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "versions.json", versions())
    summary = {
        name: {"frames": count[0], "keyframes": count[1]} | loop_counts(
            [record for record in records if record.sequence == name]
        )
        for name, count in frames.items()
    }  # fmt: skip
    write_json(
        output / "summary.json",
        {"protocol": asdict(protocol), "settings": to_mapping(config), "sequences": summary},
    )
    write_records(output / "loops.csv", [asdict(record) for record in records])
    return loop_table(summary)


def loop_counts(records: Iterable[LoopRecord]) -> dict[str, int]:
    """How many loops were candidates, sighted, closed and merged landmarks; how many wrongly."""
    listed = list(records)
    chosen = {
        "candidates": listed,
        "sighted": [one for one in listed if one.sighted],
        "closed": [one for one in listed if one.closed],
        "merged": [one for one in listed if one.merged],
    }
    counts = {name: len(some) for name, some in chosen.items()}
    wrong = {f"wrong_{name}": sum(bool(one.wrong) for one in some) for name, some in chosen.items()}
    return counts | wrong


def loop_table(summary: dict[str, dict[str, int]]) -> Table:
    """A row for every sequence, and their sum."""
    total = {key: sum(one[key] for one in summary.values()) for key in next(iter(summary.values()))}
    rows = []
    for name, counts in {**summary, "all": total}.items():
        pairs = [f"{counts[one]} ({counts[f'wrong_{one}']})" for one in COUNTS[1:]]
        rows.append(
            [name, *(str(counts[k]) for k in ("frames", "keyframes", "candidates")), *pairs]
        )
    header = [
        "sequence",
        "frames",
        "keyframes",
        "candidates",
        *(f"{one} (wrong)" for one in COUNTS[1:]),
    ]
    return Table("Loops", header, rows)


def _run(
    sequence: IndexedSequence, numbers: range, pipeline: Pipeline, protocol: LoopProtocol
) -> tuple[int, list[LoopRecord]]:
    """The number of keyframes, and all loops."""
    records, keyframes = [], 0
    for number in track(numbers, len(numbers), sequence.name):
        item = sequence[number]
        frame = Frame(
            id=FrameId(id=number + 1, stamp_ns=item.stamp_ns, frame_id="camera"),
            image=to_grey(item.image),
            camera=item.camera,
            depth=item.depth if protocol.depth else None,
        )
        result = pipeline.process(frame)
        keyframes += result.is_keyframe
        for pair in result.pairs:
            if pair.matches.kind is MatchKind.LOOP:
                earlier = sequence[pair.matches.reference.id - 1]
                records.append(judge(sequence.name, pair, earlier, item, protocol))
    return keyframes, records


def judge(
    name: str, pair: FramePair, reference: SequenceItem, query: SequenceItem, protocol: LoopProtocol
) -> LoopRecord:
    """Compare a loop with the truth; frame n of the sequence has the id n + 1."""
    error = shared = float("nan")
    wrong: bool | None = None
    sighted = pair.tracked or pair.pose.status is PoseStatus.UNCONFIRMED
    if reference.T_world_camera is not None and query.T_world_camera is not None:
        truth = np.linalg.inv(reference.T_world_camera) @ query.T_world_camera
        error = rotation_error_deg(pair.pose.rotation, truth[:3, :3])
        shared = _shared(reference, query, truth)
        wrong = bool(error > protocol.rotation_deg or shared < protocol.overlap)
    return LoopRecord(
        sequence=name,
        reference=pair.matches.reference.id - 1,
        query=pair.matches.query.id - 1,
        inliers=pair.pose.num_inliers,
        sighted=sighted,
        closed=pair.tracked,
        merged=len(pair.matches.merged_from),
        rotation_error_deg=error,
        overlap=shared,
        wrong=wrong,
    )


def _shared(reference: SequenceItem, query: SequenceItem, T_ref_query: NDArray) -> float:
    """What both frames see, as a part; NaN without depth or calibration."""
    if reference.depth is None or query.depth is None:
        return float("nan")
    if reference.camera is None or query.camera is None:
        return float("nan")
    T_query_ref = np.asarray(np.linalg.inv(T_ref_query), np.float64)
    matrices = reference.camera.matrix, query.camera.matrix
    return mutual_overlap(reference.depth, query.depth, *matrices, T_query_ref)
