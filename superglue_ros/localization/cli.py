"""``superglue-ros localize``: poses of images in a map of ``superglue-ros reconstruct``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from superglue_ros.data.calibration import read_calibration
from superglue_ros.data.trajectories import write_placed
from superglue_ros.errors import CalibrationError, ConfigError
from superglue_ros.evaluation.pairs.make_pairs import FrameRange
from superglue_ros.evaluation.progress import track
from superglue_ros.geometry.camera import Camera
from superglue_ros.localization.localizer import Localized, Localizer
from superglue_ros.localization.results import THRESHOLDS, figures, pose_errors, write_hloc
from superglue_ros.localization.scene_map import EncodedMap, SceneMap
from superglue_ros.reconstruction.pictures import Pictures, open_pictures
from superglue_ros.rig import Rig
from superglue_ros.settings import add_set_option


def add_subcommands(subparsers: argparse._SubParsersAction) -> None:
    """See :mod:`superglue_ros.cli`."""
    parser = subparsers.add_parser(
        "localize",
        help="poses of images in a map that `reconstruct` made",
        description="Find where images were taken in a map: the most similar images of the map, "
        "matches with their 3D points, PnP with covariance. Writes poses.tum, poses.txt (as hloc: "
        "name qw qx qy qz tx ty tz), localization.json. Front-end and matcher are those of the "
        "map unless said otherwise.",
    )
    parser.add_argument("--map", type=Path, required=True, metavar="FOLDER", help="of reconstruct")
    parser.add_argument("--model", type=int, default=0, metavar="N", help="sparse/N of the map")
    parser.add_argument(
        "--queries",
        type=Path,
        required=True,
        help="folder of images, sequence, bag, or the list of a data set (Aachen, 7-Scenes, "
        "Cambridge)",
    )
    parser.add_argument(
        "--query-root", type=Path, metavar="FOLDER", help="what a list's names are relative to"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument(
        "--calibration", type=Path, metavar="FILE", help="of all queries, see `reconstruct`"
    )
    camera.add_argument(
        "--map-calibration",
        action="store_true",
        help="the queries' camera is the map's, as `reconstruct --refine-cameras` adjusted it",
    )
    parser.add_argument("--image-topic", default="", metavar="TOPIC", help="of a bag")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="begin with query N")
    parser.add_argument("--last", type=int, default=0, metavar="N", help="end before query N")
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="every Nth query only")
    parser.add_argument(
        "--retrieve", type=int, default=10, metavar="N", help="images of the map for each query"
    )
    add_set_option(parser, "geometry.threshold_px=1.5", "setting other than the map's")
    parser.set_defaults(run=run_localize)


def run_localize(args: argparse.Namespace) -> int:
    """Localize, write, report."""
    if args.retrieve < 1:
        raise ConfigError(f"--retrieve {args.retrieve} must be 1 or more")
    scene = SceneMap(args.map, args.model)
    rig = Rig(scene.config(args.set))
    args.output.mkdir(parents=True, exist_ok=True)
    queries = _queries(args)
    cameras = [_camera(queries, place, scene) for place in range(len(queries))]
    localizer = Localizer(EncodedMap(scene, rig), rig, args.retrieve)
    found = [
        localizer.localize(queries.grey(place), cameras[place])
        for place in track(range(len(queries)), len(queries), "localizing")
    ]
    _write(args.output, queries, found)
    _report(Console(), queries, found)
    print(f"written to {args.output}")
    return 0


def _queries(args: argparse.Namespace) -> Pictures:
    queries = open_pictures(args.queries, args.output, args.image_topic, args.query_root)
    frames = FrameRange(args.first, args.last, max(1, args.stride))
    queries = queries.select(list(frames.indices(len(queries))))
    if args.map_calibration:
        return queries.calibrated(None)
    return queries.calibrated(read_calibration(args.calibration)) if args.calibration else queries


def _camera(queries: Pictures, place: int, scene: SceneMap) -> Camera:
    """A query's own camera, else the map's if it has one only and of the query's size."""
    camera = queries.cameras[place]
    if camera is not None:
        return camera
    height, width = queries.grey(place).shape
    known = list(scene.cameras.values())
    same = all(
        (one.width, one.height) == (width, height)
        and np.array_equal(one.matrix, known[0].matrix)
        and np.array_equal(one.distortion, known[0].distortion)
        for one in known
    )
    if not same:
        raise CalibrationError(
            f"{queries.names[place]} has no calibration of its own to use, and the map has several "
            f"cameras or another image size: give --calibration"
        )
    return known[0]


def _write(output: Path, queries: Pictures, found: list[Localized]) -> None:
    poses = [one.T_map_camera for one in found]
    if queries.ordered:
        write_placed(output / "poses.tum", queries.stamps_ns, poses)
    named = {n: p for n, p in zip(queries.names, poses, strict=True) if p is not None}
    write_hloc(output / "poses.txt", named)
    entries = [_entry(queries, place, one) for place, one in enumerate(found)]
    summary = {**figures(poses, queries.poses), "each": entries}
    text = json.dumps(summary, indent=1) + "\n"
    (output / "localization.json").write_text(text, encoding="utf-8")


def _entry(queries: Pictures, place: int, one: Localized) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": queries.names[place],
        "retrieved": list(one.retrieved),
        "matched_points": one.points,
        "reason": one.reason,
    }
    if one.pose is not None:
        entry["inliers"] = int(one.pose.inliers.sum())
        entry["error_px"] = one.pose.error_px
        entry["covariance"] = one.pose.covariance.ravel().tolist()
        truth, pose = queries.poses[place], one.T_map_camera
        if truth is not None and pose is not None:
            entry["error_m"], entry["error_deg"] = pose_errors(pose, truth)
    return entry


def _report(console: Console, queries: Pictures, found: list[Localized]) -> None:
    lost = [(n, one.reason) for n, one in zip(queries.names, found, strict=True) if not one.pose]
    for name, reason in lost[:10]:
        console.print(f"{name}: {reason}", markup=False)
    if len(lost) > 10:
        console.print(f"... and {len(lost) - 10} more: localization.json has them all")
    numbers = figures([one.T_map_camera for one in found], queries.poses)
    console.print(f"{numbers['localized']} of {numbers['queries']} queries localized")
    if not numbers["with_truth"]:
        return
    shares = " / ".join(f"{100 * share:.1f}" for share in numbers["within"].values())
    limits = " / ".join(f"{metres:g} m {degrees:g} deg" for metres, degrees in THRESHOLDS)
    console.print(f"within {limits}: {shares} %")
    if numbers["median_m"] is not None:
        centimetres, degrees = 100 * numbers["median_m"], numbers["median_deg"]
        console.print(f"median error {centimetres:.2f} cm, {degrees:.3f} deg")
