"""Several result folders in one table and one plot, and weights against data sets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import DataError
from superglue_ros.evaluation import metrics
from superglue_ros.evaluation.bootstrap import paired_difference
from superglue_ros.evaluation.reports import figures
from superglue_ros.evaluation.reports.confidence_curves import draw_curves, read_curves
from superglue_ros.evaluation.reports.report import (
    Picture,
    Table,
    auc_cell,
    number,
    with_interval,
    write_report,
)
from superglue_ros.evaluation.reports.results import Results, read_results, write_json


@dataclass(frozen=True)
class Headline:
    """The headline number of a kind of evaluation: AUC of a record column at a threshold."""

    column: str
    threshold: float
    unit: str
    name: str

    def value(self, errors: NDArray[np.float64]) -> float:
        """AUC in percent of errors (cases, repeats), the mean over the repeats."""
        return 100 * metrics.mean_auc(errors, self.threshold)


HEADLINES = {
    "homography": Headline("ransac_error_px", 10.0, "px", "RANSAC AUC@10px"),
    "pose": Headline("pose_error_deg", 20.0, "degrees", "pose AUC@20"),
    "bag": Headline("pose_error_deg", 20.0, "degrees", "pose AUC@20"),
}


def compare(folders: Sequence[Path], output: Path) -> Table:
    """Write ``comparison.md``, ``.json``, pictures and ``report.html`` to ``output``.

    The first folder is the baseline: every other one gets the difference to it with a 95% interval
    from resampling the pairs both have. Raises :class:`DataError` on folders of unlike kind or
    data.
    """
    runs = [read_results(folder) for folder in folders]
    kind = _common(runs, lambda r: r.kind, "kinds of evaluation")
    _common(runs, lambda r: json.dumps(r.config.get("data"), sort_keys=True), "data")
    _common(runs, lambda r: json.dumps(_judging(r), sort_keys=True), "protocols")
    labels = _unique_labels(runs)
    headline = HEADLINES[kind]
    output.mkdir(parents=True, exist_ok=True)
    rows, values, intervals = [], {}, {}
    for label, run in zip(labels, runs, strict=True):
        values[label] = headline.value(run.repeated(headline.column))
        intervals[label] = _interval(run, kind)
        rows.append([label, *_cells(run, kind), _difference(runs[0], run, headline)])
    table = Table(
        f"{_TITLES[kind]} [%], 95% intervals over {runs[0].summary['pairs']} pairs",
        ["method", *_header(runs[0], kind), f"{headline.name} minus the first"],
        rows,
    )
    figures.bars(output / "bars.png", headline.name, values, intervals, f"{headline.name} [%]")
    errors = {label: run.repeated(headline.column) for label, run in zip(labels, runs, strict=True)}
    figures.error_curves(
        output / "curves.png", headline.name, errors, headline.threshold, headline.unit
    )
    pictures = [
        Picture(output / "curves.png", "Cumulative error curves"),
        Picture(output / "bars.png", f"{headline.name} with 95% intervals"),
    ]
    curves = {label: read_curves(run.folder) for label, run in zip(labels, runs, strict=True)}
    known = {label: one for label, one in curves.items() if one is not None}
    if len(known) == len(runs):
        pictures += draw_curves(output, known)
    protocol = json.dumps(runs[0].config["protocol"])
    write_report(
        output / "report.html",
        f"Comparison: {_TITLES[kind].lower()}",
        protocol,
        [table],
        pictures,
        {"Folders": "\n".join(str(folder) for folder in folders)},
    )
    (output / "comparison.md").write_text(markdown(table), encoding="utf-8")
    write_json(
        output / "comparison.json",
        {label: run.summary for label, run in zip(labels, runs, strict=True)},
    )
    return table


def cross_table(folders: Sequence[Path]) -> Table:
    """Rows are methods (labels), columns are data sets (the folder above), cells the headline."""
    runs = [read_results(folder) for folder in folders]
    kind = _common(runs, lambda r: r.kind, "kinds of evaluation")
    headline = HEADLINES[kind]
    data: dict[str, str] = {}
    for run in runs:
        name = run.folder.resolve().parent.name
        made_of = json.dumps(run.config.get("data"), sort_keys=True)
        if data.setdefault(name, made_of) != made_of:
            raise DataError(
                f"{run.folder}: results below {name} come from different data: put the results of "
                f"one data set into one folder"
            )
    cells = {
        (run.label, run.folder.resolve().parent.name): number(
            headline.value(run.repeated(headline.column)), 1
        )
        for run in runs
    }
    labels = list(dict.fromkeys(run.label for run in runs))
    rows = [[label, *(cells.get((label, name), "–") for name in data)] for label in labels]
    return Table(f"{headline.name} [%] by data set", ["method", *data], rows)


def markdown(table: Table) -> str:
    """The table for documents."""
    lines = [
        f"| {' | '.join(table.header)} |",
        f"|{'---|' * len(table.header)}",
        *(f"| {' | '.join(row)} |" for row in table.rows),
    ]
    return "\n".join(lines) + "\n"


_TITLES = {
    "homography": "Homography estimation",
    "pose": "Relative pose",
    "bag": "Relative pose along a bag",
}
_HEADERS = {
    "homography": ["AUC@10 RANSAC", "AUC@10 DLT", "P", "R", "MS"],
    "pose": ["P", "R", "F1", "MS", "right / mutual's", "matches"],
    "bag": ["AUC@5", "AUC@10", "AUC@20", "valid", "matches"],
}


def _header(run: Results, kind: str) -> list[str]:
    """With the estimator behind every AUC where there are several."""
    if kind != "pose":
        return _HEADERS[kind]
    names = list(_estimators(run))
    aucs = [f"AUC@{t} {name if len(names) > 1 else ''}".strip() for name in names for t in _DEG]
    return [*aucs, *_HEADERS[kind]]


_DEG = ("5", "10", "20")


def _estimators(run: Results) -> dict[str, Any]:
    """Summaries by estimator in the order of the protocol; the summary itself where it is one."""
    names = [one["name"] for one in run.config["protocol"].get("estimators", [])]
    return {name: run.summary["estimators"][name] for name in names} or {"": run.summary}


def _cells(run: Results, kind: str) -> list[str]:
    s = run.summary
    if kind == "homography":
        return [
            with_interval(s["ransac_auc"]["10"], s["ransac_auc_interval_10"]),
            with_interval(s["dlt_auc"]["10"], s["dlt_auc_interval_10"]),
            with_interval(s["precision"], s["precision_interval"]),
            with_interval(s["recall"], s["recall_interval"]),
            number(s["matching_score"], 1),
        ]
    if kind == "pose":
        auc = [auc_cell(part, t) for part in _estimators(run).values() for t in _DEG]
        shares = ("precision", "recall", "f1", "matching_score")
        quality = [number(s.get(name), 1) for name in shares]
        ratio = number(s.get("ratio_to_mutual"))
        return [*auc, *quality, ratio, number(s["mean_matches"], 0)]
    auc = [with_interval(s["auc"][t], s["auc_interval"][t]) for t in _DEG]
    return [*auc, number(s["valid_share"], 1), number(s["mean_matches"], 0)]


def _interval(run: Results, kind: str) -> tuple[float, float]:
    s = run.summary
    pair: Sequence[Any] = (
        s["ransac_auc_interval_10"] if kind == "homography" else s["auc_interval"]["20"]
    )
    return tuple(float("nan") if v is None else float(v) for v in pair)  # type: ignore[return-value]


def _difference(first: Results, run: Results, headline: Headline) -> str:
    """Difference on the pairs both have, with its interval; a star where 0 lies outside."""
    if run is first:
        return ""
    one, two = _by_index(first, headline.column), _by_index(run, headline.column)
    shared = sorted(one.keys() & two.keys())
    if not shared:
        return "no pair in common"
    a = np.array([one[k] for k in shared])
    b = np.array([two[k] for k in shared])
    value, low, high = paired_difference(a, b, headline.value)
    star = " *" if low > 0 or high < 0 else ""
    return f"{value:+.2f} [{low:+.1f}, {high:+.1f}]{star}"


def _by_index(run: Results, column: str) -> dict[str, NDArray[np.float64]]:
    values = run.repeated(column)
    return {row["index"]: v for row, v in zip(run.records, values, strict=True)}


def _judging(run: Results) -> Mapping[str, Any]:
    """The protocol without the fields that may differ between methods."""
    return {k: v for k, v in run.config["protocol"].items() if k != "confidence_threshold"}


def _common(runs: Sequence[Results], key: Callable[[Results], str], what: str) -> str:
    found = {key(run): run for run in runs}
    if len(found) > 1:
        one, other = list(found.values())[:2]
        raise DataError(
            f"{one.folder} and {other.folder} have different {what}: they cannot be compared"
        )
    return next(iter(found))


def _unique_labels(runs: Sequence[Results]) -> list[str]:
    labels = [run.label for run in runs]
    return [
        label if labels.count(label) == 1 else f"{label} ({run.folder.name})"
        for label, run in zip(labels, runs, strict=True)
    ]
