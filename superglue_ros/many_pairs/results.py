"""Matches of many pairs as a Parquet data set: a row for each pair, a file for each shard.

| column | type | content |
|---|---|---|
| image0, image1 | string | names |
| status | string | :class:`~superglue_ros.types.MatchStatus` |
| reason | string | of status ERROR, else null |
| x0, y0, x1, y1 | lists of float | matched pixels, those of image 1 refined |
| index0, index1 | lists of int32 | the keypoints |
| score, sigma_px | lists of float | as ``pair_arrays`` of :mod:`superglue_ros.image_pairs.files` |

With a calibration also ``inlier`` (list of bool), ``rotation`` (9, row by row), ``translation``
(3), ``covariance`` (36) and ``pose_status``: ``x_0 = R x_1 + t``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import ConfigError, SuperglueError
from superglue_ros.files import replace_atomically
from superglue_ros.image_pairs.matching import ImagePair
from superglue_ros.types import MatchStatus

try:
    import pyarrow as pa
    from pyarrow import parquet
except ImportError as error:
    raise ConfigError(
        f"match-many needs {error.name}: pip install 'superglue_ros[many]'"
    ) from error

Row = tuple[str, str, ImagePair | SuperglueError]
"""Names of both images, and their pair or the reason why there is none."""

_MATCH_COLUMNS: dict[str, tuple[pa.DataType, Callable[[ImagePair], NDArray[Any]]]] = {
    "x0": (pa.float32(), lambda pair: pair.points0[:, 0]),
    "y0": (pa.float32(), lambda pair: pair.points0[:, 1]),
    "x1": (pa.float32(), lambda pair: pair.points1[:, 0]),
    "y1": (pa.float32(), lambda pair: pair.points1[:, 1]),
    "index0": (pa.int32(), lambda pair: pair.index0),
    "index1": (pa.int32(), lambda pair: pair.index1),
    "score": (pa.float32(), lambda pair: pair.scores),
    "sigma_px": (pa.float32(), lambda pair: pair.matches.sigma_px),
}


def write_matches(path: Path, rows: Sequence[Row], with_poses: bool) -> None:
    """Write a shard atomically; ``with_poses`` where the cameras are calibrated."""
    pairs = [pair if isinstance(pair, ImagePair) else None for _, _, pair in rows]
    columns: dict[str, pa.Array] = {
        "image0": pa.array([row[0] for row in rows], pa.string()),
        "image1": pa.array([row[1] for row in rows], pa.string()),
        "status": pa.array(
            [(MatchStatus.ERROR if p is None else p.matches.status).name for p in pairs],
            pa.string(),
        ),
        "reason": pa.array(
            [str(pair) if isinstance(pair, SuperglueError) else None for _, _, pair in rows],
            pa.string(),
        ),
    }
    lengths = [0 if pair is None else len(pair.matches) for pair in pairs]
    offsets = pa.array(np.cumsum([0, *lengths]), pa.int32())
    for name, (kind, values) in _MATCH_COLUMNS.items():
        columns[name] = _lists(pairs, offsets, kind, values)
    if with_poses:
        columns["inlier"] = _lists(pairs, offsets, pa.bool_(), lambda pair: pair.inlier)
        poses = [None if pair is None else pair.pose for pair in pairs]
        for name in ("rotation", "translation", "covariance"):
            own = [None if pose is None else getattr(pose, name).ravel() for pose in poses]
            columns[name] = pa.array(own, pa.list_(pa.float64()))
        columns["pose_status"] = pa.array(
            [None if pose is None else pose.status.name for pose in poses], pa.string()
        )
    table = pa.table(columns)
    replace_atomically(path, lambda name: parquet.write_table(table, name, compression="zstd"))


def _lists(
    pairs: Sequence[ImagePair | None],
    offsets: pa.Array,
    kind: pa.DataType,
    values: Callable[[ImagePair], NDArray[Any]],
) -> pa.Array:
    """A list for each pair, empty where there is none."""
    own = [values(pair) for pair in pairs if pair is not None]
    joined = np.concatenate(own) if own else np.zeros(0)
    return pa.ListArray.from_arrays(offsets, pa.array(joined, kind))
