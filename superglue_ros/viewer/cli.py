"""``superglue-ros view``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import track

from superglue_ros.config import Config
from superglue_ros.data.bag_sequences import SequenceTopics
from superglue_ros.errors import ConfigError
from superglue_ros.settings import add_set_option, build, override

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from superglue_ros.data.sequences.base import SequenceItem
    from superglue_ros.drawing.live_view import LiveView
    from superglue_ros.evaluation.bag.outcomes import FrameOutcome
    from superglue_ros.viewer.steps import Step

# As in the demonstration; a window of two keyframes keeps the scale of a monocular map.
_USUAL = (
    "front_end.max_keypoints=512",
    "keyframes.window=2",
    "keyframes.relocalise_budget_s=0",
)


def add_subcommands(subparsers: argparse._SubParsersAction) -> None:
    """Add ``view``."""
    parser = subparsers.add_parser(
        "view",
        help="a recording in Rerun: matches, trajectory, landmarks, timing",
        description="Show a recording in Rerun: images with matches, keyframes, trajectory, "
        "landmarks, and inliers and milliseconds over time. A bag with the node's topics is shown "
        "as recorded, any other is matched here, and so is an image folder; without SOURCE the "
        "built-in room. Needs the extra `view` (rerun-sdk, gtsam).",
    )
    parser.add_argument(
        "source", nargs="?", default="", metavar="SOURCE", help="rosbag2, .mcap, .db3, image folder"
    )
    parser.add_argument("--recorded", metavar="BAG", help="what the node said of SOURCE, recorded")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--save", metavar="FILE.rrd", help="write a Rerun recording, no window")
    target.add_argument("--connect", default="", metavar="URL", help="a Rerun viewer that runs")
    parser.add_argument(
        "--animation", metavar="FILE.webp", help="write a moving picture (WebP, GIF), no window"
    )
    parser.add_argument("--frames", type=int, metavar="N", help="only the first N frames")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth frame")
    parser.add_argument("--depth", action="store_true", help="use the depth: metric scale")
    parser.add_argument("--depth-unit", type=float, metavar="METRES", help="of an image folder")
    look = parser.add_argument_group("of --animation")
    look.add_argument("--width", type=int, default=640, metavar="PIXELS")
    look.add_argument("--milliseconds", type=int, default=120, help="between two pictures")
    look.add_argument("--quality", type=int, default=35, help="1 to 100")
    topics = parser.add_argument_group("topics of a bag (default: the only one that fits)")
    for name in ("image", "camera-info", "depth"):
        topics.add_argument(f"--{name}-topic", default="", metavar="TOPIC")
    add_set_option(parser, "matcher.name=mutual", "setting of the matcher")
    parser.set_defaults(run=run_view)


def run_view(args: argparse.Namespace) -> int:
    """Show, or write, the recording."""
    from superglue_ros.drawing.live_view import Destination, LiveView
    from superglue_ros.viewer.animation import Animation
    from superglue_ros.viewer.steps import relocalised, steps

    if args.every < 1 or (args.frames is not None and args.frames < 1):
        raise ConfigError("--frames and --every must be 1 or more")
    if not 100 <= args.width <= 4000 or not 1 <= args.quality <= 100 or args.milliseconds < 1:
        raise ConfigError("give --width 100 to 4000, --quality 1 to 100, --milliseconds 1 or more")
    recording = _recording(args)
    frames = _frames(args, recording)
    in_map = relocalised(recording) if recording is not None else {}
    destination = Destination(Path(args.save) if args.save else None, args.connect)
    animation = Animation(args.width) if args.animation else None
    with ExitStack() as stack:
        view = None
        if args.save or args.connect or animation is None:
            view = stack.enter_context(LiveView(destination))
        for step in steps(frames):
            if view is not None:
                _show(step, view, in_map.get(step.item.stamp_ns))
            if animation is not None:
                animation.add(step)
    if args.save:
        print(f"{args.save}: open it with `rerun {args.save}`")
    if animation is not None:
        count = animation.write(Path(args.animation), args.milliseconds, args.quality)
        print(f"{args.animation}: {count} pictures")
    return 0


def _show(step: Step, view: LiveView, T_map_camera: NDArray[np.float64] | None) -> None:
    stamp_ns = step.item.stamp_ns
    view.add_image(stamp_ns, step.item.image, step.item.camera)
    for pair in step.pairs:
        view.add_pair(pair.matches, pair.pose)
    if any(step.seconds):
        view.add_seconds(stamp_ns, step.seconds)
    view.add_path(step.stamps_ns, step.poses)
    view.add_landmarks(stamp_ns, step.landmarks)
    if T_map_camera is not None:
        view.add_relocalised(stamp_ns, T_map_camera)


def _recording(args: argparse.Namespace) -> Path | None:
    """The bag that holds what a node said of the frames, if there is one."""
    from superglue_ros.viewer.steps import has_results, is_bag

    if args.recorded is not None:
        return Path(args.recorded)
    if args.source and is_bag(args.source) and has_results(args.source):
        return Path(args.source)
    return None


def _frames(
    args: argparse.Namespace, recording: Path | None
) -> Iterator[tuple[SequenceItem, FrameOutcome]]:
    """The frames to show with what was, or is now, said of them."""
    from superglue_ros.pipeline import Pipeline
    from superglue_ros.viewer.steps import matched, open_source, replayed

    named = SequenceTopics(args.image_topic, args.camera_info_topic, args.depth_topic, "")
    topics = replace(named, depth=named.depth or (SequenceTopics.depth if args.depth else ""))
    sequence = open_source(args.source, topics, args.depth_unit)
    end = min(len(sequence), (args.frames or len(sequence)) * args.every)
    total = -(-end // args.every)
    items = islice(iter(sequence), 0, end, args.every)
    shown = track(items, sequence.name, total=total, console=Console(stderr=True), transient=True)
    if recording is not None:
        return replayed(shown, recording)
    config = build(Config, override({}, [*_USUAL, *args.set]))
    return matched(shown, Pipeline(config), args.depth)
