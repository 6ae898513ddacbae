"""``superglue-ros match``: images in, pictures and match files out, without ROS."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.config import PRESETS, Config
from superglue_ros.data import decoding
from superglue_ros.data.calibration import read_calibration
from superglue_ros.data.trajectories import text_rows
from superglue_ros.drawing.matches import draw_matches, write_picture
from superglue_ros.errors import ConfigError, DataError, ImageError
from superglue_ros.evaluation.pairs.images import ENDINGS, list_images
from superglue_ros.evaluation.progress import track
from superglue_ros.geometry.angle_errors import rotation_error_deg
from superglue_ros.geometry.camera import Camera
from superglue_ros.image_pairs.files import Named, write_colmap, write_csv, write_hloc, write_npz
from superglue_ros.image_pairs.matching import ImageMatcher, ImagePair
from superglue_ros.settings import add_set_option, build, load, override, read_yaml, shorthands

FORMATS = ("npz", "csv", "h5", "colmap")
SHORTHANDS = {
    "max_keypoints": "front_end.max_keypoints",
    "max_size": "front_end.max_size",
    "device": "device",
}


def add_subcommands(subparsers: argparse._SubParsersAction) -> None:
    """See :mod:`superglue_ros.cli`."""
    parser = subparsers.add_parser(
        "match",
        help="match two images, a folder or a list of pairs",
        description="Match two images, all pairs of a folder's images, or the pairs of a list. "
        "Images are taken as stored, in grey; without ROS.",
    )
    parser.add_argument("images", type=Path, nargs="+", help="two images, or one folder of images")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--pairs", type=Path, metavar="FILE", help="FOLDER: only these, 'name0 name1' a line"
    )
    which.add_argument(
        "--next", type=int, metavar="N", help="FOLDER: each image only with the next N by name"
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="of all images, or one for each of two: gives the pose; camera_calibration's YAML, or "
        "a line 'width height fx fy cx cy k1 k2 p1 p2 [k3]'",
    )
    parser.add_argument("--output", type=Path, default=Path("match_output"), metavar="FOLDER")
    parser.add_argument(
        "--write",
        choices=FORMATS,
        nargs="+",
        default=["npz"],
        help="npz and csv for each pair, h5 as hloc, a COLMAP database (default: npz)",
    )
    parser.add_argument("--no-pictures", action="store_true")
    settings = parser.add_argument_group("settings")
    settings.add_argument(
        "--preset", choices=PRESETS, help="the paper's resolution, keypoints and NMS"
    )
    settings.add_argument("--config", type=Path, help="YAML of the settings (see config/)")
    settings.add_argument("--max-keypoints", type=int)
    settings.add_argument("--max-size", type=int, help="longer side [px], 0 = as they come")
    settings.add_argument("--device", help="auto, cpu, cuda:0")
    add_set_option(settings, "matcher.name=mutual")
    parser.set_defaults(run=run_match)


def run_match(args: argparse.Namespace) -> int:
    """Match, draw, write; a line for each pair on the terminal."""
    matcher = ImageMatcher(config_of(args))
    folder, names, pairs = _inputs(args)
    cameras = _cameras(args.calibration or [], len(names))
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


def config_of(args: argparse.Namespace) -> Config:
    """The settings of a command line: --set overrides options, these the preset or the file."""
    values = {}
    if args.config:
        if args.preset:
            raise ConfigError("--preset and --config exclude each other: add options to the preset")
        load(args.config, Config)  # its own errors name the file
        values = read_yaml(args.config)
    elif args.preset:
        values = PRESETS[args.preset]
    return build(Config, override(values, [*shorthands(args, SHORTHANDS), *args.set]))


def _inputs(args: argparse.Namespace) -> tuple[Path, list[str], list[tuple[int, int]]]:
    """The folder, the images' names in it, and the pairs as places in these names."""
    given: Sequence[Path] = args.images
    if len(given) == 2 and not (args.pairs or args.next):
        same = given[0].parent == given[1].parent
        folder = given[0].parent if same else Path()
        names = [path.name if same else path.as_posix() for path in given]
        return folder, names, [(0, 1)]
    if len(given) != 1 or not given[0].is_dir():
        raise ConfigError(
            "give two images, or one folder of images (with --pairs or --next, or all pairs): "
            f"got {', '.join(map(str, given))}"
        )
    folder = given[0]
    if args.pairs:
        return folder, *_listed(args.pairs)
    names = [path.relative_to(folder).as_posix() for path in list_images(folder)]
    if args.next is not None and args.next < 1:
        raise ConfigError(f"--next {args.next} must be 1 or more")
    reach = args.next or len(names)
    pairs = [(i, j) for i, j in combinations(range(len(names)), 2) if j - i <= reach]
    if not pairs:
        raise DataError(f"{folder} holds one image: two make a pair")
    return folder, names, pairs


def _listed(file: Path) -> tuple[list[str], list[tuple[int, int]]]:
    places: dict[str, int] = {}
    pairs = []
    for number, words in text_rows(file):
        if len(words) < 2 or words[0] == words[1]:
            raise DataError(f"{file}, line {number}: give the names of two images")
        i, j = (places.setdefault(word, len(places)) for word in words[:2])
        pairs.append((i, j))
    if not pairs:
        raise DataError(f"{file} lists no pairs")
    return list(places), pairs


def _cameras(files: Sequence[Path], images: int) -> list[Camera | None]:
    if not files:
        return [None] * images
    cameras = [read_calibration(file) for file in files]
    if len(cameras) == 1:
        return [cameras[0]] * images
    if len(cameras) != images:
        raise ConfigError(f"{len(cameras)} calibrations for {images} images: give one, or one each")
    return [*cameras]


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
