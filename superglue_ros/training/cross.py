"""Train on each of several data sets, test on each: what a network learns from A is worth on B.

The runs are those of an ablation whose variants differ in the cache that they train on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from superglue_ros.errors import ConfigError
from superglue_ros.settings import load, setting
from superglue_ros.training.ablation import AblationRecipe, Row, run_ablation
from superglue_ros.training.checkpoint import write_atomically
from superglue_ros.training.recipes import SuperGlueRecipe

TOGETHER = "all"


@dataclass(frozen=True)
class CrossRecipe:
    """What ``superglue-ros train cross`` runs.

    ``recipe``: the SuperGlue recipe with its budget, whose stages take their pairs from caches;
    ``sets``: name to the cache that is trained on; ``heldout``: the same names to caches of the
    same kind that nothing trains on. Raises :class:`ConfigError` where the names differ.
    """

    output: str
    recipe: str
    sets: dict[str, str]
    heldout: dict[str, str]
    together: bool = setting(True, "One more row that trains on all sets in equal parts.")
    seeds: int = setting(3, "Runs of each row.", low=1)
    pairs: int = setting(200, "Pairs of each held-out cache that are matched.", low=1)
    set: tuple[str, ...] = field(default=())  # changes of the recipe, for all rows

    def __post_init__(self) -> None:
        if not self.sets or list(self.sets) != list(self.heldout) or TOGETHER in self.sets:
            raise ConfigError(
                f"sets ({', '.join(self.sets)}) and heldout ({', '.join(self.heldout)}) must have "
                f"the same names, other than {TOGETHER!r}"
            )


def run_cross(recipe: CrossRecipe) -> Path:
    """Train what is missing and write ``cross.md``, beside the files of an ablation; its path."""
    run_ablation(as_ablation(recipe))
    output = Path(recipe.output)
    rows = [Row(**row) for row in json.loads((output / "results.json").read_text("utf-8"))]
    write_atomically(output / "cross.md", cross_table(rows).encode())
    return output / "cross.md"


def as_ablation(recipe: CrossRecipe) -> AblationRecipe:
    """The ablation whose variants train on one set each. Raises :class:`ConfigError`."""
    stages = load(recipe.recipe, SuperGlueRecipe, recipe.set).stages
    if any(stage.views is not None for stage in stages):
        raise ConfigError(f"the stages of {recipe.recipe} draw views: give one that reads caches")
    trained = {name: {cache: 1.0} for name, cache in recipe.sets.items()}
    if recipe.together and len(recipe.sets) > 1:
        trained[TOGETHER] = dict.fromkeys(recipe.sets.values(), 1.0)
    return AblationRecipe(
        output=recipe.output,
        recipe=recipe.recipe,
        variants={
            name: tuple(f"stages.{k}.caches={json.dumps(caches)}" for k in range(len(stages)))
            for name, caches in trained.items()
        },
        heldout=recipe.heldout,
        seeds=recipe.seeds,
        pairs=recipe.pairs,
        set=recipe.set,
    )


def cross_table(rows: Sequence[Row]) -> str:
    """Markdown: a row for what was trained on, a column for what is tested on, F1 in per cent.

    Mean and standard deviation over the seeds; the last column is the mean over the other sets.
    """
    tested = list(dict.fromkeys(row.heldout for row in rows))
    lines = [["trained on, tested on", *tested, "others"]]
    lines.append(["---"] * len(lines[0]))
    for name in dict.fromkeys(row.variant for row in rows):
        values = {
            on: [row.f1 for row in rows if row.variant == name and row.heldout == on]
            for on in tested
        }
        cells = [f"{np.mean(v):.1f}{_deviation(v)}" for v in values.values()]
        others = [float(np.mean(v)) for on, v in values.items() if on != name]
        mean = f"{np.mean(others):.1f}" if name in tested and others else "–"
        lines.append([name, *cells, mean])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def _deviation(values: Sequence[float]) -> str:
    return f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
