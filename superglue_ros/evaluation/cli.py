"""``superglue-ros evaluate``: the commands and their options."""

from __future__ import annotations

import argparse
from pathlib import Path

from superglue_ros.config import PRESETS
from superglue_ros.evaluation import commands
from superglue_ros.evaluation.bag.trajectories import FORMATS
from superglue_ros.evaluation.loops import LoopProtocol
from superglue_ros.evaluation.pairs.ablation import VARIANTS
from superglue_ros.evaluation.pairs.benchmarks import BENCHMARKS, THRESHOLDS_PX
from superglue_ros.evaluation.pairs.benchmarks import ESTIMATORS as BENCHMARK_ESTIMATORS
from superglue_ros.evaluation.retrieval import RetrievalProtocol
from superglue_ros.registry import ESTIMATORS, FRONT_ENDS, MATCHERS, REFINERS, SEQUENCES
from superglue_ros.settings import add_set_option
from superglue_ros.synthetic.homographies import HomographyRecipe


def add_subcommands(subparsers: argparse._SubParsersAction) -> None:
    """Add ``evaluate`` with its own subcommands."""
    parser = subparsers.add_parser(
        "evaluate", help="the paper's tables, and rosbag replay", description=__doc__
    )
    group = parser.add_subparsers(dest="evaluation", required=True, metavar="WHAT")
    _add_homography(group)
    _add_pose(group)
    _add_bag(group)
    _add_make_pairs(group)
    _add_compare(group)
    _add_trajectory(group)
    _add_benchmark(group)
    _add_sequence(group)
    _add_retrieval(group)
    _add_loops(group)
    _add_ablation(group)
    _add_attention(group)
    _add_timing(group)


def _add_ablation(group: argparse._SubParsersAction) -> None:
    parser = group.add_parser("ablation", help="table 4: SuperGlue without its parts")
    _add_pose_options(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--checkpoints",
        type=Path,
        help=f"folder of trained {', '.join(v.key for v in VARIANTS)} (.safetensors)",
    )
    source.add_argument(
        "--knock-out",
        action="store_true",
        help="switch parts of --superglue off, without training again",
    )
    _add_method_options(parser, usual_keypoints=1024)
    parser.set_defaults(run=commands.ablation_command)


def _add_attention(group: argparse._SubParsersAction) -> None:
    parser = group.add_parser("attention", help="attention rays and spans (figures 7, 12, 16)")
    parser.add_argument("--pairs", type=Path, required=True, help="*_pairs_with_gt.txt")
    parser.add_argument("--images", type=Path, required=True, help="folder the names start from")
    parser.add_argument("--count", type=int, default=100, help="pairs of the span (paper: 100)")
    parser.add_argument("--show", type=int, default=0, help="pair whose rays are drawn")
    parser.add_argument(
        "--variants",
        type=Path,
        nargs="+",
        help="several SuperGlue weights, or folders such as runs/ablation/runs: rays of each, and "
        "their spans together",
    )
    _add_method_options(parser, usual_keypoints=512)
    parser.set_defaults(run=commands.attention_command)


def _add_timing(group: argparse._SubParsersAction) -> None:
    parser = group.add_parser("timing", help="time by stage over keypoints (figure 11)")
    parser.add_argument(
        "--superglue", default="auto", help="small, wide, a file, or full: the paper's size"
    )
    parser.add_argument("--keypoints", type=int, nargs="+", default=[128, 256, 512, 1024, 2048])
    parser.add_argument("--repeat", type=int, default=20, help="least rounds of each number")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, required=True)
    parser.set_defaults(run=commands.timing_command)


def _add_homography(group: argparse._SubParsersAction) -> None:
    parser = group.add_parser("homography", help="homography estimation (tables 1 and 5)")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, help="folder of full-size images")
    source.add_argument("--hpatches", type=Path, help="HPatches sequences folder")
    parser.add_argument(
        "--image-list", type=Path, help="text file: only these images, relative to --images"
    )
    parser.add_argument("--pairs", type=int, default=1024, help="synthetic pairs (paper: 1024)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the pairs")
    parser.add_argument(
        "--no-photometric", action="store_true", help="leave brightness, noise and blur out"
    )
    _add_recipe_options(parser)
    _add_method_options(parser, usual_keypoints=512)
    parser.set_defaults(run=commands.homography_command)


