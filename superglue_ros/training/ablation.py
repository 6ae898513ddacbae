"""Variants of one recipe at one budget: train each with several seeds, compare on held-out pairs.

Every run reads the same cached views, so variants differ in nothing but what they change. Results
are written after every run, and a run that is finished is not made again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from superglue_ros.drawing.plots import new_figure, save
from superglue_ros.engines.plain import torch_engine
from superglue_ros.errors import ConfigError
from superglue_ros.networks.superglue import SuperGlue
from superglue_ros.networks.weights import load_superglue
from superglue_ros.settings import load, setting
from superglue_ros.training.checkpoint import WEIGHTS, write_atomically
from superglue_ros.training.data.batches import read_pair
from superglue_ros.training.data.cache import read_cache
from superglue_ros.training.objectives.loss import match_quality
from superglue_ros.training.recipes import SuperGlueRecipe
from superglue_ros.training.runs import superglue_trainer

_ITERATIONS = 100
_FINISHED = "finished.json"


@dataclass(frozen=True)
class AblationRecipe:
    """What ``superglue-ros train ablation`` runs.

    ``recipe``: the SuperGlue recipe that all variants change, with its budget (``loop.minutes`` or
    the steps of its stages); ``variants``: name to changes of it, ``NAME=VALUE`` as of ``--set``;
    ``heldout``: name to a cache that no variant trains on.
    """

    output: str
    recipe: str
    variants: dict[str, tuple[str, ...]]
    heldout: dict[str, str]
    seeds: int = setting(3, "Runs of each variant.", low=1)
    pairs: int = setting(200, "Pairs of each held-out cache that are matched.", low=1)
    set: tuple[str, ...] = field(default=())  # changes of the recipe, for all variants

    def __post_init__(self) -> None:
        if not self.variants or not self.heldout:
            raise ConfigError("an ablation needs variants, and held-out caches to compare them on")


@dataclass(frozen=True)
class Row:
    """One run on one held-out cache: precision and recall in per cent, time of a pair."""

    variant: str
    seed: int
    heldout: str
    precision: float
    recall: float
    milliseconds: float

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, in per cent."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def run_ablation(recipe: AblationRecipe) -> Path:
    """Train what is missing, write ``results.json``, ``table.md`` and ``plot.png``; the table."""
    output = Path(recipe.output)
    for words in recipe.variants.values():  # a mistake shows before hours of training
        load(recipe.recipe, SuperGlueRecipe, [*recipe.set, *words])
    console = Console(stderr=True)
    rows: list[Row] = []
    for seed in range(recipe.seeds):  # all variants first: the table is whole early
        for name, words in recipe.variants.items():
            folder = output / "runs" / f"{name}-{seed}"
            rows += _finished(folder) or _train(recipe, name, words, seed, folder)
            _write(rows, output)
            console.print(f"{name}, seed {seed}: {_last(rows, recipe.heldout)}")
    return output / "table.md"


def _train(
    recipe: AblationRecipe, name: str, words: Sequence[str], seed: int, folder: Path
) -> list[Row]:
    own = [f"output={json.dumps(str(folder))}", f"loop.seed={seed}"]
    superglue_trainer(recipe.recipe, [*recipe.set, *words, *own]).run()
    network = load_superglue(folder / WEIGHTS).network
    rows = [
        evaluate(network, name, seed, heldout, cache, recipe.pairs)
        for heldout, cache in recipe.heldout.items()
    ]
    text = json.dumps([asdict(row) for row in rows])
    write_atomically(folder / _FINISHED, text.encode())
    return rows


def evaluate(
    network: SuperGlue, variant: str, seed: int, heldout: str, cache: str, pairs: int
) -> Row:
    """Match up to ``pairs`` pairs of a cache as the node would, with all keypoints."""
    shards, _ = read_cache(cache)
    every = [(shard, i) for shard in shards for i in range(len(shard.pairs))]
    chosen = every[:: max(1, len(every) // pairs)][:pairs]
    engine = torch_engine(network, torch.device("cpu"))
    quality, seconds = [], []
    for shard, index in chosen:
        sample = read_pair(shard, index)
        a, b = (
            engine.prepare(points, scores, descriptors, (int(size[0]), int(size[1])))
            for points, scores, descriptors, size in sample.sides
        )
        started = time.perf_counter()
        ((_, found),) = engine.match_pairs([a], [b], _ITERATIONS)  # type: ignore[arg-type, list-item]
        seconds.append(time.perf_counter() - started)
        labels = torch.from_numpy(sample.labels.matches0).long()[None]
        quality.append([float(x) for x in match_quality(found, labels)])
    precision, recall = 100 * np.mean(quality, axis=0)
    return Row(
        variant=variant,
        seed=seed,
        heldout=heldout,
        precision=float(precision),
        recall=float(recall),
        milliseconds=1e3 * float(np.median(seconds)),
    )


def table(rows: Sequence[Row]) -> str:
    """A Markdown table: mean over the seeds, with their standard deviation."""
    heldout = list(dict.fromkeys(row.heldout for row in rows))
    head = ["variant", "seeds"]
    for name in heldout:
        head += [f"{name} P", f"{name} R", f"{name} F1"]
    lines = [head, ["---"] * len(head)]
    for variant, of_variant in _by_variant(rows).items():
        cells = [variant, str(len({row.seed for row in of_variant}))]
        for name in heldout:
            of_cache = [row for row in of_variant if row.heldout == name]
            for values in (
                [row.precision for row in of_cache],
                [row.recall for row in of_cache],
                [row.f1 for row in of_cache],
            ):
                cells.append(f"{np.mean(values):.1f} ± {_deviation(values):.1f}")
        lines.append(cells)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def _write(rows: Sequence[Row], output: Path) -> None:
    text = json.dumps([asdict(row) for row in rows], indent=1)
    write_atomically(output / "results.json", text.encode())
    write_atomically(output / "table.md", table(rows).encode())
    by_variant = _by_variant(rows)
    heldout = list(dict.fromkeys(row.heldout for row in rows))
    figure, axes = new_figure(len(heldout), row_height=1.0 + 0.25 * len(by_variant))
    for axis, name in zip(axes, heldout, strict=True):
        for place, of_variant in enumerate(by_variant.values()):
            values = [row.f1 for row in of_variant if row.heldout == name]
            axis.plot(values, [place] * len(values), "o", color="tab:blue", alpha=0.5)
            axis.plot([np.mean(values)], [place], "|", color="black", markersize=14)
        axis.set_yticks(range(len(by_variant)), list(by_variant))
        axis.invert_yaxis()
        axis.set(xlabel=f"F1 on {name}, per cent")
    save(figure, output / "plot.png")


def _by_variant(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.variant, []).append(row)
    return found


def _finished(folder: Path) -> list[Row]:
    file = folder / _FINISHED
    return [Row(**row) for row in json.loads(file.read_text("utf-8"))] if file.is_file() else []


def _last(rows: Sequence[Row], heldout: Mapping[str, str]) -> str:
    recent = rows[-len(heldout) :]
    return ", ".join(f"{row.heldout} P {row.precision:.1f} R {row.recall:.1f}" for row in recent)


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
