"""``superglue-ros demo`` and ``superglue-ros to-bag``."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from superglue_ros.data.bag_sequences import BagSequence, SequenceTopics, write_bag
from superglue_ros.data.bags import STORAGES
from superglue_ros.data.sequences.base import FolderSequence, open_sequence
from superglue_ros.errors import ConfigError
from superglue_ros.settings import add_set_option, split_word

# A laptop without a GPU matches this in about one second per frame.
_PARAMETERS = {"front_end.max_keypoints": "512"}


def add_subcommands(subparsers: argparse._SubParsersAction) -> None:
    """See :mod:`superglue_ros.cli`."""
    _add_demo(subparsers)
    _add_to_bag(subparsers)


def _add_demo(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="matches of a sequence, end to end over real ROS 2",
        description="Play a sequence over DDS to the matcher node, record what it publishes, and "
        "compare it with the truth. Without SEQUENCE or BAG: the built-in room.",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--sequence", metavar="FOLDER", help="image folder (see docs/demo.md)")
    source.add_argument("--bag", metavar="BAG", help="rosbag2 directory, .mcap or .db3 file")
    parser.add_argument(
        "--no-ros", action="store_true", help="run the pipeline in this process, without DDS"
    )
    parser.add_argument("--output", default="demo_output", metavar="FOLDER")
    parser.add_argument("--frames", type=int, metavar="N", help="only the first N frames")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth frame")
    parser.add_argument("--rate", type=float, default=1.0, help="times the recorded pace")
    parser.add_argument(
        "--depth", action="store_true", help="give the node the depth too: metric scale"
    )
    parser.add_argument(
        "--depth-unit", type=float, metavar="METRES", help="SEQUENCE: one unit of its depth images"
    )
    parser.add_argument("--domain-id", type=int, help="ROS domain (default: any of 1 to 100)")
    add_set_option(parser, "matcher.name=mutual", "parameter of the node")
    topics = parser.add_argument_group("topics of BAG (default: the only one that fits)")
    topics.add_argument("--image-topic", default="", help="raw or compressed images")
    topics.add_argument("--camera-info-topic", default="")
    topics.add_argument("--depth-topic", default="")
    topics.add_argument(
        "--ground-truth-topic", default="", help="poses of the camera's optical frame in the world"
    )
    parser.set_defaults(run=run_demo)


def _add_to_bag(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "to-bag",
        help="convert an image folder to a rosbag2 directory",
        description="Convert an image folder (see docs/demo.md) to a rosbag2 directory.",
    )
    parser.add_argument("folder", help="image folder")
    parser.add_argument("bag", help="rosbag2 directory to write")
    parser.add_argument("--storage", choices=STORAGES, default="mcap")
    parser.add_argument("--jpeg", type=int, metavar="QUALITY", help="compressed images, 1 to 100")
    parser.add_argument("--depth-unit", type=float, metavar="METRES")
    parser.add_argument("--overwrite", action="store_true", help="replace an older bag")
    names = SequenceTopics()
    for name in ("image", "camera_info", "depth", "ground_truth"):
        parser.add_argument(
            f"--{name.replace('_', '-')}-topic",
            default=getattr(names, name),
            metavar="TOPIC",
            help=f"default {getattr(names, name)}; '' leaves it out",
        )
    parser.set_defaults(run=run_to_bag)


def run_demo(args: argparse.Namespace) -> int:
    """Run the demonstration; exit code 0 where frames were matched, 1 otherwise."""
    from superglue_ros.demo.run import run_bag, run_sequence
    from superglue_ros.live.play_and_record import LiveOptions

    # End as on an interrupt, so that the children are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    options = LiveOptions(
        output=Path(args.output),
        rate=args.rate,
        use_depth=args.depth,
        domain_id=args.domain_id,
        parameters={**_PARAMETERS, **dict(split_word(word) for word in args.set)},
    )
    if args.bag:
        if args.frames or args.every != 1:
            raise ConfigError("--frames and --every go with a sequence, not with a bag")
        bag = BagSequence(
            args.bag,
            args.image_topic,
            args.camera_info_topic,
            args.depth_topic,
            args.ground_truth_topic,
            grey=True,
        )
        summary = run_bag(bag, options, console, ros=not args.no_ros)
    else:
        sequence = _Part(_source(args), args.frames, args.every)
        summary = run_sequence(sequence, options, console, ros=not args.no_ros)
    return 0 if summary["pairs"] else 1


def run_to_bag(args: argparse.Namespace) -> int:
    """Convert a folder to a bag."""
    if args.jpeg is not None and not 1 <= args.jpeg <= 100:
        raise ConfigError(f"--jpeg {args.jpeg} is out of range: give a quality from 1 to 100")
    sequence = open_sequence(args.folder, args.depth_unit)
    topics = SequenceTopics(
        args.image_topic,
        args.camera_info_topic,
        args.depth_topic,
        args.ground_truth_topic,
    )
    write_bag(_Tracked(sequence), args.bag, topics, args.storage, args.jpeg, args.overwrite)
    return 0


def _source(args: argparse.Namespace) -> Any:
    if args.sequence:
        return open_sequence(args.sequence, args.depth_unit)
    from superglue_ros.synthetic.demo_room import RoomSequence

    return RoomSequence()


class _Part:
    """The first ``frames`` of every ``step``-th item of a sequence."""

    def __init__(self, sequence: Any, frames: int | None, step: int) -> None:
        if step < 1 or (frames is not None and frames < 1):
            raise ConfigError("--frames and --every must be 1 or more")
        self.name = sequence.name
        self._sequence = sequence
        self._indices = range(0, len(sequence), step)[:frames]

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Any:
        return (self._sequence[index] for index in self._indices)


class _Tracked:
    """A sequence with a progress bar."""

    def __init__(self, sequence: FolderSequence) -> None:
        self.name = sequence.name
        self._sequence = sequence

    def __len__(self) -> int:
        return len(self._sequence)

    def __iter__(self) -> Any:
        return iter(track(self._sequence, description="writing", console=Console()))