def _add_recipe_options(parser: argparse.ArgumentParser) -> None:
    group, usual = parser.add_argument_group("synthetic homographies"), HomographyRecipe()
    for name, text in (
        ("perspective", "largest move of a corner, in parts of the image side"),
        ("translation", "largest, in parts of the image side"),
        ("min-overlap", "smallest part of its area that a view shares with the other"),
    ):
        value = getattr(usual, name.replace("-", "_"))
        group.add_argument(f"--{name}", type=float, default=value, help=f"{text} ({value})")
    group.add_argument(
        "--rotation",
        type=float,
        default=usual.rotation_deg,
        help=f"largest, either way [deg] ({usual.rotation_deg:g})",
    )
    group.add_argument(
        "--scale",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=usual.scale,
        help="of view 1 over view 0 ({:g} {:g})".format(*usual.scale),
    )


def _add_pose(group: argparse._SubParsersAction) -> None:
    parser = group.add_parser("pose", help="relative pose estimation (tables 2, 3 and 6)")
    _add_pose_options(parser)
    _add_method_options(parser, usual_keypoints=1024)
    parser.set_defaults(run=commands.pose_command)


def _add_pose_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=Path, required=True, help="*_pairs_with_gt.txt")
    parser.add_argument("--images", type=Path, required=True, help="folder the names start from")
    parser.add_argument(
        "--estimator",
        choices=ESTIMATORS,
        nargs="+",
        default=["opencv-ransac"],
        help="one or several, side by side (default: opencv-ransac)",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=1,
        help="pose estimations with shuffled matches and other seeds; mean and deviation (1)",
    )
    parser.add_argument(
        "--estimator-threshold",
        type=float,
        nargs="+",
        default=[1.0],
        help="[px] (paper: 1); with several every estimator stands there with each",
    )
    parser.add_argument("--estimator-confidence", type=float, default=0.99999)
    parser.add_argument("--estimator-iterations", type=int, default=0, help="0 = its own default")
    parser.add_argument("--seed", type=int, default=0, help="seed of estimator and bootstrap")
    parser.add_argument(
        "--epipolar-threshold",
        type=float,
        help="squared epipolar distance of a correct match (5e-4; with --preset outdoor 1e-4)",
    )
    parser.add_argument(
        "--depth",
        type=Path,
        metavar="SEQUENCE",
        help="sequence with depth of the images: matches are judged by reprojection",
    )
    parser.add_argument(
        "--reprojection-threshold",
        type=float,
        help="error of a correct match under --depth [px] (5, of reconstructions 3)",
    )
    parser.add_argument(
        "--rotation-only", action="store_true", help="judge the rotation alone (no baseline)"
    )


def _add_benchmark(group: argparse._SubParsersAction) -> None:
    parser = group.add_parser(
        "benchmark", help="MegaDepth-1500, ScanNet-1500 and HPatches under glue-factory's protocol"
    )
    parser.add_argument("benchmark", choices=BENCHMARKS)
    parser.add_argument("--data", type=Path, required=True, help="folder of your copy")
    parser.add_argument(
        "--estimator", choices=ESTIMATORS, nargs="+", default=list(BENCHMARK_ESTIMATORS)
    )
    parser.add_argument(
        "--estimator-threshold",
        type=float,
        nargs="+",
        default=list(THRESHOLDS_PX),
        help="[px], of which an estimator's best counts (glue-factory's six)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of estimator and bootstrap")
    _add_method_options(parser, usual_keypoints=2048)
    parser.set_defaults(run=commands.benchmark_command)


def _add_sequence(group: argparse._SubParsersAction) -> None:
    parser = group.add_parser(
        "sequence", help="trajectories of KITTI, EuRoC, TUM RGB-D, ... with ATE, RPE and drift"
    )
    parser.add_argument("sequences", type=Path, nargs="+", metavar="SEQUENCE", help="folders")
    parser.add_argument("--layout", choices=SEQUENCES, default="", help="default: by the files")
    parser.add_argument("--depth", action="store_true", help="use the depth: metric scale")
    parser.add_argument("--depth-unit", type=float, metavar="METRES", help="of the depth images")
    parser.add_argument("--stereo", action="store_true", help="use the right images (KITTI)")
    parser.add_argument("--frames", type=int, default=0, help="only the first so many; 0 = all")
    parser.add_argument("--stride", type=int, default=1, help="every so many frames")
    _add_method_options(parser, usual_keypoints=1024)
    parser.set_defaults(run=commands.sequence_command)


