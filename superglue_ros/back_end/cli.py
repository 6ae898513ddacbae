"""``superglue-ros slam``: trajectories of matcher and example back-end, and their errors."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from superglue_ros.config import Config
from superglue_ros.data.imu import ImuRecording
from superglue_ros.data.sequences.base import FolderSequence, open_sequence
from superglue_ros.errors import ConfigError
from superglue_ros.registry import MATCHERS
from superglue_ros.settings import add_set_option, build, override

if TYPE_CHECKING:
    from superglue_ros.back_end.round_trip import RoundTripSequence

log = logging.getLogger(__name__)


def add_subcommands(subparsers: argparse._SubParsersAction) -> None:
    """Add ``slam``."""
    parser = subparsers.add_parser(
        "slam",
        help="trajectory with the example back-end",
        description="Run the matcher and the bundle adjuster over a sequence; compare the "
        "trajectories with and without it, and with and without loops, with the truth. Writes "
        "summary.json, TUM trajectories and plots. Without SEQUENCE: once around the built-in "
        "room. Needs the extras `backend` and `evaluation` (gtsam, evo).",
    )
    parser.add_argument("sequence", nargs="?", metavar="SEQUENCE", help="image folder")
    parser.add_argument("--output", default="slam_output", metavar="FOLDER")
    parser.add_argument(
        "--matcher",
        action="append",
        choices=[m for m in MATCHERS if MATCHERS[m].one_to_one],
        help="may be repeated",
    )
    parser.add_argument("--depth", action="store_true", help="use the depth: metric scale")
    parser.add_argument(
        "--depth-unit", type=float, metavar="METRES", help="one unit of the depth images"
    )
    parser.add_argument("--frames", type=int, metavar="N", help="only the first N frames")
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="every Nth frame only")
    parser.add_argument("--no-loops", action="store_true", help="close no loops")
    parser.add_argument(
        "--no-imu", action="store_true", help="leave out the IMU of a sequence that has one"
    )
    add_set_option(parser, "keyframes.window=3", "setting of the matcher")
    parser.set_defaults(run=run_slam)


def run_slam(args: argparse.Namespace) -> int:
    """Run every matcher, with its loops and without them, and report."""
    from superglue_ros.back_end.accuracy import Accuracy, measure
    from superglue_ros.back_end.pictures import plot_trajectories

    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    sequence = _sequence(args)
    imu = None if args.no_imu else sequence.read_imu()
    summary: dict[str, Any] = {
        "sequence": sequence.name,
        "depth": args.depth,
        "imu": imu is not None,
        "runs": [],
    }
    drawn: dict[str, Accuracy] = {}
    metric = True
    for matcher in args.matcher or ["superglue"]:
        config = _config(args, matcher)
        run = _run(sequence, imu, config, args)
        run.write(output, f"{matcher}_")
        metric &= run.metric
        for name, poses in run.trajectories.items():
            accuracy = measure(run.stamps_ns, run.truth, poses, run.metric)
            entry: dict[str, Any] = {"matcher": matcher, "poses": name}
            if accuracy is not None:
                drawn[f"{matcher}, {name}"] = accuracy
                entry |= accuracy.figures()
            summary["runs"].append(entry)
        summary[matcher] = {
            "keyframes": run.keyframes,
            "lost": run.lost,
            "landmarks": len(run.landmarks),
            "loops": [[one.query, one.reference, one.inliers] for one in run.closures],
            "metric": run.metric,
            "matcher_seconds": run.matcher_seconds,
            "back_end_seconds": run.back_end_seconds,
        }
    (output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    if drawn:
        scale = "metric" if metric else "monocular, scale aligned"
        plot_trajectories(output / "trajectories.png", f"{sequence.name}, {scale}", drawn)
    _print(summary)
    return 0


def _sequence(args: argparse.Namespace) -> FolderSequence | RoundTripSequence:
    if args.sequence:
        return open_sequence(args.sequence, args.depth_unit)
    from superglue_ros.back_end.round_trip import RoundTripSequence

    return RoundTripSequence()


def _config(args: argparse.Namespace, matcher: str) -> Config:
    usual = [f"matcher.name={matcher}", "keyframes.relocalise_budget_s=0"]
    loops = ["keyframes.loop_candidates=0"] if args.no_loops else []
    return build(Config, override({}, [*usual, *loops, *args.set]))


def _run(
    sequence: FolderSequence | RoundTripSequence,
    recorded: ImuRecording | None,
    config: Config,
    args: argparse.Namespace,
) -> Any:
    try:
        from superglue_ros.back_end.bundle_adjuster import BundleAdjuster
        from superglue_ros.back_end.imu import Imu
        from superglue_ros.back_end.offline import recordings, run
    except ImportError as error:
        raise ConfigError(
            f"the back-end needs {error.name}: pip install 'superglue_ros[backend,evaluation]'"
        ) from error
    from superglue_ros.pipeline import Pipeline

    if args.stride < 1:
        raise ConfigError(f"--stride {args.stride}: give 1 for every frame, 2 for every second one")
    end = min(len(sequence), args.frames or len(sequence))
    total = -(-end // args.stride)
    frames: Iterator[Any] = islice(recordings(sequence, args.depth), 0, end, args.stride)
    shown = track(
        frames, config.matcher.name, total=total, console=Console(stderr=True), transient=True
    )
    imu = None if recorded is None else Imu(recorded.calibration, recorded.readings)
    return run(shown, Pipeline(config), BundleAdjuster(imu=imu))


def _print(summary: dict[str, Any]) -> None:
    kind = "depth" if summary["depth"] else "monocular"
    table = Table(title=f"{summary['sequence']}, {kind}{', IMU' if summary['imu'] else ''}")
    for column in ("matcher", "poses", "ATE [cm]", "RPE [cm]", "RPE [deg]", "scale", "placed"):
        table.add_column(column, justify="left" if column in ("matcher", "poses") else "right")
    for run in summary["runs"]:
        if "ate_m" not in run:
            table.add_row(run["matcher"], run["poses"], *["-"] * 5)
            continue
        table.add_row(
            run["matcher"],
            run["poses"],
            f"{run['ate_m'] * 100:.1f}",
            f"{run['rpe_m'] * 100:.2f}",
            f"{run['rpe_deg']:.3f}",
            f"{run['scale']:.4f}",
            f"{run['placed'] * 100:.0f} %",
        )
    Console().print(table)
