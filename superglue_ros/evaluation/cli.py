"""``superglue-ros evaluate``: the commands, their options, and what they print."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from superglue_ros.bag_sequences import BagSequence
from superglue_ros.config import Config, from_mapping, load, to_mapping
from superglue_ros.errors import ConfigError
from superglue_ros.evaluation import homography, pose
from superglue_ros.evaluation.ablation import (
    VARIANTS,
    trained_files,
    variant,
    write_knock_outs,
)
from superglue_ros.evaluation.attention_report import attention_report
from superglue_ros.evaluation.bag import BagProtocol
from superglue_ros.evaluation.bag_run import BagOptions, run_bag
from superglue_ros.evaluation.compare import compare, cross_table, markdown
from superglue_ros.evaluation.estimators import POSE_ESTIMATORS, PoseEstimatorConfig
from superglue_ros.evaluation.images import listed_images
from superglue_ros.evaluation.make_pairs import (
    FrameRange,
    pairs_by_gap,
    pairs_by_overlap,
    rectify,
)
from superglue_ros.evaluation.methods import FRONT_ENDS, MATCHERS, MethodSpec
from superglue_ros.evaluation.pairs import read_pairs, write_pairs
from superglue_ros.evaluation.pictures import report_homography, report_pose
from superglue_ros.evaluation.report import number
from superglue_ros.evaluation.results import Results
from superglue_ros.evaluation.run import PairEvaluation, run
from superglue_ros.evaluation.stage_times import timing_report
from superglue_ros.evaluation.trajectories import FORMATS, read_ground_truth, trajectory_errors
from superglue_ros.homographies import HomographyRecipe
from superglue_ros.photometric import PhotometricRecipe
from superglue_ros.sequences import open_sequence
from superglue_ros.trajectories import Trajectory, pose_from_quaternion


def add_subcommands(subparsers: argparse._SubParsersAction) -> None:
    """Add ``evaluate`` with its own subcommands."""
    parser = subparsers.add_parser(
        "evaluate", help="the paper's tables, and rosbag replay", description=__doc__
    )
    commands = parser.add_subparsers(dest="evaluation", required=True, metavar="WHAT")
    _add_homography(commands)
    _add_pose(commands)
    _add_bag(commands)
    _add_make_pairs(commands)
    _add_compare(commands)
    _add_trajectory(commands)
    _add_ablation(commands)
    _add_attention(commands)
    _add_timing(commands)


def _add_ablation(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("ablation", help="table 4: SuperGlue without its parts")
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
    _add_method_options(parser, max_keypoints=1024, max_size=640)
    parser.set_defaults(run=_ablation)


def _add_attention(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("attention", help="attention rays and spans (figures 7, 12, 16)")
    parser.add_argument("--pairs", type=Path, required=True, help="*_pairs_with_gt.txt")
    parser.add_argument("--images", type=Path, required=True, help="folder the names start from")
    parser.add_argument("--count", type=int, default=100, help="pairs of the span (paper: 100)")
    parser.add_argument("--show", type=int, default=0, help="pair whose rays are drawn")
    _add_method_options(parser, max_keypoints=512, max_size=640)
    parser.set_defaults(run=_attention)


def _add_timing(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("timing", help="time by stage over keypoints (figure 11)")
    parser.add_argument("--superglue", default="", help="weights, or full: the paper's size")
    parser.add_argument("--keypoints", type=int, nargs="+", default=[128, 256, 512, 1024, 2048])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, required=True)
    parser.set_defaults(run=_timing)


def _add_homography(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("homography", help="homography estimation (tables 1 and 5)")
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
    _add_method_options(parser, max_keypoints=512, max_size=640)
    parser.set_defaults(run=_homography)


def _add_pose(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("pose", help="relative pose estimation (tables 2, 3 and 6)")
    _add_pose_options(parser)
    _add_method_options(parser, max_keypoints=1024, max_size=640)
    parser.set_defaults(run=_pose)


def _add_pose_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=Path, required=True, help="*_pairs_with_gt.txt")
    parser.add_argument("--images", type=Path, required=True, help="folder the names start from")
    parser.add_argument(
        "--estimator", choices=POSE_ESTIMATORS, default="opencv-ransac", help="default: %(default)s"
    )
    parser.add_argument("--estimator-threshold", type=float, default=1.0, help="[px] (paper: 1)")
    parser.add_argument("--estimator-confidence", type=float, default=0.99999)
    parser.add_argument("--estimator-iterations", type=int, default=0, help="0 = its own default")
    parser.add_argument("--seed", type=int, default=0, help="seed of estimator and bootstrap")
    parser.add_argument(
        "--epipolar-threshold",
        type=float,
        default=5e-4,
        help="squared epipolar distance of a correct match (paper: 5e-4 indoors, 1e-4 outdoors)",
    )
    parser.add_argument(
        "--rotation-only", action="store_true", help="judge the rotation alone (no baseline)"
    )


def _add_bag(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("bag", help="replay a rosbag2 and judge every frame")
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
    parser.add_argument("--domain-id", type=int, help="ROS domain of --live (default: random)")
    _add_method_options(parser, max_keypoints=1024, max_size=640)
    parser.set_defaults(run=_bag)


def _add_trajectory(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("trajectory", help="ATE and RPE of a trajectory file, by evo")
    parser.add_argument("estimate", type=Path, help="TUM file")
    parser.add_argument("truth", type=Path, help="TUM or EuRoC file")
    parser.add_argument("--scale", action="store_true", help="align the scale too (monocular)")
    parser.set_defaults(run=_trajectory)


def _add_make_pairs(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("make-pairs", help="a pairs file from a sequence with poses")
    parser.add_argument("sequence", type=Path, help="sequence folder (images.txt, or TUM RGB-D)")
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
    parser.set_defaults(run=_make_pairs)


def _add_compare(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("compare", help="result folders side by side, with intervals")
    parser.add_argument("folders", type=Path, nargs="+", help="result folders, the baseline first")
    parser.add_argument(
        "--cross",
        action="store_true",
        help="methods against data sets; a data set is the folder above the result folder",
    )
    parser.add_argument("--output", type=Path, help="folder for table, plots and report")
    parser.set_defaults(run=_compare)


def _add_method_options(parser: argparse.ArgumentParser, max_keypoints: int, max_size: int) -> None:
    settings = parser.add_argument_group("method")
    settings.add_argument("--front-end", choices=FRONT_ENDS, help="default: superpoint")
    settings.add_argument("--matcher", choices=MATCHERS, default="superglue")
    settings.add_argument("--config", type=Path, help="YAML of the settings (see config/)")
    settings.add_argument("--superpoint", metavar="FILE", help="SuperPoint weights")
    settings.add_argument("--superglue", metavar="FILE", help="SuperGlue weights")
    settings.add_argument("--keypoints", default="", help="folder of the keypoints-file front-end")
    settings.add_argument("--max-keypoints", type=int, default=max_keypoints)
    settings.add_argument(
        "--max-size", type=int, default=max_size, help="longer side [px], 0 = all"
    )
    settings.add_argument("--nms", type=int, help="suppression radius [px] (paper: 4)")
    settings.add_argument("--detection-threshold", type=float)
    settings.add_argument("--match-threshold", type=float, help="SuperGlue (paper: 0.2)")
    settings.add_argument("--sinkhorn-iterations", type=int)
    settings.add_argument("--ratio", type=float, help="largest ratio of the ratio matcher")
    settings.add_argument("--max-distance", type=float, help="of the distance matcher")
    settings.add_argument("--device", help="auto, cpu, cuda:0")
    settings.add_argument("--precision", help="float32, bfloat16, float16 or auto")
    results = parser.add_argument_group("results")
    results.add_argument("--output", type=Path, required=True, help="result folder")
    results.add_argument("--label", default="", help="name in tables and legends")
    results.add_argument("--feature-cache", type=Path, help="features shared between runs")
    results.add_argument("--no-pictures", action="store_true", help="numbers only")
    results.add_argument("--overwrite", action="store_true", help="drop earlier predictions")


def method_spec(args: argparse.Namespace) -> MethodSpec:
    """The method that the options describe: the YAML file, overruled by single options."""
    base = to_mapping(load(args.config) if args.config else Config())
    overrides: dict[str, tuple[str, Any]] = {
        "max_keypoints": ("front_end", args.max_keypoints),
        "max_size": ("front_end", args.max_size),
        "nms_radius": ("front_end", args.nms),
        "threshold": ("front_end", args.detection_threshold),
        "sinkhorn_iterations": ("matcher", args.sinkhorn_iterations),
        "ratio": ("matcher", args.ratio),
        "max_distance": ("matcher", args.max_distance),
    }
    for name, (section, value) in overrides.items():
        if value is not None:
            base[section][name] = value
    for section, name, value in (
        ("front_end", "weights", args.superpoint),
        ("matcher", "weights", args.superglue),
        ("matcher", "threshold", args.match_threshold),
    ):
        if value is not None:
            base[section][name] = value
    for name in ("device", "precision"):
        if getattr(args, name) is not None:
            base[name] = getattr(args, name)
    front_end = args.front_end or ("aliked" if args.matcher == "lightglue" else "superpoint")
    return MethodSpec(front_end, args.matcher, from_mapping(Config, base), args.keypoints)


def _homography(args: argparse.Namespace) -> int:
    spec = method_spec(args)
    cases: list[Any]
    if args.hpatches:
        cases = list(homography.hpatches_cases(args.hpatches))
    else:
        photometric = PhotometricRecipe(probability=0.0 if args.no_photometric else 0.5)
        paths = listed_images(args.images, args.image_list) if args.image_list else None
        cases = list(
            homography.synthetic_cases(
                args.images, args.pairs, args.seed, HomographyRecipe(), photometric, paths
            )
        )
    threshold = spec.config.matcher.threshold if spec.matcher == "superglue" else 0.0
    protocol = homography.HomographyProtocol(confidence_threshold=threshold)
    evaluation = PairEvaluation(
        "homography",
        cases,
        homography.data_fingerprint(cases),
        {**protocol.mapping(), "seed": args.seed},
        partial(_judge_and_release, protocol=protocol),
        partial(homography.summarise, seed=args.seed),
        partial(report_homography, protocol=protocol),
    )
    results = _run(evaluation, spec, args)
    _print_homography(results)
    return 0


def _run(evaluation: PairEvaluation[Any], spec: MethodSpec, args: argparse.Namespace) -> Results:
    return run(
        evaluation,
        spec,
        args.output,
        args.overwrite,
        args.label,
        args.feature_cache,
        not args.no_pictures,
    )


def _judge_and_release(
    case: Any, prediction: Any, protocol: homography.HomographyProtocol
) -> dict[str, Any]:
    record = homography.judge(case, prediction, protocol)
    case.release()
    return record


def _pose(args: argparse.Namespace) -> int:
    _print_pose(_evaluate_pose(args, method_spec(args)))
    return 0


def _evaluate_pose(args: argparse.Namespace, spec: MethodSpec) -> Results:
    cases = pose.pose_cases(read_pairs(args.pairs), args.images)
    estimator = PoseEstimatorConfig(
        args.estimator,
        args.estimator_threshold,
        args.estimator_confidence,
        args.estimator_iterations,
        args.seed,
    )
    protocol = pose.PoseProtocol(
        estimator,
        spec.config.front_end.max_size,
        args.epipolar_threshold,
        spec.config.matcher.threshold if spec.matcher == "superglue" else 0.0,
        args.rotation_only,
    )
    evaluation = PairEvaluation(
        "pose",
        cases,
        pose.data_fingerprint(cases),
        {**protocol.mapping(), "seed": args.seed},
        partial(pose.judge, protocol=protocol),
        partial(pose.summarise, seed=args.seed),
        partial(report_pose, protocol=protocol),
    )
    return _run(evaluation, spec, args)


def _ablation(args: argparse.Namespace) -> int:
    spec = method_spec(args)
    output: Path = args.output
    output.mkdir(parents=True, exist_ok=True)
    if args.knock_out:
        files = write_knock_outs(spec.config.matcher.weights, output / "weights")
        missing: list[str] = []
    else:
        files, missing = trained_files(args.checkpoints)
    if not files:
        raise ConfigError(f"{args.checkpoints} holds no variant: {', '.join(missing)}")
    # One extraction serves all variants.
    args.feature_cache = args.feature_cache or output / "features"
    rows = [("mutual", "NN + mutual", replace(spec, matcher="mutual"))]
    for key, file in files.items():
        matcher = replace(spec.config.matcher, weights=str(file))
        config = replace(spec.config, matcher=matcher)
        rows.append((key, variant(key).title, replace(spec, matcher="superglue", config=config)))
    folders = []
    for key, title, one in rows:
        args.output, args.label = output / key, title
        _print_pose(_evaluate_pose(args, one))
        folders.append(output / key)
    print(markdown(compare(folders, output)), end="")
    for key in missing:
        print(f"no weights for {key}: train it with the network settings {variant(key).changes}")
    return 0


def _attention(args: argparse.Namespace) -> int:
    spec = method_spec(args)
    cases = pose.pose_cases(read_pairs(args.pairs), args.images)[: args.count]
    for kind, mean in attention_report(cases, spec, args.output, args.show).items():
        print(f"{kind}-attention span [px] per layer: {' '.join(f'{v:.0f}' for v in mean)}")
    return 0


def _timing(args: argparse.Namespace) -> int:
    table = timing_report(args.superglue, args.keypoints, args.device, args.repeat, args.output)
    print(markdown(table), end="")
    return 0


def _bag(args: argparse.Namespace) -> int:
    spec = method_spec(args)
    sequence = BagSequence(
        args.bag, args.image, args.camera_info, args.depth, args.ground_truth_topic, grey=True
    )
    body_camera = None
    if args.camera_in_body:
        values = np.array(args.camera_in_body)
        body_camera = pose_from_quaternion(values[:3], values[3:])
    truth = None
    if args.ground_truth:
        stamps = np.array([item.stamp_ns for item in sequence], np.int64)
        truth = read_ground_truth(args.ground_truth, args.ground_truth_format, stamps, body_camera)
    elif body_camera is not None and sequence.trajectory is not None:
        poses = sequence.trajectory.poses @ body_camera
        truth = Trajectory(sequence.trajectory.stamps_ns, poses)
    options = BagOptions(
        args.live, args.recorded, bool(args.depth), args.domain_id, not args.no_pictures
    )
    protocol = BagProtocol(args.min_baseline)
    results = run_bag(sequence, spec, truth, protocol, options, args.output, args.label, args.seed)
    s = results.summary
    auc = " / ".join(number(s["auc"][t]) for t in ("5", "10", "20"))
    print(
        f"{results.label} ({results.config['mode']}): valid poses {s['valid_share']:.1f}% of "
        f"{s['frames']} frames, AUC@5/10/20 {auc} over {s['judged_pairs']} pairs, "
        f"matches {s['matches_sha256'][:12]}"
    )
    return 0


def _trajectory(args: argparse.Namespace) -> int:
    errors = trajectory_errors(
        read_ground_truth(args.estimate), read_ground_truth(args.truth), args.scale
    )
    print(
        f"ATE {errors['ate_m']:.4f} m, RPE {errors['rpe_m']:.4f} m and {errors['rpe_deg']:.3f} deg "
        f"per frame over {errors['poses']} poses (scale {errors['scale']:.4f})"
    )
    return 0


def _make_pairs(args: argparse.Namespace) -> int:
    frames = FrameRange(args.first, args.last, args.stride)
    sequence, images = open_sequence(args.sequence), args.sequence
    if args.rectified:
        sequence, images = rectify(sequence, args.rectified, FrameRange()), args.rectified
    if args.gap is not None:
        pairs = pairs_by_gap(sequence, args.gap, frames, images)
    else:
        low, high = args.overlap
        pairs = pairs_by_overlap(sequence, low, high, args.count, args.seed, frames, images)
    write_pairs(args.output, pairs)
    print(f"{len(pairs)} pairs in {args.output}; evaluate them with --images {images}")
    return 0


def _compare(args: argparse.Namespace) -> int:
    if args.cross:
        text = markdown(cross_table(args.folders))
        if args.output:
            args.output.mkdir(parents=True, exist_ok=True)
            (args.output / "cross.md").write_text(text, encoding="utf-8")
        print(text, end="")
        return 0
    if args.output is None:
        raise ConfigError("compare needs --output FOLDER for table, plots and report")
    print(markdown(compare(args.folders, args.output)), end="")
    return 0


def _print_homography(results: Results) -> None:
    summary, protocol = results.summary, results.config["protocol"]
    print(
        f"{results.label}: AUC@10px RANSAC {summary['ransac_auc']['10']:.2f}, "
        f"DLT {summary['dlt_auc']['10']:.2f}, P {summary['precision']:.1f}, "
        f"R {summary['recall']:.1f} over {summary['pairs']} pairs "
        f"(RANSAC {protocol['ransac_px']} px, correct < {protocol['correct_px']} px, "
        f"seed {protocol['seed']})"
    )
    _print_missing(results)


def _print_pose(results: Results) -> None:
    summary, protocol = results.summary, results.config["protocol"]
    estimator = protocol["estimator"]
    auc = summary["auc"]
    print(
        f"{results.label}: AUC@5/10/20 {auc['5']:.2f} / {auc['10']:.2f} / {auc['20']:.2f}, "
        f"P {summary['precision']:.1f}, MS {summary['matching_score']:.1f} over "
        f"{summary['pairs']} pairs ({estimator['name']} {estimator['threshold_px']} px, "
        f"epipolar < {protocol['epipolar']:g}, seed {protocol['seed']})"
    )
    _print_missing(results)


def _print_missing(results: Results) -> None:
    count = results.summary["missing_pairs"]
    if count:
        print(f"{count} pairs were left out:")
        for line in (results.folder / "missing.txt").read_text(encoding="utf-8").splitlines():
            print(f"  {line}")
