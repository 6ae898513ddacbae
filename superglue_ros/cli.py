"""``superglue-ros``: the command line for everything but the nodes.

Every area defines its own subcommands; this file only collects them. An area is imported when its
command is run, so that ``--help`` does not wait for torch.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from superglue_ros import __version__
from superglue_ros.errors import SuperglueError

# Subcommand -> (module with add_subcommands, one line of help).
AREAS = {
    "match": ("superglue_ros.image_pairs.cli", "match two images, a folder or a list of pairs"),
    "reconstruct": ("superglue_ros.reconstruction.cli", "a map from images, a sequence or a bag"),
    "depth": ("superglue_ros.reconstruction.depth_cli", "depth of such a map: a scene to train on"),
    "localize": ("superglue_ros.localization.cli", "poses of images in such a map"),
    "match-many": ("superglue_ros.many_pairs.cli", "millions of pairs on Ray, every pair once"),
    "demo": ("superglue_ros.demo.cli", "matches of a sequence, end to end over real ROS 2"),
    "view": ("superglue_ros.viewer.cli", "a recording in Rerun: matches, trajectory, timing"),
    "to-bag": ("superglue_ros.demo.cli", "convert an image folder to a rosbag2 directory"),
    "train": ("superglue_ros.training.cli", "collect a corpus, train the networks, export weights"),
    "evaluate": ("superglue_ros.evaluation.cli", "the paper's tables, and rosbag replay"),
    "bench": ("superglue_ros.bench.cli", "time and memory against public implementations"),
    "export": ("superglue_ros.bench.cli", "write the networks as ONNX"),
    "security": ("superglue_ros.ros.tools.security", "SROS2 policies of the nodes, keystores"),
    "slam": ("superglue_ros.back_end.cli", "trajectory with the example back-end"),
}


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """The parser, complete for ``command`` and with one line of help for all others."""
    parser = argparse.ArgumentParser(
        prog="superglue-ros", description="SuperPoint and SuperGlue for ROS 2."
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--verbose", action="store_true", help="log what is done, step by step")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    if command in AREAS:
        importlib.import_module(AREAS[command][0]).add_subcommands(subparsers)
    for name, (_, line) in AREAS.items():
        if name not in subparsers.choices:
            subparsers.add_parser(name, help=line, add_help=False)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 a clear error, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = next((word for word in given if not word.startswith("-")), None)
    args = build_parser(command).parse_args(given)
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.WARNING, format="%(levelname)s: %(message)s"
    )
    try:
        return int(args.run(args) or 0)
    except SuperglueError as error:
        print(f"superglue-ros {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def evaluate_main() -> int:
    """Entry point of ``ros2 run superglue_ros evaluate``."""
    return main(["evaluate", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
