"""Place recognition on sequences with poses: is a true earlier place among the most similar ones?

Every frame asks for earlier frames of its place, as a loop candidate does: the database is all
frames that came at least ``gap`` before it, and with ``later`` those that came as long after it. A
frame is of the same place if both share enough of what they see, by their depth; without depth, or
with ``overlap`` 0, if it lies within a distance and looks the same way. Only frames that have such
a frame in their database ask. A query is answered at k if one of the k most similar
frames is true (recall at k; Arandjelovic et al., NetVLAD, CVPR 2016, section 5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.image import to_grey
from superglue_ros.data.sequences.base import IndexedSequence, SequenceItem
from superglue_ros.errors import DataError
from superglue_ros.evaluation.bootstrap import interval
from superglue_ros.evaluation.pairs.methods import MethodSpec
from superglue_ros.evaluation.progress import track
from superglue_ros.evaluation.reports.report import Table, with_interval
from superglue_ros.evaluation.reports.results import versions, write_json, write_records
from superglue_ros.frontends.base import make_front_end
from superglue_ros.geometry.depth_overlap import mutual_overlap
from superglue_ros.mapping.global_descriptor import Pooling, learned, vlad
from superglue_ros.networks.device import resolve_device
from superglue_ros.types import FloatArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Aggregate = Callable[[FloatArray], FloatArray]
AT = (1, 5, 10)
_THINNED, _GRID = 4, 6  # depth is kept of every 4th pixel, and of those every 6th is looked up


@dataclass(frozen=True)
class RetrievalProtocol:
    """What counts as the same place, how much earlier it must have been seen, and whether later
    frames answer too; every ``stride``-th frame is taken, and ``gap`` counts those. ``overlap``:
    the mean part of either view that the other sees (:func:`mutual_overlap`).
    """

    gap: int = 60
    overlap: float = 0.3
    distance_m: float = 1.5
    angle_deg: float = 30.0
    later: bool = False
    stride: int = 1


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


@dataclass(frozen=True, eq=False)
class _View:
    """What tells whether a frame shows a place: its pose, NaN where unknown, and thinned depth with
    the matrix (3, 3) of its pixels, or neither.
    """

    T_world_camera: Floats
    seen: tuple[NDArray[np.float32], Floats] | None

    @classmethod
    def of(cls, item: SequenceItem) -> _View:
        pose = np.full((4, 4), np.nan) if item.T_world_camera is None else item.T_world_camera
        if item.depth is None or item.camera is None:
            return cls(pose, None)
        depth = np.ascontiguousarray(item.depth[::_THINNED, ::_THINNED])
        return cls(pose, (depth, np.diag([1 / _THINNED, 1 / _THINNED, 1.0]) @ item.camera.matrix))


def _true(views: Sequence[_View], allowed: Bools, protocol: RetrievalProtocol) -> Bools:
    """(N, N) which frames show the place of which, among those allowed in either direction."""
    poses = np.array([view.T_world_camera for view in views], np.float64).reshape(-1, 4, 4)
    seen = [view.seen for view in views if view.seen is not None]
    if not protocol.overlap or len(seen) < len(views):
        return same_places(poses, protocol)
    axes = poses[:, :3, 2]
    facing = axes @ axes.T > 0  # false where a pose is unknown
    true = np.zeros_like(allowed)
    for i, j in np.argwhere(np.tril(facing & (allowed | allowed.T), -1)):
        (depth_i, matrix_i), (depth_j, matrix_j) = seen[i], seen[j]
        T_j_i = np.asarray(np.linalg.inv(poses[j]) @ poses[i], np.float64)
        shared = mutual_overlap(depth_i, depth_j, matrix_i, matrix_j, T_j_i, step=_GRID)
        true[i, j] = true[j, i] = shared >= protocol.overlap
    return true


def aggregations(weights: str, detector: str) -> dict[str, Aggregate]:
    """VLAD, and the learned aggregation of ``weights`` (as the setting ``place_weights``).

    Without the latter where the package's own is for other descriptors than ``detector``'s. Raises
    as :class:`Pooling`.
    """
    pool = Pooling(weights)
    pool.check_kind(detector)
    found: dict[str, Aggregate] = {"VLAD": vlad}
    if pool.places.descriptor_kind == detector:
        found["learned"] = partial(learned, network=pool.places.network)
    return found


def evaluate_retrieval(
    sequences: Sequence[IndexedSequence],
    spec: MethodSpec,
    protocol: RetrievalProtocol,
    output: Path,
    seed: int = 0,
) -> dict[str, Any]:
    """Recall at 1, 5 and 10 [%] of every aggregation on each sequence, and on all together.

    Writes ``summary.json`` and ``records.csv``. Frames ask within their own sequence. Raises
    :class:`DataError` where no frame comes back to an earlier place.
    """
    front_end = make_front_end(spec.config, resolve_device(spec.config.device))
    methods = aggregations(spec.config.place_weights, front_end.detector)
    ranks: dict[str, list[NDArray[np.int64]]] = {name: [] for name in methods}
    rows: list[dict[str, Any]] = []
    asked: dict[str, dict[str, int]] = {}
    for sequence in sequences:
        numbers = range(0, len(sequence), protocol.stride)
        described: dict[str, list[FloatArray | None]] = {name: [] for name in methods}
        views: list[_View] = []
        for number in track(numbers, len(numbers), sequence.name):
            item = sequence[number]
            features = front_end.extract(to_grey(item.image))
            for name, aggregate in methods.items():
                local = features.descriptors if len(features) > 1 else None
                described[name].append(None if local is None else aggregate(local))
            views.append(_View.of(item))
        place = np.arange(len(numbers))
        apart = place[:, None] - place[None]
        allowed = (np.abs(apart) if protocol.later else apart) >= protocol.gap
        true = _true(views, allowed, protocol)
        queries = place[(allowed & true).any(axis=1)]
        found = {
            name: first_true_ranks(_similarity(some), allowed, true)
            for name, some in described.items()
        }
        asked[sequence.name] = {"frames": len(numbers), "queries": len(queries)}
        for name, some in found.items():
            ranks[name].append(some)
        rows += [
            {
                "sequence": sequence.name,
                "frame": int(numbers[query]),
                "true_frames": int((allowed & true)[query].sum()),
                **{name: int(some[k]) for name, some in found.items()},
            }
            for k, query in enumerate(queries)
        ]
    if not rows:
        names = ", ".join(sequence.name for sequence in sequences)
        raise DataError(
            f"no frame of {names} comes back to what one {protocol.gap} frames before shows "
            f"(shared part {protocol.overlap:g}; without depth within {protocol.distance_m:g} m "
            f"and {protocol.angle_deg:g} deg): allow more"
        )
    summary: dict[str, Any] = {
        "protocol": {**asdict(protocol), "seed": seed},
        "method": spec.fingerprint()["front_end"],
        "place_weights": spec.config.place_weights,
        "sequences": {
            name: {**counts, "recall": {m: recall(ranks[m][k], seed) for m in methods}}
            for k, (name, counts) in enumerate(asked.items())
            if counts["queries"]
        },
        "all": {
            "queries": len(rows),
            "recall": {m: recall(np.concatenate(ranks[m]), seed) for m in methods},
        },
    }
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "summary.json", summary)
    write_json(output / "versions.json", versions())
    write_records(output / "records.csv", rows)
    return summary


def recall(ranks: NDArray[np.int64], seed: int = 0) -> dict[str, Any]:
    """Recall [%] at each of :data:`AT`, with its 95 % interval (bootstrap over the queries)."""
    return {
        str(k): {
            "value": _recall(ranks, k),
            "interval": list(interval(ranks.astype(float), partial(_recall, k=k), seed)),
        }
        for k in AT
    }


def retrieval_table(summary: Mapping[str, Any]) -> Table:
    """A row for every sequence and aggregation; more than one sequence also together."""
    rows, parts = [], dict(summary["sequences"])
    if len(parts) > 1:
        parts["all"] = summary["all"]
    for name, part in parts.items():
        for method, values in part["recall"].items():
            cells = [with_interval(one["value"], one["interval"]) for one in values.values()]
            rows.append([name, method, str(part["queries"]), *cells])
    header = ["sequence", "aggregation", "queries", *(f"recall at {k} [%]" for k in AT)]
    return Table("Place recognition", header, rows)


def _similarity(described: Sequence[FloatArray | None]) -> Floats:
    """(N, N); frames without a descriptor are like none."""
    size = next((len(one) for one in described if one is not None), 0)
    filled = [np.zeros(size) if one is None else one for one in described]
    stacked = np.array(filled, np.float64).reshape(len(filled), size)
    return np.asarray(stacked @ stacked.T)


def _recall(ranks: Sequence[int] | NDArray[Any], k: int) -> float:
    return 100 * float(np.mean(np.asarray(ranks) <= k))
