"""``superglue-ros match``: images in, pictures and match files out, without ROS."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.data import decoding
from superglue_ros.drawing.matches import draw_matches, write_picture
from superglue_ros.errors import DataError, ImageError
from superglue_ros.evaluation.pairs.images import ENDINGS
from superglue_ros.evaluation.progress import track
from superglue_ros.geometry.angle_errors import rotation_error_deg
from superglue_ros.image_pairs.files import Named, write_colmap, write_csv, write_hloc, write_npz
from superglue_ros.image_pairs.matching import ImageMatcher, ImagePair
from superglue_ros.image_pairs.selection import (
    add_pair_options,
    add_settings_options,
    cameras_of,
    config_of,
    select,
)

FORMATS = ("npz", "csv", "h5", "colmap")


def add_subcommands(subparsers: argparse._SubParsersAction) -> None:
    """See :mod:`superglue_ros.cli`."""
    parser = subparsers.add_parser(
        "match",
        help="match two images, a folder or a list of pairs",
        description="Match two images, all pairs of a folder's images, or the pairs of a list. "
        "Images are taken as stored, in grey; without ROS.",
    )
    parser.add_argument("images", type=Path, nargs="+", help="two images, or one folder of images")
    add_pair_options(parser)
    parser.add_argument("--output", type=Path, default=Path("match_output"), metavar="FOLDER")
    parser.add_argument(
        "--write",
        choices=FORMATS,
        nargs="+",
        default=["npz"],
        help="npz and csv for each pair, h5 as hloc, a COLMAP database (default: npz)",
    )
    parser.add_argument("--no-pictures", action="store_true")
    add_settings_options(parser)
    parser.set_defaults(run=run_match)


def run_match(args: argparse.Namespace) -> int:
    """Match, draw, write; a line for each pair on the terminal."""
    matcher = ImageMatcher(config_of(args))
    selection = select(args.images, args.pairs, args.next)
    folder, names, pairs = selection.folder, selection.names, selection.pairs.tolist()
    cameras = cameras_of(args.calibration or [], len(names))
    colour = ImageFiles([folder / name for name in names])
    output: Path = args.output
    output.mkdir(parents=True, exist_ok=True)
    done: list[Named] = []
    results = matcher.match_pairs(colour, pairs, cameras)
    for (i, j), pair in zip(pairs, track(results, len(pairs), "matching"), strict=True):
        done.append((names[i], names[j], pair))
        print(_line(*done[-1]))
        stem = output / "_".join(name.replace("/", "-") for name in (names[i], names[j]))
        if not args.no_pictures:
            picture = draw_matches(colour[i], colour[j], pair.matches, caption=_caption(pair))
            write_picture(Path(f"{stem}.jpg"), picture)
        if "npz" in args.write:
            write_npz(Path(f"{stem}.npz"), *done[-1])
        if "csv" in args.write:
            write_csv(Path(f"{stem}.csv"), pair)
    if "h5" in args.write:
        write_hloc(output, done)
    if "colmap" in args.write:
        write_colmap(output / "database.db", done, dict(zip(names, cameras, strict=True)))
    print(f"written to {output}")
    return 0


class ImageFiles(Sequence[NDArray[np.uint8]]):
    """Images (H, W, 3) BGR uint8, as stored, read when they are asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, place: Any) -> Any:
        """The image at ``place``; raises :class:`DataError` naming its file."""
        return _read(self._paths[place])


def _read(path: Path) -> NDArray[np.uint8]:
    if not path.is_file():
        raise DataError(f"image {path} does not exist")
    if path.suffix.lower() not in ENDINGS:
        raise DataError(f"{path} is no image: known endings are {', '.join(sorted(ENDINGS))}")
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        return np.asarray(decoding.read(path, flags), np.uint8)
    except ImageError as error:
        raise DataError(str(error)) from error


def _line(name0: str, name1: str, pair: ImagePair) -> str:
    line = f"{name0} {name1}: {len(pair.matches)} matches"
    if pair.pose is None:
        return line
    x, y, z = pair.pose.translation
    return (
        f"{line}, {pair.pose.num_inliers} inliers, {pair.pose.status.name}, "
        f"turned {rotation_error_deg(np.eye(3), pair.pose.rotation):.2f} deg, "
        f"moved along ({x:.3f} {y:.3f} {z:.3f})"
    )


def _caption(pair: ImagePair) -> list[str]:
    if pair.pose is None:
        return [f"{len(pair.matches)} matches"]
    pose = pair.pose
    return [f"{len(pair.matches)} matches, {pose.num_inliers} inliers, {pose.status.name}"]
