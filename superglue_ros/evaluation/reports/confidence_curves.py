"""Precision and recall over the number of matches, as the threshold varies (figure 9)."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from superglue_ros.errors import DataError
from superglue_ros.evaluation import metrics
from superglue_ros.evaluation.reports import figures
from superglue_ros.evaluation.reports.report import Picture
from superglue_ros.evaluation.reports.results import write_records

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CURVES = "confidence_curves.csv"
"""In a result folder with pictures."""
_STEPS = 24


@dataclass(frozen=True, eq=False)
class JudgedMatches:
    """The matches (K,) of a pair: confidence, whether right, whether among those to find.

    ``possible``: how many correspondences there are to find.
    """

    scores: NDArray[np.floating]
    correct: Bools
    found: Bools
    possible: int


@dataclass(frozen=True, eq=False)
class Curves:
    """Means over pairs, (T,) for every threshold; shares in per cent."""

    threshold: Floats
    matches: Floats
    correct: Floats
    precision: Floats
    recall: Floats


def thresholds_of(pairs: Sequence[JudgedMatches]) -> Floats:
    """Quantiles of all confidences; the last ones would leave too few matches."""
    scores = np.concatenate([*(pair.scores for pair in pairs), np.zeros(1)])
    return np.unique(np.quantile(scores, np.linspace(0, 0.95, _STEPS)))


def confidence_curves(pairs: Sequence[JudgedMatches], thresholds: ArrayLike) -> Curves:
    """The curves at these thresholds; a match counts from the threshold on.

    Pairs without matches left do not enter the precision, pairs without anything to find not the
    recall.
    """
    levels = np.asarray(thresholds, np.float64).ravel()
    scores = [pair.scores for pair in pairs]
    correct, precision = metrics.precision_curve(scores, [pair.correct for pair in pairs], levels)
    matches, recall = [], []
    for level in levels:
        kept = [score >= level for score in scores]
        matches.append(float(np.mean([np.count_nonzero(k) for k in kept])) if kept else 0.0)
        recall.append(
            metrics.mean_defined(
                [
                    np.count_nonzero(pair.found & k) / pair.possible if pair.possible else np.nan
                    for pair, k in zip(pairs, kept, strict=True)
                ]
            )
        )
    return Curves(
        threshold=levels,
        matches=np.array(matches),
        correct=correct,
        precision=100 * precision,
        recall=100 * np.array(recall),
    )


def write_curves(folder: Path, curves: Curves) -> None:
    """``confidence_curves.csv`` in a result folder."""
    columns = asdict(curves)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    write_records(folder / CURVES, rows)


def read_curves(folder: Path) -> Curves | None:
    """The curves of a result folder, None where it has none; :class:`DataError` on other files."""
    file = folder / CURVES
    if not file.is_file():
        return None
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            rows = list(csv.DictReader(opened))
        names = Curves.__dataclass_fields__
        return Curves(*(np.array([float(row[name]) for row in rows]) for name in names))
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{file} does not hold curves: run evaluate again") from error


def draw_curves(
    folder: Path,
    curves: Mapping[str, Curves],
    marks: Mapping[str, Curves] | None = None,
    what: str = "",
) -> list[Picture]:
    """``precision_over_matches.png`` and ``recall_over_matches.png``, a line for each method.

    ``marks``: the point of the threshold in use. ``what`` counts as right, for the captions.
    """
    used = marks or {}
    pictures = []
    for name, x, y, xlabel in (
        ("precision", "correct", "precision", "correct matches per pair"),
        ("recall", "matches", "recall", "matches per pair"),
    ):
        path = folder / f"{name}_over_matches.png"
        figures.lines(
            path,
            f"{name.capitalize()} over {xlabel}, varying the confidence threshold",
            {label: (getattr(one, x), getattr(one, y)) for label, one in curves.items()},
            xlabel,
            f"{name} [%]",
            {k: (float(getattr(v, x)[0]), float(getattr(v, y)[0])) for k, v in used.items()},
        )
        ring = "; ring: the threshold in use" if used else ""
        pictures.append(Picture(path, f"{name.capitalize()} over matches (figure 9){what}{ring}"))
    return pictures
