"""Attention over a set of pairs: spans, rays and a report (figures 7, 12 and 16)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import ConfigError, DataError
from superglue_ros.evaluation.pairs.methods import Method, MethodSpec
from superglue_ros.evaluation.pairs.pose import PoseCase
from superglue_ros.evaluation.progress import track
from superglue_ros.evaluation.reports import attention as att
from superglue_ros.evaluation.reports import figures
from superglue_ros.evaluation.reports.report import Picture, Table, number, write_report
from superglue_ros.evaluation.reports.results import versions, write_json, write_records
from superglue_ros.networks.device import resolve_device
from superglue_ros.networks.weights import load_superglue

Floats = NDArray[np.float64]

WEIGHTS = "weights.safetensors"
"""Name of a run's weights in its folder."""


def variant_files(paths: Sequence[Path]) -> dict[str, Path]:
    """Weights by the names of variants: files, or those of folders.

    A folder holds ``NAME.safetensors`` or, as ``train ablation`` leaves it,
    ``NAME/weights.safetensors``. Raises :class:`ConfigError` where there are none.
    """
    found: dict[str, Path] = {}
    for path in paths:
        inside = [*path.glob("*.safetensors"), *path.glob(f"*/{WEIGHTS}")]
        for file in sorted(inside) if path.is_dir() else [path]:
            found[file.parent.name if file.name == WEIGHTS else file.stem] = file
    if not found:
        raise ConfigError(
            f"no weights in {', '.join(map(str, paths))}: give files, or folders with "
            f"NAME.safetensors or NAME/{WEIGHTS}"
        )
    return found


def attention_of_variants(
    cases: Sequence[PoseCase],
    spec: MethodSpec,
    files: Mapping[str, Path],
    output: Path,
    show: int = 0,
) -> Table:
    """:func:`attention_report` of every variant in a folder of its own, and their spans together.

    Writes ``spans_self.png`` and ``spans_cross.png``; returns the table of the mean spans. Variants
    without attention weights are rows that say so.
    """
    found: dict[str, dict[str, tuple[Floats, Floats]]] = {}
    missing: dict[str, str] = {}
    for name, file in files.items():
        try:
            att.check_attention(load_superglue(file).network)
        except ConfigError as error:
            missing[name] = str(error).partition(":")[0]
            continue
        one = spec.with_matcher("superglue", str(file))
        found[name] = _report(cases, one, output / name, show, feature_cache=output / "features")
    output.mkdir(parents=True, exist_ok=True)
    for kind in ("self", "cross"):
        curves = {name: spans[kind] for name, spans in found.items() if kind in spans}
        if curves:
            figures.bands(
                output / f"spans_{kind}.png",
                f"Span of {kind}-attention by variant, 95% intervals",
                curves,
                "layer of its kind",
                "span [px], smallest head",
            )
    rows = []
    for name in files:
        spans = found.get(name, {})
        cells = [
            " ".join(number(v, 0) for v in spans[kind][0]) if kind in spans else "–"
            for kind in ("self", "cross")
        ]
        rows.append([name, *cells, missing.get(name, "")])
    header = ["variant", "self, by layer [px]", "cross, by layer [px]", ""]
    return Table("Attention spans by variant", header, rows)


def attention_report(
    cases: Sequence[PoseCase], spec: MethodSpec, output: Path, show: int = 0
) -> dict[str, Any]:
    """Spans over all ``cases`` and rays of case ``show``: pictures, ``spans.csv``, a report.

    Raises :class:`ConfigError` on any other matcher than SuperGlue.
    """
    means = _report(cases, spec, output, show)
    return {kind: mean.tolist() for kind, (mean, _) in means.items()}


def _report(
    cases: Sequence[PoseCase],
    spec: MethodSpec,
    output: Path,
    show: int,
    rows: int = 5,
    feature_cache: Path | None = None,
) -> dict[str, tuple[Floats, Floats]]:
    if spec.matcher != "superglue":
        raise ConfigError(f"{spec.matcher} has no attention: use --matcher superglue")
    if not 0 <= show < len(cases):
        raise ConfigError(f"--show {show}: there are pairs 0 to {len(cases) - 1}")
    network = load_superglue(
        spec.config.matcher.weights, resolve_device(spec.config.device)
    ).network
    method = Method(spec.network_alone(), feature_cache)
    folder = output / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    threshold = spec.config.matcher.threshold
    collected = []
    pictures: list[Picture] = []
    for index, case in enumerate(track(cases, len(cases), "attention")):
        image0, image1 = case.image(0), case.image(1)
        features0 = method.extract(image0, case.keys[0])
        features1 = method.extract(image1, case.keys[1])
        if not len(features0) or not len(features1):
            continue
        found = method.match(features0, features1, partial(case.image, 1))
        keep = found.scores > threshold
        matches = type(found)(found.index_ref[keep], found.index_query[keep], found.scores[keep])
        collected.append(att.spans(network, features0, features1, matches))
        if index == show:
            layers = list(att.attention(network, features0, features1))
            keypoints = att.chosen_keypoints(matches)
            for kind, cross in (("self", False), ("cross", True)):
                of_kind = [layer for layer in layers if layer.cross == cross]
                if not of_kind:
                    continue
                chosen = sorted({round(k) for k in np.linspace(0, len(of_kind) - 1, rows)})
                picture = att.draw_rays(
                    image0, image1, features0, features1, [of_kind[k] for k in chosen], keypoints
                )
                path = folder / f"rays_{kind}.jpg"
                cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 88])
                caption = f"{kind}-attention, {case.keys[0]} and {case.keys[1]} (figures 7 and 16)"
                pictures.append(Picture(path, caption, True))
    if not collected:
        raise DataError("no pair has keypoints in both images")
    means = att.mean_spans(collected)
    figures.bands(
        folder / "spans.png",
        f"Attention span over {len(collected)} pairs, 95% intervals",
        means,
        "layer of its kind",
        "span [px], smallest head",
    )
    pictures.insert(0, Picture(folder / "spans.png", "Attention span (figure 12)"))
    records = [
        {"kind": kind, "layer": k + 1, "span_px": mean[k], "half_width_px": half[k]}
        for kind, (mean, half) in means.items()
        for k in range(len(mean))
    ]
    write_records(output / "spans.csv", records)
    config = {"kind": "attention", "pairs": len(collected), "method": spec.fingerprint()}
    write_json(output / "config.json", config)
    write_json(output / "versions.json", versions())
    table = Table(
        "Attention span [px]",
        ["kind", "layer", "mean", "95% half-width"],
        [
            [r["kind"], str(r["layer"]), *map(number, (r["span_px"], r["half_width_px"]))]
            for r in records
        ],
    )
    write_report(
        output / "report.html",
        "Attention of SuperGlue",
        f"{len(collected)} pairs, threshold {threshold}",
        [table],
        pictures,
        {"Config": config, "Versions": versions()},
    )
    return means
