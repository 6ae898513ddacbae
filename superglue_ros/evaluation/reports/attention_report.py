"""Attention over a set of pairs: spans, rays and a report (figures 7, 12 and 16)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

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


def attention_report(
    cases: Sequence[PoseCase], spec: MethodSpec, output: Path, show: int = 0, rows: int = 5
) -> dict[str, Any]:
    """Spans over all ``cases`` and rays of case ``show``: pictures, ``spans.csv``, a report.

    Raises :class:`ConfigError` on any other matcher than SuperGlue.
    """
    if spec.matcher != "superglue":
        raise ConfigError(f"{spec.matcher} has no attention: use --matcher superglue")
    if not 0 <= show < len(cases):
        raise ConfigError(f"--show {show}: there are pairs 0 to {len(cases) - 1}")
    network = load_superglue(
        spec.config.matcher.weights, resolve_device(spec.config.device)
    ).network
    method = Method(spec)
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
    return {kind: mean.tolist() for kind, (mean, _) in means.items()}
