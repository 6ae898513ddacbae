"""The summary on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_summary(
    console: Console, summary: Mapping[str, Any], pictures: Sequence[Path], file: Path
) -> None:
    """A table of the summary's figures, and the paths of the pictures."""
    table = Table(title=f"{summary['sequence']}: {summary['networks']}", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    stages = summary["milliseconds_per_stage"]
    poses = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in summary["poses"].items() if n)
    rows = [
        ("frames (dropped, refused)", _counts(summary, "frames", "dropped", "refused")),
        ("keyframes, pairs matched", f"{summary['keyframes']}, {summary['pairs']}"),
        ("matches, inliers (median)", _counts(summary, "matches_median", "inliers_median")),
        ("relative poses", poses or "none"),
        ("rotation error (median)", _unit(summary["rotation_error_deg_median"], "deg")),
        ("direction error (median)", _unit(summary["direction_error_deg_median"], "deg")),
        ("parallax (median)", _unit(summary["parallax_deg_median"], "deg")),
        (
            "true epipolar error of a match (median)",
            _unit(summary["true_epipolar_error_px_median"], "px"),
        ),
        ("extract", _unit(stages["extract"], "ms")),
        ("match", _unit(stages["match"], "ms")),
        ("geometry", _unit(stages["geometry"], "ms")),
        ("device, precision", f"{summary['device']}, {summary['precision']}"),
        ("time from start to stop", _unit(summary["seconds"], "s")),
    ]
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(f"Figures: {file}", soft_wrap=True)
    for path in pictures:
        console.print(f"Picture: {path}", soft_wrap=True)


def _counts(summary: Mapping[str, Any], first: str, *others: str) -> str:
    rest = ", ".join(_number(summary[key]) for key in others)
    return f"{_number(summary[first])} ({rest})" if rest else _number(summary[first])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _unit(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.3g} {unit}"
