"""Queries of Aachen Day-Night (Sattler et al., CVPR 2018), and other lists of hloc's kind.

``*_with_intrinsics.txt``: ``name MODEL width height parameters...`` a line, COLMAP's camera models.
Names are relative to ``root``, by default the folder of the list. The true poses are not public.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from superglue_ros.data.colmap import MODEL_NAMES, ColmapCamera, from_colmap
from superglue_ros.data.sequences.base import FolderSequence, Row
from superglue_ros.data.trajectories import parse_floats, text_rows
from superglue_ros.errors import DataError
from superglue_ros.geometry.camera import Camera

_COUNTS = dict(zip(MODEL_NAMES, (3, 4, 4, 5, 8, 8, 12), strict=True))


class AachenLayout:
    """See :class:`~superglue_ros.data.sequences.base.Layout`."""

    def recognises(self, path: Path) -> bool:
        """By the end of the list's name."""
        return path.is_file() and path.name.endswith("_with_intrinsics.txt")

    def open(self, path: Path, depth_unit_m: float | None, root: Path | None) -> FolderSequence:
        """See :class:`~superglue_ros.data.sequences.base.Layout`."""
        start = root or path.parent
        rows: list[Row] = []
        for number, words in text_rows(path):
            camera = _camera(words, f"{path}, line {number}")
            stamp = len(rows) * 1_000_000_000
            rows.append(Row(stamp_ns=stamp, image=start / words[0], depth=None, camera=camera))
        if not rows:
            raise DataError(f"{path} lists no query")
        return FolderSequence(path.stem, rows, None, depth_unit_m or 1.0, outdoor=True)


def _camera(words: list[str], where: str) -> Camera:
    if len(words) < 4 or words[1] not in _COUNTS:
        raise DataError(
            f"{where}: a line is 'name MODEL width height parameters', MODEL one of "
            f"{', '.join(MODEL_NAMES)}"
        )
    values = parse_floats(words[2:], where)
    width, height, parameters = int(values[0]), int(values[1]), np.asarray(values[2:])
    if len(parameters) != _COUNTS[words[1]]:
        raise DataError(
            f"{where}: {words[1]} has {_COUNTS[words[1]]} parameters, not {len(parameters)}"
        )
    return from_colmap(ColmapCamera(MODEL_NAMES.index(words[1]), width, height, parameters))
