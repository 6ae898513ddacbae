"""``superglue-ros reconstruct``: images in, a COLMAP model and a page out, without ROS."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from superglue_ros.data.calibration import read_calibration
from superglue_ros.errors import ConfigError, DataError
from superglue_ros.evaluation.pairs.make_pairs import FrameRange
from superglue_ros.image_pairs.selection import add_settings_options, config_of
from superglue_ros.reconstruction import mapper
from superglue_ros.reconstruction.depth_cli import checked_size, write_scenes
from superglue_ros.reconstruction.pairs import parse_rule
from superglue_ros.reconstruction.pictures import Pictures, open_pictures, without_copies
from superglue_ros.reconstruction.rolling_shutter import parse_readout
from superglue_ros.reconstruction.run import (
    DATABASE,
    MODELS,
    PAGE,
    SCENES,
    Plan,
    Reconstruction,
    reconstruct,
)
from superglue_ros.reconstruction.scene import MAX_SIZE


def add_subcommands(subparsers: argparse._SubParsersAction) -> None:
    """See :mod:`superglue_ros.cli`."""
    parser = subparsers.add_parser(
        "reconstruct",
        help="a map from a folder of images, a sequence or a bag, by COLMAP's mapping",
        description="Match images and reconstruct cameras and points with pycolmap: a COLMAP "
        "model, PLY, a page for the browser, summary.json. A run that was stopped goes on where it "
        "was: give the same command again. Needs the extra `reconstruction` (pycolmap).",
    )
    parser.add_argument("images", type=Path, help="folder of images, sequence, or bag")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--overwrite", action="store_true", help="begin anew")
    add_input_options(parser)
    parser.add_argument(
        "--pairs",
        nargs="+",
        default=[],
        metavar="RULE",
        help="sequential[:N], retrieval[:N], poses[:N], exhaustive, or a file of pairs; several "
        "add up (default: by the number of images)",
    )
    parser.add_argument(
        "--mapper",
        choices=mapper.KINDS,
        default="incremental",
        help="incremental, global (GLOMAP), or triangulate: keep the poses of the sequence or bag",
    )
    parser.add_argument(
        "--refine-cameras",
        action="store_true",
        help="adjust the given calibration too (what has none is always adjusted)",
    )
    parser.add_argument(
        "--rolling-shutter",
        default="auto",
        metavar="auto|off|SECONDS",
        help="from the first row of an image to the last, in a sequence or bag; auto: found from "
        "the map, and corrected for where the map fits its pixels better",
    )
    parser.add_argument(
        "--camera-per-image",
        action="store_true",
        help="without calibration: images of one size do not share a camera",
    )
    parser.add_argument(
        "--no-align", action="store_true", help="do not bring the model into the given poses' world"
    )
    parser.add_argument(
        "--depth",
        type=checked_size,
        nargs="?",
        const=MAX_SIZE,
        metavar="SIZE",
        help=f"make depth of the models too: scenes to train on, of images of at most SIZE pixels "
        f"({MAX_SIZE})",
    )
    parser.add_argument("--seed", type=int, default=0)
    outside = parser.add_mutually_exclusive_group()
    outside.add_argument(
        "--database", type=Path, metavar="FILE", help="take matches from a database of COLMAP"
    )
    outside.add_argument(
        "--hloc",
        type=Path,
        nargs=2,
        metavar=("FEATURES", "MATCHES"),
        help="take features and matches from hloc's HDF5 files",
    )
    parser.set_defaults(run=run_reconstruct)


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """Options of the images and the settings."""
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="of all images: camera_calibration's YAML, or a line 'width height fx fy cx cy k1 k2 "
        "p1 p2 [k3]'",
    )
    parser.add_argument("--image-topic", default="", metavar="TOPIC", help="of a bag")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="begin with image N")
    parser.add_argument("--last", type=int, default=0, metavar="N", help="end before image N")
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="every Nth image only")
    add_settings_options(parser)


def chosen_pictures(args: argparse.Namespace) -> Pictures:
    """The images that the options name."""
    path = args.images
    if not path.exists():
        raise DataError(f"{path} does not exist: give a folder of images, a sequence or a bag")
    if args.stride < 1:
        raise ConfigError(f"--stride {args.stride}: give 1 for every image, 2 for every second one")
    pictures = open_pictures(path, args.output, args.image_topic)
    frames = FrameRange(args.first, args.last, args.stride)
    pictures = pictures.select(list(frames.indices(len(pictures))))
    if args.calibration:
        pictures = pictures.calibrated(read_calibration(args.calibration))
    return pictures


def run_reconstruct(args: argparse.Namespace) -> int:
    """Reconstruct and report."""
    config = config_of(args)
    mapper.require_pycolmap()
    _clear(args)
    pictures, console = chosen_pictures(args), Console()
    # Matches of other programs are of all images that these had.
    others = args.database or args.hloc
    pictures, copies = (pictures, []) if others else without_copies(pictures)
    for copy, original in copies:
        console.print(f"{copy} is a copy of {original}: left out", markup=False)
    calibrated = all(camera is not None for camera in pictures.cameras)
    plan = Plan(
        rules=tuple(parse_rule(word) for word in args.pairs),
        mapper=mapper.MapperOptions(
            kind=args.mapper,
            refine_cameras=args.refine_cameras or not (calibrated or args.database),
            seed=args.seed,
        ),
        database=args.database,
        hloc=tuple(args.hloc) if args.hloc else None,
        align=not args.no_align,
        shared_camera=not args.camera_per_image,
        readout_s=_readout(args, pictures),
    )
    made = reconstruct(pictures, args.output, config, plan)
    report(made, console)
    console.print(f"written to {args.output}: {MODELS}/, {DATABASE}, {PAGE}, summary.json")
    if args.depth:
        write_scenes(made.models, pictures.root, args.output / SCENES, args.depth, console)
    return 0


def _readout(args: argparse.Namespace, pictures: Pictures) -> float | None:
    readout_s = parse_readout(args.rolling_shutter)
    if readout_s and not pictures.ordered:
        raise ConfigError(
            f"--rolling-shutter {args.rolling_shutter}: the images of {pictures.root} have no "
            "stamps, so that the motion of the camera is not known: give a sequence or a bag"
        )
    return readout_s


def _clear(args: argparse.Namespace) -> None:
    """With --overwrite, drop what an earlier run made; nothing else in the folder."""
    database = args.output / DATABASE
    if args.overwrite:
        database.unlink(missing_ok=True)
        for folder in (MODELS, SCENES):
            shutil.rmtree(args.output / folder, ignore_errors=True)
    elif args.database and database.exists():
        raise DataError(f"{database} exists: give another --output, or --overwrite")


def report(made: Reconstruction, console: Console) -> None:
    """Figures of all models, and what is wrong with the input."""
    summary = made.summary
    console.print(
        f"{summary['images']} images, {summary['pairs']} pairs matched, "
        f"{summary['verified_pairs']} verified with {summary['inliers']} matches"
    )
    table = Table("model", "images", "points", "track", "error [px]", "ATE [cm]", "RPE [deg]")
    for number, model in enumerate(summary["models"]):
        table.add_row(
            str(number),
            str(model["images"]),
            str(model["points"]),
            f"{model['track_length']:.1f}",
            f"{model['reprojection_px']:.2f}",
            *_errors(model),
        )
    console.print(table)
    if len(summary["models"]) > 1:
        console.print(
            f"the images fall into {len(summary['models'])} parts that no verified pair connects; "
            f"all are written. More pairs (--pairs) or images in between may join them"
        )
    if summary["unplaced"]:
        names = ", ".join(summary["unplaced"][:5])
        console.print(f"{len(summary['unplaced'])} images are in no model: {names} ...")
    for number, model in enumerate(summary["models"]):
        shutter = model["rolling_shutter"]
        if shutter and shutter["readout_s"]:
            console.print(
                f"model {number}: the rows of an image are exposed within "
                f"{shutter['readout_s'] * 1e3:.1f} ms (rolling shutter); corrected, its cost falls "
                f"by {100 * (1 - shutter['cost_after'] / shutter['cost_before']):.1f} %"
            )
    for model in summary["models"]:
        for wrong in model["wrong_focal_lengths"]:
            console.print(
                f"camera {wrong['camera']}: the focal length given is {wrong['given_px']:.0f} px, "
                f"the images say {wrong['by_images_px']:.0f}: check the calibration, or adjust it "
                f"with --refine-cameras"
            )


def _errors(model: dict[str, Any]) -> tuple[str, str]:
    errors = model.get("errors")
    if not errors:
        return "-", "-"
    return f"{errors['ate_m'] * 100:.2f}", f"{errors['rpe_deg']:.3f}"
