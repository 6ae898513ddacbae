"""Place recognition on a sequence with poses: is a true earlier place among the most similar ones?

Every frame asks for earlier frames of its place, as a loop candidate does: the database is all
frames that came at least ``gap`` before it. A frame is of the same place if it lies within a
distance and looks the same way; only frames that have such a frame in their database ask. A query
is answered at k if one of the k most similar frames is true (recall at k; Arandjelovic et al.,
NetVLAD, CVPR 2016, section 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.image import to_grey
from superglue_ros.data.sequences.base import ImageSequence
from superglue_ros.errors import DataError
from superglue_ros.evaluation.bootstrap import interval
from superglue_ros.evaluation.pairs.methods import MethodSpec
from superglue_ros.evaluation.progress import track
from superglue_ros.evaluation.reports.results import versions, write_json, write_records
from superglue_ros.frontends.base import make_front_end
from superglue_ros.mapping.global_descriptor import pool
from superglue_ros.networks.device import resolve_device

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
AT = (1, 5, 10)


@dataclass(frozen=True)
class RetrievalProtocol:
    """What counts as the same place, and how much earlier it must have been seen."""

    gap: int = 60
    distance_m: float = 1.5
    angle_deg: float = 30.0


def first_true_ranks(similarity: Floats, allowed: Bools, true: Bools) -> NDArray[np.int64]:
    """The rank (Q,), from 1, of the most similar true entry of each query that has a true one.

    ``similarity``, ``allowed``, ``true`` (N, N): of each frame (row) with each other one; only
    allowed entries are in its database. Of equals the earlier entry comes first.
    """
    ranks = []
    for values, database, right in zip(similarity, allowed, true & allowed, strict=True):
        if right.any():
            places = np.flatnonzero(database)
            order = places[np.argsort(-values[places], kind="stable")]
            ranks.append(1 + int(np.argmax(right[order])))
    return np.array(ranks, np.int64)


def same_places(poses: Floats, protocol: RetrievalProtocol) -> Bools:
    """(N, N) which frames of ``T_world_camera`` (N, 4, 4) show the same place; NaN poses none."""
    centres, axes = poses[:, :3, 3], poses[:, :3, 2]
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    alike = axes @ axes.T >= np.cos(np.radians(protocol.angle_deg))
    return np.asarray((apart <= protocol.distance_m) & alike)


def evaluate_retrieval(
    sequence: ImageSequence,
    spec: MethodSpec,
    protocol: RetrievalProtocol,
    output: Path,
    seed: int = 0,
) -> dict[str, Any]:
    """Recall at 1, 5 and 10 [%] of the global descriptor; writes ``summary.json`` and a table.

    Raises :class:`DataError` where no frame comes back to an earlier place.
    """
    front_end = make_front_end(spec.config, resolve_device(spec.config.device))
    descriptors, poses = [], []
    for item in track(sequence, len(sequence), "describing"):
        descriptors.append(pool(front_end.extract(to_grey(item.image))))
        poses.append(
            np.full((4, 4), np.nan) if item.T_world_camera is None else item.T_world_camera
        )
    size = next((len(one) for one in descriptors if one is not None), 0)
    filled = [np.zeros(size) if one is None else one for one in descriptors]
    stacked = np.array(filled, np.float64).reshape(len(filled), size)
    number = np.arange(len(filled))
    allowed = number[:, None] - number[None] >= protocol.gap
    true = same_places(np.array(poses, np.float64).reshape(-1, 4, 4), protocol)
    ranks = first_true_ranks(stacked @ stacked.T, allowed, true)
    if not len(ranks):
        raise DataError(
            f"no frame of {sequence.name} comes back within {protocol.distance_m:g} m and "
            f"{protocol.angle_deg:g} deg of one {protocol.gap} frames before: allow more"
        )
    queries = number[(allowed & true).any(axis=1)]
    summary: dict[str, Any] = {
        "sequence": sequence.name,
        "frames": len(filled),
        "queries": len(ranks),
        "protocol": {**asdict(protocol), "seed": seed},
        "method": spec.fingerprint()["front_end"],
        "recall": {str(k): _recall(ranks, k) for k in AT},
        "recall_interval": {
            str(k): list(interval(ranks.astype(float), lambda r, k=k: _recall(r, k), seed))  # type: ignore[misc]
            for k in AT
        },
    }
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "summary.json", summary)
    write_json(output / "versions.json", versions())
    rows = [
        {"frame": int(frame), "true_frames": int((allowed & true)[frame].sum()), "rank": int(rank)}
        for frame, rank in zip(queries, ranks, strict=True)
    ]
    write_records(output / "records.csv", rows)
    return summary


def _recall(ranks: Sequence[int] | NDArray[Any], k: int) -> float:
    return 100 * float(np.mean(np.asarray(ranks) <= k))