def _add_bag(group: argparse._SubParsersAction) -> None:
    parser = group.add_parser("bag", help="replay a rosbag2 and judge every frame")
    parser.add_argument("bag", type=Path, help="rosbag2 directory, .mcap or .db3 file")
    parser.add_argument("--image", default="", help="image topic (default: the only one)")
    parser.add_argument("--camera-info", default="", help="calibration topic")
    parser.add_argument("--depth", default="", help="depth topic; also gives metric scale")
    parser.add_argument("--ground-truth-topic", default="", help="pose or odometry topic")
    parser.add_argument("--ground-truth", type=Path, help="TUM, EuRoC or KITTI file")
    parser.add_argument("--ground-truth-format", choices=FORMATS, default="")
    parser.add_argument(
        "--camera-in-body",
        type=float,
        nargs=7,
        metavar=("TX", "TY", "TZ", "QX", "QY", "QZ", "QW"),
        help="pose of the camera in the body whose poses the ground truth holds",
    )
    parser.add_argument("--min-baseline", type=float, default=0.05, help="[m], see the docs")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--live", action="store_true", help="through the node, over DDS, lossless")
    how.add_argument("--recorded", type=Path, help="bag with what a node published")
    parser.add_argument(
        "--back-end",
        action="store_true",
        help="trajectory with and without the example back-end (extras: backend, evaluation)",
    )
    parser.add_argument("--imu", default="", metavar="TOPIC", help="IMU, for --back-end")
    parser.add_argument(
        "--imu-calibration",
        type=Path,
        metavar="FILE",
        help="of --imu: Kalibr's *camchain-imucam*.yaml, or EuRoC's imu0/sensor.yaml",
    )
    parser.add_argument("--domain-id", type=int, help="ROS domain of --live (default: random)")
    _add_method_options(parser, usual_keypoints=1024)
    parser.set_defaults(run=commands.bag_command)


def _add_trajectory(group: argparse._SubParsersAction) -> None:
    parser = group.add_parser("trajectory", help="ATE and RPE of a trajectory file, by evo")
    parser.add_argument("estimate", type=Path, help="TUM file")
    parser.add_argument("truth", type=Path, help="TUM or EuRoC file")
    parser.add_argument("--scale", action="store_true", help="align the scale too (monocular)")
    parser.set_defaults(run=commands.trajectory_command)


def _add_retrieval(group: argparse._SubParsersAction) -> None:
    parser = group.add_parser(
        "retrieval", help="place recognition: recall at 1, 5 and 10 of earlier places"
    )
    parser.add_argument(
        "sequences", type=Path, nargs="+", metavar="SEQUENCE", help="folders with poses, any layout"
    )
    usual = RetrievalProtocol()
    for name, value, text in (
        ("gap", usual.gap, "frames before which a place counts as an earlier one"),
        ("overlap", usual.overlap, "shared part of views of one place; 0 = by distance and angle"),
        ("distance", usual.distance_m, "of the same place, at most [m], without depth"),
        ("angle", usual.angle_deg, "between the viewing directions, at most [deg], likewise"),
    ):
        parser.add_argument(
            f"--{name}", type=type(value), default=value, help=f"{text} ({value:g})"
        )
    parser.add_argument("--later", action="store_true", help="ask for later frames too")
    parser.add_argument("--stride", type=int, default=1, help="every so many frames")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    _add_method_options(parser, usual_keypoints=1024)
    parser.set_defaults(run=commands.retrieval_command)


def _add_loops(group: argparse._SubParsersAction) -> None:
    parser = group.add_parser("loops", help="loops sighted and closed, and how many are wrong")
    parser.add_argument(
        "sequences",
        type=Path,
        nargs="*",
        metavar="SEQUENCE",
        help="folders with poses, any layout; none: once around the built-in room",
    )
    usual = LoopProtocol()
    parser.add_argument("--depth", action="store_true", help="use the depth: metric poses")
    parser.add_argument("--depth-unit", type=float, metavar="METRES", help="of the depth images")
    parser.add_argument("--stride", type=int, default=1, help="every so many frames")
    for name, value, text in (
        ("rotation", usual.rotation_deg, "a loop is wrong if its rotation is more off [deg]"),
        ("overlap", usual.overlap, "or if both frames have depth and share less"),
    ):
        parser.add_argument(f"--{name}", type=float, default=value, help=f"{text} ({value:g})")
    _add_method_options(parser, usual_keypoints=512)
    parser.set_defaults(run=commands.loops_command)


