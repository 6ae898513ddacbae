"""From a recipe to a trainer, and from a run to weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from superglue_ros.errors import ConfigError, DataError
from superglue_ros.networks.weights import save
from superglue_ros.settings import load, override, read_yaml
from superglue_ros.training.objectives.consensus import ConsensusObjective
from superglue_ros.training.objectives.end_to_end import EndToEndObjective
from superglue_ros.training.objectives.match_filter import MatchFilterObjective
from superglue_ros.training.objectives.places import PlacesObjective
from superglue_ros.training.objectives.refinement import RefinementObjective
from superglue_ros.training.objectives.superglue import SuperGlueObjective
from superglue_ros.training.objectives.superpoint import SuperPointObjective
from superglue_ros.training.recipes import (
    ConsensusRecipe,
    EndToEndRecipe,
    MatchFilterRecipe,
    PlacesRecipe,
    RefinementRecipe,
    SuperGlueRecipe,
    SuperPointRecipe,
)
from superglue_ros.training.trainer import CHECKPOINT, Trainer


def superglue_trainer(recipe_path: str | Path, overrides: Sequence[str] = ()) -> Trainer:
    """The trainer of a SuperGlue recipe, resumed where its output has a checkpoint."""
    recipe = load(recipe_path, SuperGlueRecipe, overrides)
    objective = SuperGlueObjective(recipe)
    return _trainer(objective, objective.steps, recipe)


def superpoint_trainer(recipe_path: str | Path, overrides: Sequence[str] = ()) -> Trainer:
    """The trainer of a SuperPoint recipe, resumed where its output has a checkpoint."""
    recipe = load(recipe_path, SuperPointRecipe, overrides)
    return _trainer(SuperPointObjective(recipe), recipe.steps, recipe)


def end_to_end_trainer(recipe_path: str | Path, overrides: Sequence[str] = ()) -> Trainer:
    """The trainer of an end-to-end recipe, resumed where its output has a checkpoint."""
    recipe = load(recipe_path, EndToEndRecipe, overrides)
    return _trainer(EndToEndObjective(recipe), recipe.steps, recipe)


def consensus_trainer(recipe_path: str | Path, overrides: Sequence[str] = ()) -> Trainer:
    """The trainer of a consensus recipe, resumed where its output has a checkpoint."""
    recipe = load(recipe_path, ConsensusRecipe, overrides)
    return _trainer(ConsensusObjective(recipe), recipe.steps, recipe)


def refinement_trainer(recipe_path: str | Path, overrides: Sequence[str] = ()) -> Trainer:
    """The trainer of a refinement recipe, resumed where its output has a checkpoint."""
    recipe = load(recipe_path, RefinementRecipe, overrides)
    return _trainer(RefinementObjective(recipe), recipe.steps, recipe)


def match_filter_trainer(recipe_path: str | Path, overrides: Sequence[str] = ()) -> Trainer:
    """The trainer of a filter's recipe, resumed where its output has a checkpoint."""
    recipe = load(recipe_path, MatchFilterRecipe, overrides)
    return _trainer(MatchFilterObjective(recipe), recipe.steps, recipe)


def places_trainer(recipe_path: str | Path, overrides: Sequence[str] = ()) -> Trainer:
    """The trainer of a recipe for place recognition, resumed where its output has a checkpoint."""
    recipe = load(recipe_path, PlacesRecipe, overrides)
    return _trainer(PlacesObjective(recipe), recipe.steps, recipe)


def export(
    recipe_path: str | Path,
    output: Path,
    provenance: str,
    kind: str = "",
    overrides: Sequence[str] = (),
) -> None:
    """Write the weights of a recipe's run, float16. ``kind`` names a SuperPoint's descriptors.

    An end-to-end run gives two files: ``output`` is the SuperPoint, ``superglue.safetensors``
    in the same folder the matcher. Raises :class:`DataError` where the run has no checkpoint.
    """
    values = override(read_yaml(recipe_path), overrides)
    checkpoint = Path(str(values.get("output", ""))) / CHECKPOINT
    if not checkpoint.is_file():
        raise DataError(f"{checkpoint} does not exist: train with {recipe_path} first")
    if "stages" in values:
        trainer = superglue_trainer(recipe_path, overrides)
        objective = trainer.objective
        kind = objective.descriptor_kind  # type: ignore[attr-defined]
    elif "places" in values:
        trainer = places_trainer(recipe_path, overrides)
        kind = trainer.objective.descriptor_kind  # type: ignore[attr-defined]
    elif "caches" in values:
        trainer = match_filter_trainer(recipe_path, overrides)
    elif "noise" in values:
        trainer = refinement_trainer(recipe_path, overrides)
    elif not kind:  # all others have descriptors
        raise ConfigError("a SuperPoint's descriptors need a name: give --kind")
    elif "corpus" in values:
        trainer = consensus_trainer(recipe_path, overrides)
    elif "views" in values:
        both: Any = end_to_end_trainer(recipe_path, overrides).exported
        save(both.describe, output, kind, provenance, half=True)
        save(both.match, output.with_name("superglue.safetensors"), kind, provenance, half=True)
        return
    else:
        trainer = superpoint_trainer(recipe_path, overrides)
    save(trainer.exported, output, kind, provenance, half=True)  # type: ignore[arg-type]


def _trainer(objective: Any, steps: int, recipe: Any) -> Trainer:
    return Trainer(
        objective, steps, recipe.loop, recipe.optimiser, recipe.schedule, Path(recipe.output)
    )
