"""Time by stage over the number of keypoints (figure 11)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from superglue_ros.engines.superglue import SuperGlueEngine
from superglue_ros.evaluation.progress import track
from superglue_ros.evaluation.reports import figures
from superglue_ros.evaluation.reports.report import Picture, Table, number, write_report
from superglue_ros.evaluation.reports.results import versions, write_json
from superglue_ros.networks.device import resolve_device
from superglue_ros.networks.sinkhorn import sinkhorn
from superglue_ros.networks.superglue import SuperGlue, SuperGlueConfig
from superglue_ros.networks.weights import load_superglue


@dataclass(frozen=True, eq=False)
class StageTimes:
    """Milliseconds for each number of keypoints: medians by stage, quartiles (K, 2) of the sum."""

    stages: dict[str, list[float]]
    quartiles: list[list[float]]


def stage_times(
    network: SuperGlue, keypoints: Sequence[int], device: str, repeat: int, iterations: int = 100
) -> StageTimes:
    """Median milliseconds per stage for each number of keypoints per image (figure 11).

    Random keypoints and descriptors: the time depends on their number alone. The stages are those
    of the engine that the node runs; the encoder's share includes the layers before the first
    cross-attention, of one image. At least ``repeat`` rounds, and half a second of them.
    """
    where = resolve_device(device)
    engine = SuperGlueEngine(network, where)
    dim = network.config.descriptor_dim
    stages: dict[str, list[float]] = {
        "encode one image": [],
        "graph network": [],
        "optimal matching": [],
    }
    quartiles = []
    for count in track(keypoints, len(keypoints), "timing"):
        generator = torch.Generator().manual_seed(0)
        sets = []
        for _ in range(2):
            points = torch.rand(count, 2, generator=generator) * torch.tensor([640.0, 480.0])
            descriptors = torch.nn.functional.normalize(
                torch.randn(count, dim, generator=generator), dim=1
            )
            sets.append((points, torch.rand(count, generator=generator), descriptors, (640, 480)))
        times: list[tuple[float, float, float]] = []
        started = _now(where)
        while len(times) <= repeat or _now(where) - started < _LEAST_SECONDS:
            marks = [_now(where)]
            tokens = engine.prepare(*sets[0])
            marks.append(_now(where))
            other = engine.prepare(*sets[1])
            middle = _now(where)
            scores = dict(engine.scores([tokens], [other]))[0]
            marks.append(_now(where))
            sinkhorn(scores, network.dustbin.detach().to(where), iterations)
            marks.append(_now(where))
            times.append((marks[1] - marks[0], marks[2] - middle, marks[3] - marks[2]))
        kept = 1000 * np.array(times[1:])  # the first round warms up
        quartiles.append(np.percentile(kept.sum(1), [25, 75]).tolist())
        medians = np.median(kept, axis=0)
        for name, value in zip(stages, medians, strict=True):
            stages[name].append(float(value))
    return StageTimes(stages, quartiles)


def timing_report(
    weights: str, keypoints: Sequence[int], device: str, repeat: int, output: Path
) -> Table:
    """Write ``time_split.png``, ``timing.json`` and a report to ``output``.

    ``weights`` as :func:`superglue_file` takes them, or ``full``: the paper's size, not trained.
    """
    network = SuperGlue(SuperGlueConfig()).eval() if weights == "full" else None
    network = network or load_superglue(weights, resolve_device(device)).network
    measured = stage_times(network, keypoints, device, repeat)
    stages = measured.stages
    output.mkdir(parents=True, exist_ok=True)
    path = output / "time_split.png"
    layers, width = network.config.layers, network.config.width
    title = f"SuperGlue, {layers if network.config.graph else 0} x 2 layers of width {width}"
    figures.stacked_times(path, title, keypoints, stages, measured.quartiles)
    write_json(
        output / "timing.json",
        {
            "keypoints": list(keypoints),
            "milliseconds": stages,
            "quartiles": measured.quartiles,
            "least_repeats": repeat,
            "threads": torch.get_num_threads(),
        },
    )
    table = Table(
        "Milliseconds per stage (median)",
        ["keypoints", *stages, "per pair", "half of the pairs"],
        [
            [
                str(count),
                *(number(values[k], 1) for values in stages.values()),
                # A tracked frame encodes one image; its keyframe's encoding is kept.
                number(sum(values[k] for values in stages.values()), 1),
                " to ".join(number(v, 1) for v in measured.quartiles[k]),
            ]
            for k, count in enumerate(keypoints)
        ],
    )
    write_report(
        output / "report.html",
        "Time by stage",
        title,
        [table],
        [Picture(path, "Time by stage over keypoints (figure 11)")],
        {"Versions": versions()},
    )
    return table


_LEAST_SECONDS = 0.5
"""Of measurement for each number of keypoints: one round of few keypoints is all noise."""


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
