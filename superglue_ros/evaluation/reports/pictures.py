"""Pictures of a run's report: curves, and matches of easy, medium and hard pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.drawing.matches import draw_correspondences, write_text
from superglue_ros.evaluation import metrics
from superglue_ros.evaluation.pairs import homography, pose
from superglue_ros.evaluation.pairs.predictions import PairCase, Prediction, PredictionStore
from superglue_ros.evaluation.pairs.repeated_poses import AUC_THRESHOLDS_DEG
from superglue_ros.evaluation.reports import figures
from superglue_ros.evaluation.reports.confidence_curves import (
    JudgedMatches,
    confidence_curves,
    draw_curves,
    thresholds_of,
    write_curves,
)
from superglue_ros.evaluation.reports.report import (
    Picture,
    Table,
    auc_cell,
    number,
    run_details,
    with_interval,
    write_report,
)
from superglue_ros.evaluation.reports.results import Results

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Judged:
    """The matches of one pair with their error; at most ``limit`` is correct, in ``unit``."""

    prediction: Prediction
    errors: Floats
    limit: float
    unit: str


def report_homography(
    results: Results,
    cases: Sequence[homography.HomographyCase],
    store: PredictionStore,
    protocol: homography.HomographyProtocol,
) -> None:
    """Figures 8 and 6, the table, and ``report.html``."""
    folder = _folder(results)
    summary = results.summary

    def judged(index: int) -> Judged | None:
        prediction = store.get(index)
        if prediction is None:
            return None
        errors = homography.reprojection_errors(prediction, cases[index].homography())
        return Judged(prediction, errors, protocol.correct_px, "px")

    figures.error_curves(
        folder / "corner_error.png",
        "Homography: mean corner error",
        {
            "RANSAC": results.column("ransac_error_px"),
            "DLT": results.column("dlt_error_px"),
        },
        10.0,
        "px",
    )
    precision = dict(sorted(summary["precision_over_px"].items(), key=lambda item: int(item[0])))
    figures.lines(
        folder / "precision_over_px.png",
        "Precision over the correctness threshold",
        {results.label: ([int(t) for t in precision], list(precision.values()))},
        "correct below [px]",
        "precision [%]",
    )
    pictures = [
        Picture(folder / "corner_error.png", "Cumulative error curve (figure 8)"),
        Picture(folder / "precision_over_px.png", "Match precision (figure 8)"),
    ]

    def by_confidence(index: int) -> JudgedMatches | None:
        prediction = store.get(index)
        if prediction is None:
            return None
        truth = cases[index].homography()
        correct = homography.reprojection_errors(prediction, truth) < protocol.correct_px
        possible = metrics.ground_truth_matches(
            prediction.keypoints0, prediction.keypoints1, truth, protocol.correct_px
        )
        return _judged_matches(prediction, correct, possible)

    pictures += _confidence_pictures(results, by_confidence, protocol.confidence_threshold)
    pictures += _match_pictures(
        results, cases, judged, protocol.confidence_threshold, "ransac_error_px"
    )
    header = ["", "AUC@10 RANSAC", "AUC@10 DLT", "P", "R", "F1", "MS", "distance [px]", "pairs"]
    groups = {"all": summary, **summary.get("groups", {})}
    rows = [[name, *_homography_cells(part)] for name, part in groups.items()]
    write_report(
        results.folder / "report.html",
        f"Homography estimation: {results.label}",
        _protocol_line(results.config["protocol"]),
        [Table("Results [%] with 95% intervals", header, rows)],
        pictures,
        run_details(results),
    )


def report_pose(
    results: Results,
    cases: Sequence[pose.PoseCase],
    store: PredictionStore,
    protocol: pose.PoseProtocol,
) -> None:
    """Figures 5, 9 and 6, the table, and ``report.html``."""
    folder = _folder(results)

    def judged(index: int) -> Judged | None:
        prediction = store.get(index)
        if prediction is None:
            return None
        truth = pose.match_truth(cases[index], prediction, protocol)
        errors = truth.errors(prediction.points0, prediction.points1)
        known = ~np.isnan(errors)
        return Judged(prediction.select(known), errors[known], truth.limit, truth.unit)

    figures.error_curves(
        folder / "pose_error.png",
        f"Relative pose ({protocol.estimators[0].key})",
        {name: results.repeated(f"{name}_error_deg") for name in ("pose", "rotation", "direction")},
        20.0,
        "degrees",
    )
    pictures = [Picture(folder / "pose_error.png", "Cumulative error curves (figures 5 and 9)")]

    def by_confidence(index: int) -> JudgedMatches | None:
        prediction = store.get(index)
        if prediction is None:
            return None
        found = pose.judged_matches(cases[index], prediction, protocol)
        return _judged_matches(prediction, *found)

    depth = any(case.depths is not None for case in cases)
    what = f": reprojection under {pose.FIGURE_PX:g} px" if depth else ""
    pictures += _confidence_pictures(results, by_confidence, protocol.confidence_threshold, what)
    pictures += _match_pictures(
        results, cases, judged, protocol.confidence_threshold, "pose_error_deg"
    )
    summary = results.summary
    header = ["", "AUC@5", "AUC@10", "AUC@20", "failures"]
    rows = []
    for one in protocol.estimators:
        part = summary["estimators"][one.key]
        failures = number(part["failures"], 0 if protocol.repeats == 1 else 1)
        rows += [
            [one.key, *(auc_cell(part, t) for t in _DEG), failures],
            ["approximate (table 6)", *(number(part["auc_approximate"][t]) for t in _DEG), ""],
            ["signed direction", *(number(part["auc_signed_direction"][t]) for t in _DEG), ""],
        ]
    aucs = "Pose AUC [%] with 95% intervals"
    if protocol.repeats > 1:
        aucs += f", mean and standard deviation of {protocol.repeats} repeats"
    quality = [
        [
            with_interval(summary["precision"], summary["precision_interval"]),
            with_interval(summary["recall"], summary["recall_interval"]),
            with_interval(summary["f1"], summary["f1_interval"]),
            with_interval(summary["matching_score"], summary["matching_score_interval"]),
            number(summary["ratio_to_mutual"]),
            number(summary["mean_keypoints0"], 0),
            number(summary["mean_matches"], 1),
            number(summary["mean_inliers"], 1),
            str(summary["pairs"]),
        ]
    ]
    write_report(
        results.folder / "report.html",
        f"Relative pose: {results.label}",
        _protocol_line(results.config["protocol"]),
        [
            Table(aucs, header, rows),
            Table("Matches", _MATCH_HEADER, quality),
        ],
        pictures,
        run_details(results),
    )


_MATCH_HEADER = [
    "P [%]", "R [%]", "F1 [%]", "MS [%]", "right / mutual's", "keypoints", "matches", "inliers",
    "pairs",
]  # fmt: skip
_DEG = tuple(f"{t:g}" for t in AUC_THRESHOLDS_DEG)


def _homography_cells(part: dict[str, Any]) -> list[str]:
    return [
        with_interval(part["ransac_auc"]["10"], part["ransac_auc_interval_10"]),
        with_interval(part["dlt_auc"]["10"], part["dlt_auc_interval_10"]),
        with_interval(part["precision"], part["precision_interval"]),
        with_interval(part["recall"], part["recall_interval"]),
        number(part["f1"], 1),
        number(part["matching_score"], 1),
        number(part["mean_distance_px"], 1),
        str(part["pairs"]),
    ]


def _protocol_line(protocol: dict[str, Any]) -> str:
    flat: dict[str, Any] = {}
    for key, value in protocol.items():
        if key == "estimators":  # they differ in name and iterations only
            each = [f"{one['name']} ({one['max_iterations']} iterations)" for one in value]
            flat |= {k: v for k, v in value[0].items() if k not in ("name", "max_iterations")}
            flat[key] = ", ".join(each)
        else:
            flat |= value if isinstance(value, dict) else {key: value}
    return "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in flat.items())


def _judged_matches(prediction: Prediction, correct: Bools, possible: NDArray) -> JudgedMatches:
    """With which of the matches are among the ``possible`` ones (L, 2)."""
    there = {tuple(row) for row in possible.tolist()}
    found = np.array([tuple(row) in there for row in prediction.matches.tolist()], bool)
    return JudgedMatches(prediction.confidence, correct, found, len(possible))


def _confidence_pictures(
    results: Results,
    judge: Callable[[int], JudgedMatches | None],
    threshold: float,
    what: str = "",
) -> list[Picture]:
    """Precision and recall over the matches (figure 9), and the reliability diagram."""
    judged = [judge(int(row["index"])) for row in results.records]
    pairs = [pair for pair in judged if pair is not None]
    levels = thresholds_of(pairs)
    if len(levels) < 3:
        return []
    curves = confidence_curves(pairs, levels)
    write_curves(results.folder, curves)
    used = {results.label: confidence_curves(pairs, [threshold])}
    folder = results.folder / "pictures"
    pictures = draw_curves(folder, {results.label: curves}, used, what)
    found = metrics.reliability(
        np.concatenate([pair.scores for pair in pairs]),
        np.concatenate([pair.correct for pair in pairs]),
    )
    error = f"expected calibration error {100 * found.expected_error:.1f} %"
    diagram = folder / "reliability.png"
    filled = found.count > 0
    figures.lines(
        diagram,
        f"Reliability of the confidence: {error}",
        {
            results.label: (100 * found.confidence[filled], 100 * found.accuracy[filled]),
            "calibrated": ([0, 100], [0, 100]),
        },
        "confidence [%]",
        "correct matches [%]",
    )
    return [*pictures, Picture(diagram, f"Reliability diagram; {error}")]


def _match_pictures(
    results: Results,
    cases: Sequence[PairCase],
    judge: Callable[[int], Judged | None],
    threshold: float,
    sort_by: str,
    count: int = 6,
) -> list[Picture]:
    """Matches of pairs from the smallest to the largest error (figures 2 and 6)."""
    order = np.argsort(results.column(sort_by), kind="stable")
    chosen = sorted({int(k) for k in np.linspace(0, len(order) - 1, count)})
    pictures = []
    for rank in chosen:
        row = results.records[order[rank]]
        index = int(row["index"])
        judged = judge(index)
        if judged is None:
            continue
        kept = judged.prediction.confidence > threshold
        errors = judged.errors[kept]
        prediction = judged.prediction.above(threshold)
        case = cases[index]
        picture = draw_correspondences(
            case.image(0),
            case.image(1),
            prediction.points0,
            prediction.points1,
            1 - errors / (2 * judged.limit),
        )
        correct = int((errors < judged.limit).sum())
        caption = f"{correct} of {len(errors)} matches correct"
        error = f"{sort_by.replace('_', ' ')} {float(row[sort_by]):.2f}"
        write_text(picture, [caption, error])
        path = results.folder / "pictures" / f"matches_{rank:04d}.jpg"
        cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
        names = f"{row['name0']} and {row['name1']}"
        colours = f"green: no error, yellow: {judged.limit:g} {judged.unit}, red: wrong"
        pictures.append(
            Picture(path, f"{names}: {caption}, {error} (rank {rank + 1}; {colours})", True)
        )
    return pictures


def _folder(results: Results) -> Path:
    folder = results.folder / "pictures"
    folder.mkdir(exist_ok=True)
    for old in (*folder.glob("*.png"), *folder.glob("*.jpg")):
        old.unlink()
    return folder
