"""``superglue-ros depth``: a COLMAP model and its images in, a scene to train on out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from superglue_ros.errors import DataError
from superglue_ros.reconstruction.placed import read_model
from superglue_ros.reconstruction.scene import MAX_SIZE, SceneFigures, write_training_scene

_SMALLEST = 64


def add_subcommands(subparsers: argparse._SubParsersAction) -> None:
    """See :mod:`superglue_ros.cli`."""
    parser = subparsers.add_parser(
        "depth",
        help="depth of a COLMAP model's images: a scene to train on",
        description="Make depth of the images of a COLMAP model by stereo of neighbours, on a CPU, "
        "and write it with the images, free of lens distortion, in the layout of MegaDepth, which "
        "`superglue-ros train` reads. `superglue-ros reconstruct --depth` does so for its own "
        "models. Needs the extra `reconstruction` (pycolmap, h5py).",
    )
    parser.add_argument("model", type=Path, help="folder with cameras, images and points3D")
    parser.add_argument("images", type=Path, help="folder that the names of its images start from")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--max-size",
        type=checked_size,
        default=MAX_SIZE,
        metavar="SIZE",
        help="longer side of the scene's images (default: %(default)s)",
    )
    parser.set_defaults(run=run_depth)


def run_depth(args: argparse.Namespace) -> int:
    """Make depth of one model."""
    figures = write_training_scene(read_model(args.model), args.images, args.output, args.max_size)
    report(figures, args.output, Console())
    return 0


def write_scenes(
    models: Sequence[Any], root: Path, output: Path, max_size: int, console: Console
) -> None:
    """A scene for every model that depth can be made of; :class:`DataError` if there is none."""
    problems = []
    for number, model in enumerate(models):
        folder = output / str(number)
        try:
            figures = write_training_scene(model, root, folder, max_size)
        except DataError as error:
            problems.append(error)
            console.print(f"model {number} has no depth: {error}", markup=False)
        else:
            report(figures, folder, console)
    if len(problems) == len(models):
        raise problems[0]


def report(figures: SceneFigures, folder: Path, console: Console) -> None:
    """Figures of a scene, and where it is."""
    console.print(
        f"{folder}: {figures.with_depth} of {figures.images} images have depth, "
        f"{100 * figures.share:.0f} % of their pixels; it carries matched points "
        f"{figures.carried_px:.2f} px (median) from their partners",
        markup=False,
    )


def checked_size(word: str) -> int:
    """A number of pixels as an option gives it."""
    try:
        size = int(word)
    except ValueError:
        size = 0
    if size < _SMALLEST:
        raise argparse.ArgumentTypeError(f"{word}: give at least {_SMALLEST} pixels")
    return size
