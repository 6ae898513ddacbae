"""What a Rerun recording holds, for tests."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any


def entities(path: Path) -> dict[str, dict[str, list[tuple[float | None, Any]]]]:
    """Component -> (seconds on the timeline, or None; its values) of every entity.

    For example ``entities(file)["counts/inliers"]["Scalars:scalars"] == [(0.5, [12.0])]``.
    """
    from rerun.chunk import RrdReader

    found: dict[str, dict[str, list[tuple[float | None, Any]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for chunk in RrdReader(path).stream():
        batch = chunk.to_record_batch()
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        times = columns["time"].cast("int64").to_pylist() if "time" in columns else None
        for name, column in columns.items():
            if ":" in name:
                for row, values in enumerate(column.to_pylist()):
                    if values is not None:
                        seconds = None if times is None else times[row] * 1e-9
                        found[chunk.entity_path.lstrip("/")][name].append((seconds, values))
    return found
