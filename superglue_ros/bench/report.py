"""The report of a benchmark run: ``summary.json``, a plot, tables for docs/performance.md."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import ScalarFormatter

from superglue_ros.bench.device import DeviceAgreement, PrecisionRow, StageRow
from superglue_ros.bench.floor import Rates
from superglue_ros.bench.measure import AgreementRow, ExtractRow, PairRow, WindowRow
from superglue_ros.bench.node import NodeRow, RateRow
from superglue_ros.drawing.plots import new_figure, save
from superglue_ros.errors import ConfigError

BEGIN = "<!-- tables: written by superglue-ros bench -->"
END = "<!-- end of tables -->"
BEGIN_RATES = "<!-- rates: written by superglue-ros bench --rates -->"
END_RATES = "<!-- end of rates -->"


@dataclass(frozen=True)
class MemoryRow:
    """Peak resident memory of a fresh process in MiB; None = it failed."""

    keypoints: int
    before: float | None
    ours: float | None
    transformers: float | None


@dataclass(frozen=True)
class Results:
    """All results of one run; empty = not (yet) measured."""

    machine: str
    versions: str
    threads: int
    rates: Rates
    pairs: Sequence[PairRow] = ()
    windows: Sequence[WindowRow] = ()
    extraction: Sequence[ExtractRow] = ()
    memory: Sequence[MemoryRow] = ()
    agreement: Sequence[AgreementRow] = ()
    precisions: dict[str, str] = field(default_factory=dict)
    onnx: dict[str, float] = field(default_factory=dict)
    node: NodeRow | None = None
    stages: Sequence[StageRow] = ()
    lower: Sequence[PrecisionRow] = ()
    on_device: DeviceAgreement | None = None


def summary(results: Results) -> dict[str, Any]:
    """Contents of ``summary.json``: all rows, and the ratios by keypoints."""
    return {
        "ratio_vs_transformers": {
            str(row.keypoints): row.ratio_vs_transformers for row in results.pairs
        },
        "ratio_to_floor": {str(r.keypoints): r.seconds / r.floor_seconds for r in results.pairs},
        **asdict(results),
    }


def write(results: Results, output: Path, document: Path | None) -> None:
    """Write ``summary.json`` and ``performance.png`` to ``output`` and the tables to ``document``.

    In the document the text between the two marks is replaced; the plot is written next to it.
    """
    output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_finite(summary(results)), indent=2)
    (output / "summary.json").write_text(text + "\n", encoding="utf-8")
    if results.pairs:
        plot(results, output / "performance.png")
    (output / "tables.md").write_text(tables(results), encoding="utf-8")
    if document is None:
        return
    if document.suffix != ".md":
        raise ConfigError(f"{document} is no Markdown file: name one that ends in .md")
    put(document, f"{tables(results)}\n![time and ratio](performance.png)\n", BEGIN, END)
    if results.pairs:
        plot(results, document.parent / "performance.png")


def write_rates(machine: str, rows: Sequence[RateRow], output: Path, document: Path | None) -> None:
    """Write ``rates.json`` and ``rates.md`` to ``output``, and the table to ``document``."""
    output.mkdir(parents=True, exist_ok=True)
    values = {"machine": machine, "rates": [asdict(row) for row in rows]}
    text = json.dumps(_finite(values), indent=2) + "\n"
    (output / "rates.json").write_text(text, encoding="utf-8")
    table = f"Measured on: {machine}.\n\n{rate_table(rows)}"
    (output / "rates.md").write_text(table, encoding="utf-8")
    if document is not None:
        put(document, table, BEGIN_RATES, END_RATES)


def rate_table(rows: Sequence[RateRow]) -> str:
    """The rates that the node holds, as Markdown."""
    return _table(
        "matcher|precision|overlap|keypoints|keyframes|images per second|latency|95 %|images",
        [
            [
                row.weights,
                row.precision,
                row.overlap,
                str(row.keypoints),
                str(row.keyframes),
                "none held" if row.rate is None else f"{row.rate:.1f}",
                _ms(row.median),
                _ms(row.p95),
                str(row.frames or "-"),
            ]
            for row in rows
        ],
    )


def put(document: Path, text: str, begin: str, end: str) -> None:
    """Replace what stands between two marks of ``document``; without marks, put it at the end."""
    old = document.read_text(encoding="utf-8") if document.exists() else ""
    if begin not in old:
        old += f"{begin}\n{end}\n"
    head, _, rest = old.partition(begin)
    _, _, tail = rest.partition(end)
    document.parent.mkdir(parents=True, exist_ok=True)
    document.write_text(f"{head}{begin}\n\n{text}\n{end}{tail}", encoding="utf-8")


def plot(results: Results, path: Path) -> None:
    """Seconds per pair over keypoints of ours, the floor and the peers, and the ratios."""
    figure, (times, ratios) = new_figure(2, row_height=3.0)
    count = np.array([row.keypoints for row in results.pairs])
    curves: dict[str, list[float | None]] = {
        "this package": [row.seconds for row in results.pairs],
        "floor": [row.floor_seconds for row in results.pairs],
        "transformers": [row.transformers_seconds for row in results.pairs],
        "LightGlue": [row.lightglue_seconds for row in results.pairs],
    }
    for label, values in curves.items():
        if any(value is not None for value in values):
            seconds = [np.nan if value is None else value for value in values]
            times.plot(count, seconds, "o--" if label == "floor" else "o-", label=label)
    times.set(xscale="log", yscale="log", ylabel="seconds per pair")
    times.legend(fontsize="small")
    ratio = [
        np.nan if r.ratio_vs_transformers is None else r.ratio_vs_transformers
        for r in results.pairs
    ]
    ratios.plot(count, ratio, "o-", label="transformers / this package")
    ratios.plot(
        count,
        [r.seconds / r.floor_seconds for r in results.pairs],
        "o--",
        label="this package / floor",
    )
    ratios.set(xlabel="keypoints per image", ylabel="ratio", ylim=(0, None))
    ratios.set_xticks(count)
    ratios.xaxis.set_major_formatter(ScalarFormatter())
    ratios.minorticks_off()
    ratios.legend(fontsize="small")
    save(figure, path)


def tables(results: Results) -> str:
    """All tables as Markdown."""
    rates = results.rates
    parts = [
        f"Measured on: {results.machine}; {results.threads} threads; {results.versions}. Rates of "
        f"this run: matrix product {rates.linear / 1e9:.0f} GFLOP/s, attention "
        f"{rates.attention / 1e9:.0f} GFLOP/s, memory {rates.stream / 1e9:.0f} GB/s.\n",
        "### One pair, full network (9 x 2 layers, width 256), float32\n",
        _table(
            "keypoints|this package|frames per second|of it optimal transport|log domain|"
            "transformers|ratio|LightGlue|floor|over floor|ns per keypoint pair|same matches",
            [
                [
                    str(r.keypoints),
                    _ms(r.seconds),
                    f"{1 / r.seconds:.2f}",
                    f"{_ms(r.transport_seconds)} ({r.transport_iterations} iterations)",
                    _ms(r.log_domain_seconds),
                    _ms(r.transformers_seconds),
                    _number(r.ratio_vs_transformers),
                    _ms(r.lightglue_seconds),
                    _ms(r.floor_seconds),
                    f"{r.seconds / r.floor_seconds:.2f}",
                    f"{r.seconds / r.keypoints**2 * 1e9:.0f}",
                    _same(r),
                ]
                for r in results.pairs
            ],
        ),
        "### One frame against a window of keyframes\n",
        _table(
            "keyframes|keypoints|matching|over one|with extraction|over one",
            [
                [
                    str(r.keyframes),
                    str(r.keypoints),
                    _ms(r.match_seconds),
                    f"{r.match_over_one:.2f}",
                    _ms(r.frame_seconds),
                    f"{r.frame_over_one:.2f}",
                ]
                for r in results.windows
            ],
        ),
        "### SuperPoint\n",
        _table(
            "network|image|this package|transformers|ratio",
            [
                [
                    r.name,
                    f"{r.width}x{r.height}",
                    _ms(r.seconds),
                    _ms(r.transformers_seconds),
                    _number(r.ratio_vs_transformers),
                ]
                for r in results.extraction
            ],
        ),
        "### Peak memory of a process that matches one pair\n",
        _table(
            "keypoints|before matching|this package|transformers",
            [
                [str(r.keypoints), _mib(r.before), _mib(r.ours), _mib(r.transformers)]
                for r in results.memory
            ],
        ),
        _agreement(results.agreement),
        *_of_a_gpu(results),
    ]
    if results.precisions:
        parts += [
            "### Other precisions and runtimes\n",
            _table("variant|outcome", [[k, v] for k, v in results.precisions.items()]),
        ]
    if results.onnx:
        parts.append(_table("ONNX Runtime|time", [[k, _ms(v)] for k, v in results.onnx.items()]))
    if results.node is not None:
        parts += ["### Node\n", _node(results.node)]
    return "\n".join(parts)


def _agreement(rows: Sequence[AgreementRow]) -> str:
    if not rows:
        return ""
    same = sum(row.same_indices for row in rows)
    return (
        f"Against the plain network with Sinkhorn in the log domain, on {len(rows)} pairs of "
        f"consecutive frames of the built-in sequence with the package's weights: the same index "
        f"set in {same} of {len(rows)}, {sum(r.matches for r in rows)} matches, scores within "
        f"{max(r.score_difference for r in rows):.1e}.\n"
    )


def _of_a_gpu(results: Results) -> list[str]:
    parts = []
    if results.stages:
        rows = [[r.name, _ms(r.seconds), _ms(r.seconds_of_eight)] for r in results.stages]
        parts += [
            "### The device's time of each step, float32, without launches\n",
            _table("step|one keyframe|eight", rows),
        ]
    if results.lower:
        parts += [
            "### Matching in other precisions\n",
            _table(
                "precision|keypoints|a pair|eight keyframes|floor of a pair|over floor|"
                "matches in common with float32",
                [
                    [
                        r.precision,
                        str(r.keypoints),
                        _ms(r.pair_seconds),
                        _ms(r.eight_seconds),
                        _ms(r.floor_seconds),
                        f"{r.pair_seconds / r.floor_seconds:.2f}",
                        f"{100 * r.common:.1f} %",
                    ]
                    for r in results.lower
                ],
            ),
        ]
    if results.on_device is not None:
        r = results.on_device
        parts.append(
            f"Against the CPU in float32, on {r.pairs} pairs of consecutive frames with the "
            f"package's weights: {100 * r.matching:.1f} % of {r.matches} matches of the same "
            f"features in common, {100 * r.keypoints:.1f} % of the keypoints within half a pixel.\n"
        )
    return parts


def _node(row: NodeRow) -> str:
    added = f"{_ms(row.overhead)} (median; 90th percentile {_ms(row.overhead_p90)})"
    return (
        f"{row.frames} images of {row.width}x{row.height}, {row.keypoints} keypoints, to the node "
        "as a process of its own, over DDS. From publishing the image to receiving its matches: "
        f"{_ms(row.latency)} (median), of which the networks and the geometry take "
        f"{_ms(row.processing)}. The node adds {added}.\n"
    )


def _table(head: str, rows: Sequence[Sequence[str]]) -> str:
    columns = head.split("|")
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _ms(seconds: float | None) -> str:
    if seconds is None or math.isnan(seconds):
        return "-"
    return f"{1e3 * seconds:.1f} ms" if seconds < 0.1 else f"{1e3 * seconds:.0f} ms"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _mib(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} MiB"


def _same(row: PairRow) -> str:
    if row.same_as_transformers is None:
        return "-"
    verdict = "yes" if row.same_as_transformers else "no"
    return f"{verdict}, scores within {row.score_difference:.0e}"


def _finite(value: Any) -> Any:
    """Replace NaN by None: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