def _add_make_pairs(group: argparse._SubParsersAction) -> None:
    parser = group.add_parser("make-pairs", help="a pairs file from a sequence with poses")
    parser.add_argument("sequence", type=Path, help="folder of a sequence with poses, any layout")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--gap", type=int, help="frame i with frame i + GAP")
    kind.add_argument("--overlap", type=float, nargs=2, metavar=("LOW", "HIGH"), help="shared part")
    parser.add_argument("--count", type=int, default=150, help="most pairs of --overlap")
    parser.add_argument("--seed", type=int, default=0, help="seed of --overlap")
    parser.add_argument("--first", type=int, default=0, help="first frame; negative from the end")
    parser.add_argument("--last", type=int, default=0, help="end of the frames; 0 = all")
    parser.add_argument("--stride", type=int, default=1, help="every so many frames")
    parser.add_argument("--rectified", type=Path, help="write images without distortion here")
    parser.add_argument("--output", type=Path, required=True, help="pairs file to write")
    parser.set_defaults(run=commands.make_pairs_command)


def _add_compare(group: argparse._SubParsersAction) -> None:
    parser = group.add_parser("compare", help="result folders side by side, with intervals")
    parser.add_argument("folders", type=Path, nargs="+", help="result folders, the baseline first")
    parser.add_argument(
        "--cross",
        action="store_true",
        help="methods against data sets; a data set is the folder above the result folder",
    )
    parser.add_argument("--output", type=Path, help="folder for table, plots and report")
    parser.set_defaults(run=commands.compare_command)


def _add_method_options(parser: argparse.ArgumentParser, usual_keypoints: int) -> None:
    parser.set_defaults(usual_keypoints=usual_keypoints)
    settings = parser.add_argument_group("method")
    settings.add_argument("--front-end", choices=FRONT_ENDS, help="default: as --config")
    settings.add_argument("--matcher", choices=MATCHERS, help="default: as --config")
    settings.add_argument("--config", type=Path, help="YAML of the settings (see config/)")
    settings.add_argument(
        "--preset",
        choices=PRESETS,
        help="the paper's resolution, keypoints and NMS; single options replace them",
    )
    settings.add_argument("--superpoint", metavar="FILE", help="SuperPoint weights")
    settings.add_argument(
        "--superglue", metavar="FILE", help="SuperGlue weights: small, wide or a file"
    )
    settings.add_argument(
        "--keypoints", default="", help="folder of keypoint files, in place of detections"
    )
    settings.add_argument(
        "--max-keypoints", type=int, help=f"default: as --config, or else {usual_keypoints}"
    )
    settings.add_argument("--max-size", type=int, help="longer side [px], 0 = as they come")
    settings.add_argument("--nms", type=int, help="suppression radius [px] (paper: 4)")
    settings.add_argument("--detection-threshold", type=float)
    settings.add_argument("--match-threshold", type=float, help="SuperGlue (paper: 0.2)")
    settings.add_argument("--sinkhorn-iterations", type=int)
    settings.add_argument("--ratio", type=float, help="largest ratio of the ratio matcher")
    settings.add_argument("--max-distance", type=float, help="of the distance matcher")
    settings.add_argument("--refinement", choices=REFINERS, help="of matched pixels")
    settings.add_argument("--device", help="auto, cpu, cuda:0")
    settings.add_argument("--precision", help="float32, bfloat16, float16 or auto")
    add_set_option(settings, "front_end.subpixel=false")
    results = parser.add_argument_group("results")
    results.add_argument("--output", type=Path, required=True, help="result folder")
    results.add_argument("--label", default="", help="name in tables and legends")
    results.add_argument("--feature-cache", type=Path, help="features shared between runs")
    results.add_argument("--no-pictures", action="store_true", help="numbers only")
    results.add_argument("--overwrite", action="store_true", help="drop earlier predictions")
