"""One evaluation of image pairs from cases to a finished result folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from superglue_ros.errors import DataError
from superglue_ros.evaluation.pairs.methods import Method, MethodSpec
from superglue_ros.evaluation.pairs.predictions import (
    Missing,
    PairCase,
    Prediction,
    PredictionStore,
    predict_all,
)
from superglue_ros.evaluation.progress import track
from superglue_ros.evaluation.reports.results import (
    Results,
    read_results,
    timing_summary,
    versions,
    write_estimates,
    write_json,
    write_records,
)

Case = TypeVar("Case", bound=PairCase)
Record = dict[str, Any]


@dataclass(frozen=True)
class PairEvaluation(Generic[Case]):
    """One kind of evaluation: its cases, and the function that evaluates them.

    A record may hold ``estimates``, rows of its own, which are written to ``estimates.csv``.
    """

    kind: str
    cases: Sequence[Case]
    data: Mapping[str, Any]
    protocol: Mapping[str, Any]
    judge: Callable[[Case, Prediction], Record]
    summarise: Callable[[Sequence[Record], Sequence[Missing]], dict[str, Any]]
    report: Callable[[Results, Sequence[Case], PredictionStore], None]


def run(
    evaluation: PairEvaluation[Case],
    spec: MethodSpec,
    output: Path,
    overwrite: bool = False,
    label: str = "",
    feature_cache: Path | None = None,
    pictures: bool = True,
) -> Results:
    """Predict, evaluate and write ``output``; existing predictions are reused.

    ``feature_cache`` is a folder of features that several methods share; ``pictures`` asks for
    pictures and the HTML report.

    Raises :class:`DataError` where not one pair could be evaluated, or where the folder belongs to
    another configuration.
    """
    fingerprint = {"method": spec.fingerprint(), "data": dict(evaluation.data)}
    store = PredictionStore(output / "predictions", fingerprint, overwrite)
    config = {
        "kind": evaluation.kind,
        "label": label or spec.label,
        "protocol": dict(evaluation.protocol),
        **fingerprint,
    }
    write_json(output / "config.json", config)
    write_json(output / "versions.json", versions())
    records: list[Record] = []
    missing: list[Missing] = []
    seconds: dict[str, list[float]] = {"extract": [], "match": []}
    predictions = predict_all(evaluation.cases, lambda: Method(spec, feature_cache), store)
    total = len(evaluation.cases)
    for index, prediction in enumerate(track(predictions, total, str(config["label"]))):
        case = evaluation.cases[index]
        if isinstance(prediction, Missing):
            missing.append(prediction)
            continue
        records.append({"index": index, **evaluation.judge(case, prediction)})
        seconds["extract"] += prediction.seconds[:2].tolist()
        seconds["match"].append(float(prediction.seconds[2]))
    (output / "missing.txt").write_text("".join(f"{m.reason}\n" for m in missing), encoding="utf-8")
    if not records:
        raise DataError(f"none of {total} pairs could be evaluated: {missing[0].reason}")
    write_records(output / "records.csv", records)
    write_estimates(output, records)
    write_json(output / "timing.json", timing_summary(seconds))
    write_json(output / "summary.json", evaluation.summarise(records, missing))
    results = read_results(output)
    if pictures:
        evaluation.report(results, evaluation.cases, store)
    return results
