"""Options of the network that save time, beside the dense one: time, and matches lost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from superglue_ros.bench.inputs import FLOAT32
from superglue_ros.bench.timing import paired
from superglue_ros.config import FrontEndConfig
from superglue_ros.data.image import to_grey
from superglue_ros.engines.superglue import SuperGlueEngine
from superglue_ros.frontends.base import make_front_end
from superglue_ros.geometry.ground_truth import HOMOGRAPHY, project_homography
from superglue_ros.matchers.superglue import mutual_assignment
from superglue_ros.networks.sinkhorn import sinkhorn
from superglue_ros.networks.superglue import with_options
from superglue_ros.networks.weights import load_superglue
from superglue_ros.synthetic.homographies import HomographyRecipe, sample_pair
from superglue_ros.synthetic.photographs import photograph
from superglue_ros.types import Features

CPU = torch.device("cpu")
COUNTS = (1024, 4096, 8192)
CHANGES: Mapping[str, Mapping[str, int]] = {
    "dense": {},
    "top-k": {"top_k": 256},
    "hierarchy": {"hierarchy": 8},
    "top-k and hierarchy": {"top_k": 256, "hierarchy": 8},
}
"""Changes of the packaged network that need no training."""
_THRESHOLD, _ITERATIONS = 0.2, 100
_PHOTOGRAPHS = ("astronaut", "coffee")
_SIZES = {512: (320, 240), 2048: (640, 480)}  # of views, up to so many keypoints
_LARGEST = (1280, 960)


@dataclass(frozen=True)
class OptionRow:
    """One network on pairs of ``keypoints`` each; times are medians of paired rounds.

    ``assignment_seconds``: of it, optimal transport. ``over_dense``: time in parts of the dense
    network's. ``precision`` and ``right_over_dense``, the number of right matches in parts of the
    dense network's: means over the pairs. A match is right under 3 px.
    """

    keypoints: int
    name: str
    seconds: float
    over_dense: float
    assignment_seconds: float
    matches: int
    precision: float
    right_over_dense: float


@dataclass(frozen=True, eq=False)
class _Pair:
    first: Features
    second: Features
    homography: np.ndarray

    def right(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Which matches (K,) are right."""
        size = self.first.width, self.first.height
        there = project_homography(self.first.keypoints[rows], self.homography, *size).points
        errors = np.linalg.norm(there - self.second.keypoints[columns], axis=1)
        return np.asarray(errors < HOMOGRAPHY.match)


def measure_count(
    count: int,
    rounds: int,
    weights: Sequence[Path] = (),
    clock: Callable[[], float] = time.perf_counter,
) -> list[OptionRow]:
    """All of :data:`CHANGES`, and networks of further files, on pairs of ``count`` keypoints."""
    packaged = load_superglue().network
    networks = {name: with_options(packaged, **changes) for name, changes in CHANGES.items()}
    networks |= {path.parent.name: load_superglue(path).network for path in weights}
    engines = {name: SuperGlueEngine(network, CPU) for name, network in networks.items()}
    pairs = [_pair(name, count) for name in _PHOTOGRAPHS]
    own = {
        name: [[_prepare(engine, side) for side in (p.first, p.second)] for p in pairs]
        for name, engine in engines.items()
    }
    times = paired(
        {name: partial(_match, engine, own[name][0]) for name, engine in engines.items()},
        rounds,
        clock,
    )
    rows = []
    right_dense = np.ones(len(pairs))
    for name, engine in engines.items():
        reference, query = own[name][0]
        ((_, a, b),) = engine.descriptors([reference], [query])
        alone = paired({"assign": partial(_assign, engine, a, b)}, rounds, clock)
        quality = [
            _judge(pair, _match(engine, sets)) for pair, sets in zip(pairs, own[name], strict=True)
        ]
        right = np.array([one[1] for one in quality], np.float64)
        if name == "dense":
            right_dense = np.maximum(right, 1)
        rows.append(
            OptionRow(
                keypoints=count,
                name=name,
                seconds=times.median(name),
                over_dense=times.ratio(name, "dense"),
                assignment_seconds=alone.median("assign"),
                matches=int(np.mean([one[0] for one in quality])),
                precision=float(np.mean([one[1] / max(one[0], 1) for one in quality])),
                right_over_dense=float((right / right_dense).mean()),
            )
        )
    return rows


def table(rows: Sequence[OptionRow]) -> str:
    """A Markdown table."""
    lines = [
        "| keypoints | network | time | over dense | of it assignment | matches | P [%] | "
        "right / dense's |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        lines.append(
            f"| {r.keypoints} | {r.name} | {1e3 * r.seconds:.0f} ms | {r.over_dense:.2f} | "
            f"{1e3 * r.assignment_seconds:.0f} ms | {r.matches} | {100 * r.precision:.1f} | "
            f"{r.right_over_dense:.3f} |"
        )
    return "\n".join(lines) + "\n"


def write(rows: Sequence[OptionRow], output: Path) -> None:
    """``options.json`` and ``options.md`` in a folder."""
    output.mkdir(parents=True, exist_ok=True)
    (output / "options.json").write_text(json.dumps([asdict(r) for r in rows], indent=1), "utf-8")
    (output / "options.md").write_text(table(rows), "utf-8")


def _pair(name: str, count: int) -> _Pair:
    """Two views of a photograph, drawn from its name, with exactly ``count`` keypoints each."""
    image = to_grey(photograph(name))
    size = next((size for most, size in _SIZES.items() if count <= most), _LARGEST)
    seed = _PHOTOGRAPHS.index(name)
    factor = 2.2 * size[0] / image.shape[1]
    image = np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC))
    recipe = HomographyRecipe(width=size[0], height=size[1])
    made = sample_pair(image, np.random.default_rng(seed), recipe)
    options = FrontEndConfig(max_keypoints=count, threshold=0.0, nms_radius=2, max_size=0)
    front_end = make_front_end(replace(FLOAT32, front_end=options), CPU)
    first, second = front_end.extract(made.image0), front_end.extract(made.image1)
    return _Pair(first, second, np.asarray(made.homography))


def _prepare(engine: SuperGlueEngine, features: Features) -> torch.Tensor:
    return engine.prepare(
        torch.from_numpy(features.keypoints),
        torch.from_numpy(features.scores),
        torch.from_numpy(np.asarray(features.descriptors, np.float32)),
        (features.width, features.height),
    )


def _match(engine: SuperGlueEngine, sets: Sequence[torch.Tensor]) -> torch.Tensor:
    ((_, found),) = engine.match_pairs([sets[0]], [sets[1]], _ITERATIONS)
    return found


@torch.inference_mode()
def _assign(engine: SuperGlueEngine, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return engine.matching.assign(a, b, _ITERATIONS, sinkhorn)


def _judge(pair: _Pair, assignment: torch.Tensor) -> tuple[int, int]:
    """Matches, and right ones."""
    found = mutual_assignment(assignment, _THRESHOLD)[0]
    return len(found), int(pair.right(found.index_ref, found.index_query).sum())
