"""Which images and which pairs of them a command matches, and with which settings."""

from __future__ import annotations

import argparse
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from superglue_ros.config import PRESETS, Config
from superglue_ros.data.calibration import read_calibration
from superglue_ros.data.trajectories import text_rows
from superglue_ros.errors import ConfigError, DataError
from superglue_ros.evaluation.pairs.images import list_images
from superglue_ros.geometry.camera import Camera
from superglue_ros.settings import add_set_option, build, load, override, read_yaml, shorthands

SHORTHANDS = {
    "max_keypoints": "front_end.max_keypoints",
    "max_size": "front_end.max_size",
    "device": "device",
}
_MAX_LIST = 4 << 30
"""Bytes of a list of pairs: 50 million pairs of usual names."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Images ``names`` below ``folder``; ``pairs`` (M, 2) int32, places in ``names``."""

    folder: Path
    names: list[str]
    pairs: NDArray[np.int32]


def add_pair_options(parser: argparse.ArgumentParser) -> None:
    """Options that say which pairs of a folder's images, and their calibration."""
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


def add_settings_options(parser: argparse.ArgumentParser) -> None:
    """Options of :func:`config_of`."""
    settings = parser.add_argument_group("settings")
    settings.add_argument(
        "--preset", choices=PRESETS, help="the paper's resolution, keypoints and NMS"
    )
    settings.add_argument("--config", type=Path, help="YAML of the settings (see config/)")
    settings.add_argument("--max-keypoints", type=int)
    settings.add_argument("--max-size", type=int, help="longer side [px], 0 = as they come")
    settings.add_argument("--device", help="auto, cpu, cuda:0")
    add_set_option(settings, "matcher.name=mutual")


def config_of(args: argparse.Namespace) -> Config:
    """--set overrides single options, which override the preset or the YAML file."""
    values = {}
    if args.config:
        if args.preset:
            raise ConfigError("--preset and --config exclude each other: add options to the preset")
        load(args.config, Config)  # its own errors name the file
        values = read_yaml(args.config)
    elif args.preset:
        values = PRESETS[args.preset]
    return build(Config, override(values, [*shorthands(args, SHORTHANDS), *args.set]))


def select(images: Sequence[Path], listed: Path | None, reach: int | None) -> Selection:
    """The pairs of two ``images``, or of one folder of images.

    Of a folder those that the file ``listed`` names, or each image with the next ``reach`` by name,
    or all. Raises :class:`ConfigError` and :class:`DataError`.
    """
    if len(images) == 2 and not (listed or reach):
        same = images[0].parent == images[1].parent
        folder = images[0].parent if same else Path()
        names = [path.name if same else path.as_posix() for path in images]
        return Selection(folder, names, np.array([[0, 1]], np.int32))
    if len(images) != 1 or not images[0].is_dir():
        raise ConfigError(
            "give two images, or one folder of images (with --pairs or --next, or all pairs): "
            f"got {', '.join(map(str, images))}"
        )
    folder = images[0]
    if listed:
        return Selection(folder, *_listed(listed))
    names = [path.relative_to(folder).as_posix() for path in list_images(folder)]
    if reach is not None and reach < 1:
        raise ConfigError(f"--next {reach} must be 1 or more")
    pairs = _neighbours(len(names), reach or len(names))
    if not len(pairs):
        raise DataError(f"{folder} holds one image: two make a pair")
    return Selection(folder, names, pairs)


def cameras_of(files: Sequence[Path], images: int) -> list[Camera | None]:
    """A camera for each of so many images, from one file for all or one each."""
    if not files:
        return [None] * images
    cameras = [read_calibration(file) for file in files]
    if len(cameras) == 1:
        return [cameras[0]] * images
    if len(cameras) != images:
        raise ConfigError(f"{len(cameras)} calibrations for {images} images: give one, or one each")
    return [*cameras]


def _neighbours(images: int, reach: int) -> NDArray[np.int32]:
    """(M, 2) each with the next ``reach``, in the order of the first."""
    numbers = np.arange(images)
    counts = np.minimum(images - 1 - numbers, reach)
    first = np.repeat(numbers, counts)
    steps = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([first, first + 1 + steps], axis=1).astype(np.int32)


def _listed(file: Path) -> tuple[list[str], NDArray[np.int32]]:
    places: dict[str, int] = {}
    pairs = array("i")
    for number, words in text_rows(file, _MAX_LIST):
        if len(words) < 2 or words[0] == words[1]:
            raise DataError(f"{file}, line {number}: give the names of two images")
        pairs.extend(places.setdefault(word, len(places)) for word in words[:2])
    if not pairs:
        raise DataError(f"{file} lists no pairs")
    return list(places), np.array(pairs, np.int32).reshape(-1, 2)
