"""``superglue-ros train``: collect a corpus, label it, train SuperPoint and SuperGlue, export."""

from __future__ import annotations

import argparse
import logging
from importlib import resources
from pathlib import Path
from typing import Any

from superglue_ros.errors import DataError
from superglue_ros.settings import add_set_option, load


def add_subcommands(subparsers: Any) -> None:
    """Add ``train`` with its actions."""
    train = subparsers.add_parser(
        "train", help="collect a corpus, train the networks, export weights"
    )
    actions = train.add_subparsers(dest="action", required=True, metavar="ACTION")

    corpus = actions.add_parser(
        "corpus", help="collect images and worlds, with provenance and a test split"
    )
    corpus.add_argument("--output", type=Path, default=Path("corpus"))
    corpus.add_argument("--packages", type=Path, help="TSV of Debian packages: name and kind")
    for option, text in (
        ("--folder", "a folder of your own images"),
        ("--games", "a folder of your own games, with .pk3 archives or SuperTuxKart's tracks"),
    ):
        corpus.add_argument(option, type=Path, action="append", default=[], help=text)
    corpus.add_argument(
        "--licence", default="the user's", help="licence of your own images and games"
    )
    corpus.set_defaults(run=_corpus)

    for name, run, text, example in (
        ("labels", _labels, "detector labels for crops of the corpus", "crops=100"),
        ("superpoint", _superpoint, "train SuperPoint", "steps=1000"),
        ("cache", _cache, "extract features and labels that SuperGlue trains on", "sets=100"),
        ("superglue", _superglue, "train SuperGlue on cached features", "stages.0.steps=1000"),
        ("views", _views, "render view sets that training keeps on its device", "sets=100"),
        ("consensus", _consensus, "train SuperPoint without labels", "loop.minutes=5"),
        ("refinement", _refinement, "train the network that refines matches", "steps=500"),
        ("filter", _filter, "train PointCN or OANet on cached features", "steps=500"),
        ("places", _places, "train the aggregation for place recognition", "steps=500"),
        (
            "ablation",
            _ablation,
            "train variants of a recipe with several seeds and compare them",
            "seeds=1",
        ),
        ("cross", _cross, "train on each of several sets, test on each", "seeds=1"),
        ("end-to-end", _end_to_end, "train SuperGlue and the descriptors together", "steps=500"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("recipe", type=Path, help="YAML recipe, see config/train/")
        add_set_option(action, example, "setting of the recipe")
        action.set_defaults(run=run)

    export = actions.add_parser("export", help="write the weights of a run as safetensors")
    export.add_argument("recipe", type=Path, help="the recipe the run was made with")
    add_set_option(export, "output=runs/mine", "setting of the recipe, as the run was given it")
    export.add_argument("output", type=Path, help=".safetensors")
    export.add_argument("--provenance", default="trained with superglue-ros train")
    export.add_argument("--kind", default="", help="name of the descriptors (SuperPoint only)")
    export.set_defaults(run=_export)


def _corpus(args: argparse.Namespace) -> int:
    from superglue_ros.training.data.corpus import (
        WITHOUT_IMAGES,
        WORLDS,
        Source,
        collect,
        debian_sources,
    )
    from superglue_ros.training.data.furniture_corpus import collect_furniture
    from superglue_ros.training.data.world_corpus import collect_worlds

    for folder in [*args.folder, *args.games]:
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder: give one with images or games")
    sources = [Source(str(f), f, args.licence) for f in args.folder]
    sources += [Source(str(f), f, args.licence, WORLDS) for f in args.games]
    if args.packages or not sources:
        sources += debian_sources(_packages(args.packages), args.output)
    worlds = collect_worlds(sources, args.output)
    missing = sum(world.missing_textures for world in worlds)
    if worlds:
        test = sum(world.split == "test" for world in worlds)
        print(
            f"{args.output}: {len(worlds)} worlds, {test} of them for testing only; {missing} "
            f"textures are missing, and grey"
        )
    furniture = collect_furniture(sources, args.output)
    if furniture:
        print(f"{args.output}: {len(furniture)} pieces of furniture")
    if sources and all(source.kind in WITHOUT_IMAGES for source in sources):
        return 0
    images = collect(sources, args.output)
    test = sum(image.split == "test" for image in images)
    print(f"{args.output}: {len(images)} images, {test} of them for testing only")
    return 0


def _packages(path: Path | None) -> list[tuple[str, str]]:
    from superglue_ros.training.data.corpus import KINDS

    if path is None:
        text = (resources.files("superglue_ros.training.data") / "packages.tsv").read_text("utf-8")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
    packages = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or words[1] not in KINDS:
            raise DataError(
                f"{path or 'packages.tsv'}, line {number}: give a package's name and one of "
                f"{', '.join(KINDS)}, not {line!r}"
            )
        packages.append((words[0], words[1]))
    return packages


def _labels(args: argparse.Namespace) -> int:
    from superglue_ros.training.data.detector_labels import LabelRecipe, make_labels

    print(make_labels(load(args.recipe, LabelRecipe, args.set)))
    return 0


def _cache(args: argparse.Namespace) -> int:
    from superglue_ros.training.data.cache_builder import build_cache
    from superglue_ros.training.recipes import CacheRecipe

    logging.getLogger("superglue_ros.training").setLevel(logging.INFO)
    print(build_cache(load(args.recipe, CacheRecipe, args.set)))
    return 0


def _superpoint(args: argparse.Namespace) -> int:
    from superglue_ros.training.runs import superpoint_trainer

    superpoint_trainer(args.recipe, args.set).run()
    return 0


def _superglue(args: argparse.Namespace) -> int:
    from superglue_ros.training.runs import superglue_trainer

    logging.getLogger("superglue_ros.training").setLevel(logging.INFO)
    superglue_trainer(args.recipe, args.set).run()
    return 0


def _views(args: argparse.Namespace) -> int:
    from superglue_ros.training.data.view_store import StoreRecipe, store_views

    print(store_views(load(args.recipe, StoreRecipe, args.set)))
    return 0


def _consensus(args: argparse.Namespace) -> int:
    from superglue_ros.training.runs import consensus_trainer

    consensus_trainer(args.recipe, args.set).run()
    return 0


def _refinement(args: argparse.Namespace) -> int:
    from superglue_ros.training.runs import refinement_trainer

    refinement_trainer(args.recipe, args.set).run()
    return 0


def _filter(args: argparse.Namespace) -> int:
    from superglue_ros.training.runs import match_filter_trainer

    match_filter_trainer(args.recipe, args.set).run()
    return 0


def _places(args: argparse.Namespace) -> int:
    from superglue_ros.training.runs import places_trainer

    places_trainer(args.recipe, args.set).run()
    return 0


def _ablation(args: argparse.Namespace) -> int:
    from superglue_ros.training.ablation import AblationRecipe, run_ablation

    print(run_ablation(load(args.recipe, AblationRecipe, args.set)).read_text("utf-8"), end="")
    return 0


def _cross(args: argparse.Namespace) -> int:
    from superglue_ros.training.cross import CrossRecipe, run_cross

    print(run_cross(load(args.recipe, CrossRecipe, args.set)).read_text("utf-8"), end="")
    return 0


def _end_to_end(args: argparse.Namespace) -> int:
    from superglue_ros.training.runs import end_to_end_trainer

    end_to_end_trainer(args.recipe, args.set).run()
    return 0


def _export(args: argparse.Namespace) -> int:
    from superglue_ros.training.runs import export

    export(args.recipe, args.output, args.provenance, args.kind, args.set)
    print(args.output)
    return 0
