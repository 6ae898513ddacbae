"""Every recipe in config/train is read, and holds what its comment and docs/training.md say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from superglue_ros.networks.superglue import SuperGlue
from superglue_ros.networks.superglue_config import OPTIONS
from superglue_ros.networks.weights import (
    load_match_filter,
    load_places,
    load_refinement,
    load_superglue,
    load_superpoint,
)
from superglue_ros.settings import load
from superglue_ros.training.ablation import AblationRecipe
from superglue_ros.training.cross import CrossRecipe
from superglue_ros.training.data.detector_labels import LabelRecipe
from superglue_ros.training.data.view_store import StoreRecipe
from superglue_ros.training.recipes import (
    CacheRecipe,
    ConsensusRecipe,
    EndToEndRecipe,
    MatchFilterRecipe,
    PlacesRecipe,
    RefinementRecipe,
    SuperGlueRecipe,
    SuperPointRecipe,
)

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "config" / "train"

TYPES: dict[str, type] = {
    "labels": LabelRecipe,
    "labels_shapes": LabelRecipe,
    "labels_adapted": LabelRecipe,
    "magicpoint": SuperPointRecipe,
    "superpoint": SuperPointRecipe,
    "cache_homography": CacheRecipe,
    "cache_rooms": CacheRecipe,
    "cache_sequences": CacheRecipe,
    "cache_worlds": CacheRecipe,
    "cache_photographs": CacheRecipe,
    "cache_heldout": CacheRecipe,
    "superglue": SuperGlueRecipe,
    "superglue_wide": SuperGlueRecipe,
    "paper_homography": SuperGlueRecipe,
    "paper_indoor": SuperGlueRecipe,
    "paper_outdoor": SuperGlueRecipe,
    "report": SuperGlueRecipe,
    "ablation": AblationRecipe,
    "ablation_base": SuperGlueRecipe,
    "end_to_end": EndToEndRecipe,
    "cross": CrossRecipe,
    "refinement": RefinementRecipe,
    "pointcn": MatchFilterRecipe,
    "oanet": MatchFilterRecipe,
    "places": PlacesRecipe,
    "views_worlds": StoreRecipe,
    "superpoint_consensus": ConsensusRecipe,
}

PAPER = {
    "network.width": 256,
    "network.layers": 9,
    "network.heads": 4,
    "sinkhorn_iterations": 100,
    "loss.form": "sum",
    "loss.confidence": 0.0,
    "loss.regularisation": 0.0,
    "optimiser.name": "adam",
    "optimiser.learning_rate": 1e-4,
    "optimiser.weight_decay": 0.0,
    "schedule.form": "exponential",
    "schedule.warmup": 0,
    "stages.0.steps": 900_000,
    "stages.0.sampling.drop": 0.0,
    "stages.0.sampling.best_first": 1.0,
    "stages.0.views.views": 2,
    "stages.0.views.random_keypoints": True,
    "detector": "",
}
PACKAGED = {
    "loss.form": "mean",
    "optimiser.name": "muon",
    "optimiser.learning_rate": 1e-3,
    "sinkhorn_iterations": 12,
    "validation": "caches/heldout",
}
FACTS: dict[str, dict[str, Any]] = {
    "labels": {"teacher": "aliked", "output": "labels/aliked.safetensors"},
    "labels_shapes": {"teacher": "shapes", "output": "labels/shapes.safetensors"},
    "labels_adapted": {
        "teacher": "superpoint",
        "weights": "runs/magicpoint/superpoint.safetensors",
        "adaptation": 100,
    },
    "magicpoint": {"labels": "labels/shapes.safetensors", "start": "random"},
    "superpoint": {
        "labels": "labels/aliked.safetensors",
        "start": "random",
        "edge_ratio": 0.3,
        "train_descriptors": True,
        "frozen_blocks": 0,
    },
    "cache_homography": {"source": "homography", "views": 5, "sets": 5600, "detector": ""},
    "cache_rooms": {"source": "rooms", "views": 5, "sets": 1240, "detector": ""},
    "cache_sequences": {"source": "sequences", "views": 4, "sets": 240, "detector": ""},
    "cache_worlds": {"source": "worlds", "views": 5, "sets": 1240, "detector": ""},
    "cache_photographs": {
        "source": "sequences",
        "sequences.0.layout": "megadepth",
        "sequences.0.gap": (0, 0),
        "overlap": (0.1, 0.7),
        "detector": "",
    },
    "cache_heldout": {"source": "homography", "seed": 303, "detector": ""},
    "superglue": {**PACKAGED, "start": "matching"},
    "superglue_wide": {
        **PACKAGED,
        "start": "small",
        "network.width": 192,
        "network.layers": 9,
        "network.heads": 3,
    },
    "paper_homography": {
        **PAPER,
        "stages.0.views.source": "homography",
        "stages.0.sampling.pairs": 32,
        "stages.0.sampling.keypoints": 512,
        "stages.0.views.keypoints": 512,
        "schedule.hold": 200_000,
        "schedule.decay": 0.999998,
        "start": "random",
    },
    "paper_indoor": {
        **PAPER,
        "stages.0.views.source": "sequences",
        "stages.0.views.sequences.0.layout": "scannet",
        "stages.0.views.overlap": (0.4, 0.8),
        "stages.0.views.labels.error": "forward",
        "stages.0.views.labels.ambiguous": "unmatched",
        "stages.0.views.width": 640,
        "stages.0.views.height": 480,
        "stages.0.sampling.pairs": 64,
        "stages.0.sampling.keypoints": 400,
        "stages.0.views.keypoints": 400,
        "schedule.hold": 100_000,
        "schedule.decay": 0.999992,
        "start": "random",
    },
    "paper_outdoor": {
        **PAPER,
        "stages.0.views.source": "sequences",
        "stages.0.views.sequences.0.layout": "megadepth",
        "stages.0.views.overlap": (0.1, 0.7),
        "stages.0.sampling.pairs": 16,
        "stages.0.sampling.keypoints": 1024,
        "stages.0.views.keypoints": 1024,
        "schedule.hold": 50_000,
        "schedule.decay": 0.999992,
        "start": "runs/paper_homography/superglue.safetensors",
    },
    "report": {
        "network.width": 256,
        "network.layers": 9,
        "network.heads": 4,
        "sinkhorn_iterations": 100,
        "gradient_checkpointing": True,
        "loop.precision": "float16",
        "network.sinusoids": 8,
        "network.edges": 8,
        "network.temperature": 0.1,
        "network.separate_dustbins": True,
        "adversarial.epsilon": 0.01,
        "adversarial.weight": 0.5,
        "stages.0.scales": (0.5, 0.75, 1.0),
        "stages.1.scales": (0.5, 0.75, 1.0),
        "stages.2.scales": (0.5, 0.75, 1.0),
        "stages.2.sampling.hard_percentile": 0.8,
        "loss.form": "sum",
        "optimiser.name": "adam",
        "optimiser.learning_rate": 1e-4,
        "optimiser.weight_decay": 1e-4,
        "optimiser.clip": 1.0,
        "schedule.form": "step",
        "schedule.hold": 20_000,
        "schedule.decay": 0.5,
        "stages.0.views.homography.rotation_deg": 30.0,
        "stages.0.views.homography.scale": (0.8, 1.2),
        "stages.0.views.photometric.probability": 0.0,
        "stages.1.views.homography.rotation_deg": 30.0,
        "stages.1.views.photometric.contrast": (0.8, 1.2),
        "stages.1.views.photometric.noise": 0.0,
        "stages.2.views.source": "rooms",
        "stages.2.sampling.repetition": 0.5,
    },
    "ablation": {"seeds": 3, "recipe": "config/train/ablation_base.yaml"},
    "ablation_base": {"start": "matching", "loss.form": "mean", "network.width": 64},
    "end_to_end": {
        "superpoint": "",
        "superglue": "small",
        "loss.form": "sum",
        "loss.confidence": 0.0,
        "loss.regularisation": 0.0,
        "views.views": 2,
    },
    "cross": {"seeds": 3, "recipe": "config/train/ablation_base.yaml"},
    "pointcn": {"network.clusters": 0, "network.stages": 1, "loss.form": "matrix"},
    "oanet": {"network.stages": 2, "loss.form": "distance", "validation": ("caches/heldout",)},
    "refinement": {"steps": 3500, "views.source": "homography", "network.side": 13},
    "places": {"steps": 700, "crop": 0.5, "validation": ("caches/heldout",)},
    "views_worlds": {"source": "worlds", "views": 5, "photometric.probability": 0.0},
    "superpoint_consensus": {
        "start": "",
        "trained": "all",
        "rendered_share": 0.5,
        "optimiser.ema": 0.997,
    },
}


def read(name: str) -> Any:
    return load(FOLDER / f"{name}.yaml", TYPES[name])


def value(recipe: Any, place: str) -> Any:
    for word in place.split("."):
        recipe = recipe[int(word)] if word.isdigit() else getattr(recipe, word)
    return recipe


def test_every_recipe_is_listed_here():
    names = {path.stem for path in FOLDER.glob("*.yaml")}
    assert names == set(TYPES) == set(FACTS)


@pytest.mark.parametrize(
    ("name", "place"), [(name, place) for name, facts in FACTS.items() for place in facts]
)
def test_a_recipe_holds_what_is_said_of_it(name, place):
    assert value(read(name), place) == FACTS[name][place]


def test_the_report_s_batches_and_loss():
    recipe = read("report")
    assert all(8 <= stage.sampling.pairs <= 16 for stage in recipe.stages)
    assert min(recipe.loss.confidence, recipe.loss.regularisation) > 0


def test_superglue_yaml_is_the_packaged_network_on_as_many_pairs_as_its_comment_says():
    recipe = read("superglue")
    assert recipe.network == load_superglue().network.config
    assert sum(stage.steps * stage.sampling.pairs for stage in recipe.stages) == 640_000
    wide = SuperGlue(read("superglue_wide").network)
    assert round(sum(p.numel() for p in wide.parameters()) / 1e6, 1) == 6.8


def test_superpoint_yaml_is_the_packaged_network():
    packaged = load_superpoint("").network.config
    assert read("superpoint").network == packaged
    assert read("superpoint_consensus").network == packaged


def test_refinement_yaml_is_the_packaged_network():
    assert read("refinement").network == load_refinement().network.config


@pytest.mark.parametrize("name", ["pointcn", "oanet"])
def test_filter_recipes_are_the_packaged_networks(name):
    assert read(name).network == load_match_filter(name).network.config


def test_places_yaml_is_the_packaged_network_for_the_packaged_descriptors():
    packaged = load_places()
    assert read("places").network == packaged.network.config
    assert packaged.descriptor_kind == load_superpoint("").kind


def test_consensus_reads_the_views_that_another_recipe_renders():
    consensus, views = read("superpoint_consensus"), read("views_worlds")
    assert consensus.views == views.output
    assert (consensus.width, consensus.height) == (views.width, views.height)


def test_caches_and_labels_that_a_recipe_reads_are_made_by_another():
    outputs = {read(name).output for name, kind in TYPES.items() if kind is CacheRecipe}
    for name, kind in TYPES.items():
        if kind is SuperGlueRecipe:
            recipe = read(name)
            used = {cache for stage in recipe.stages for cache in stage.caches}
            assert used | ({recipe.validation} - {""}) <= outputs, name
        if kind in (MatchFilterRecipe, PlacesRecipe):
            assert {*read(name).caches, *read(name).validation} <= outputs, name
    labels = {read(name).output for name, kind in TYPES.items() if kind is LabelRecipe}
    assert {read(name).labels for name, kind in TYPES.items() if kind is SuperPointRecipe} <= labels


def test_held_out_views_are_of_another_seed_and_else_of_the_same_kind():
    made, held_out = read("cache_homography"), read("cache_heldout")
    assert made.homography == held_out.homography
    assert made.photometric == held_out.photometric
    assert made.seed != held_out.seed


@pytest.mark.parametrize("name", ["training", "weights", "training_log"])
def test_documents_name_only_recipes_that_there_are(name):
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    named = set(re.findall(r"config/train/(\w+)\.yaml", text))
    assert named <= set(TYPES)
    assert named or name == "training_log"


def test_the_ablation_has_table_4_every_option_and_variants_that_are_recipes():
    recipe = read("ablation")
    set_by = {word.split("=")[0] for words in recipe.variants.values() for word in words}
    table_4 = {"graph", "cross_attention", "keypoint_encoder", "layers"}
    options = set(OPTIONS) - {"neighbour_cosine"}  # of another option
    assert {f"network.{name}" for name in table_4 | options} <= set_by
    for words in recipe.variants.values():
        load(ROOT / recipe.recipe, SuperGlueRecipe, words)
