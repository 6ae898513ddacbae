"""The commands of ``superglue-ros evaluate`` and their printed output."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from superglue_ros.config import PRESETS, Config
from superglue_ros.data.imu import ImuRecording
from superglue_ros.data.imu_calibration import read_imu_calibration
from superglue_ros.data.sequences.base import open_sequence
from superglue_ros.data.trajectories import Trajectory, pose_from_quaternion
from superglue_ros.errors import ConfigError
from superglue_ros.evaluation.bag.trajectories import read_ground_truth, trajectory_errors
from superglue_ros.evaluation.loops import LoopProtocol, evaluate_loops
from superglue_ros.evaluation.pairs import homography, pose
from superglue_ros.evaluation.pairs.ablation import trained_files, variant, write_knock_outs
from superglue_ros.evaluation.pairs.benchmarks import (
    BENCHMARKS,
    HPATCHES_LEFT_OUT,
    HPATCHES_SHORT_SIDE,
    Benchmark,
    benchmark_pairs,
    best_thresholds,
    swept,
)
from superglue_ros.evaluation.pairs.frame_depths import FrameDepths
from superglue_ros.evaluation.pairs.images import listed_images
from superglue_ros.evaluation.pairs.make_pairs import (
    FrameRange,
    pairs_by_gap,
    pairs_by_overlap,
    rectify,
)
from superglue_ros.evaluation.pairs.methods import MethodSpec
from superglue_ros.evaluation.pairs.pairs_file import read_pairs, write_pairs
from superglue_ros.evaluation.pairs.repeated_poses import PoseEstimatorConfig
from superglue_ros.evaluation.pairs.run import PairEvaluation, run
from superglue_ros.evaluation.reports.attention_report import (
    attention_of_variants,
    attention_report,
    variant_files,
)
from superglue_ros.evaluation.reports.compare import compare, cross_table, markdown
from superglue_ros.evaluation.reports.pictures import report_homography, report_pose
from superglue_ros.evaluation.reports.report import Table, number
from superglue_ros.evaluation.reports.results import Results
from superglue_ros.evaluation.reports.stage_times import timing_report
from superglue_ros.evaluation.retrieval import (
    RetrievalProtocol,
    evaluate_retrieval,
    retrieval_table,
)
from superglue_ros.geometry.ground_truth import INDOOR, OUTDOOR
from superglue_ros.settings import build, load, override, read_yaml, shorthands
from superglue_ros.synthetic.homographies import HomographyRecipe
from superglue_ros.synthetic.photometric import PhotometricRecipe

SHORTHANDS = {
    "front_end": "front_end.name",
    "superpoint": "front_end.weights",
    "max_keypoints": "front_end.max_keypoints",
    "max_size": "front_end.max_size",
    "nms": "front_end.nms_radius",
    "detection_threshold": "front_end.threshold",
    "matcher": "matcher.name",
    "superglue": "matcher.weights",
    "match_threshold": "matcher.threshold",
    "sinkhorn_iterations": "matcher.sinkhorn_iterations",
    "ratio": "matcher.ratio",
    "max_distance": "matcher.max_distance",
    "device": "device",
    "precision": "precision",
    "refinement": "refinement",
}
"""Options of the commands, and the settings that they set."""


def method_spec(args: argparse.Namespace, usual: Mapping[str, Any] | None = None) -> MethodSpec:
    """The method of the options: --set overrides single options, which override the YAML file.

    Without a file or a preset the front-end's settings are ``usual``, or else the number of
    keypoints is the paper's for this kind of data.
    """
    front_end = dict(usual or {"max_keypoints": args.usual_keypoints})
    values: dict[str, Any] = {"front_end": front_end}
    if args.preset:
        if args.config:
            raise ConfigError("--preset and --config exclude each other: add options to the preset")
        values = PRESETS[args.preset]
    elif args.config:
        load(args.config, Config)  # its own errors name the file
        values = read_yaml(args.config)
    values = override(values, [*shorthands(args, SHORTHANDS), *args.set])
    front_end = values.setdefault("front_end", {})
    if values.get("matcher", {}).get("name") == "lightglue" and "name" not in front_end:
        front_end["name"] = "aliked"
    return MethodSpec(build(Config, values), args.keypoints)


def homography_command(args: argparse.Namespace) -> int:
    """Pairs with a known homography (tables 1 and 5)."""
    spec = method_spec(args)
    cases: list[Any]
    if args.hpatches:
        cases = homography.hpatches_cases(args.hpatches)
    else:
        photometric = PhotometricRecipe(probability=0.0 if args.no_photometric else 0.5)
        paths = listed_images(args.images, args.image_list) if args.image_list else None
        cases = list(
            homography.synthetic_cases(
                args.images, args.pairs, args.seed, _homography_recipe(args), photometric, paths
            )
        )
    threshold = spec.confidence_threshold
    protocol = homography.HomographyProtocol(confidence_threshold=threshold)
    _print_homography(_run_homography(cases, protocol, spec, args))
    return 0


def _run_homography(
    cases: list[Any],
    protocol: homography.HomographyProtocol,
    spec: MethodSpec,
    args: argparse.Namespace,
) -> Results:
    evaluation = PairEvaluation(
        kind="homography",
        cases=cases,
        data=homography.data_fingerprint(cases),
        protocol={**protocol.mapping(), "seed": args.seed},
        judge=partial(_judge_and_release, protocol=protocol),
        summarise=partial(homography.summarise, seed=args.seed),
        report=partial(report_homography, protocol=protocol),
    )
    return _run(evaluation, spec, args)


def _homography_recipe(args: argparse.Namespace) -> HomographyRecipe:
    return HomographyRecipe(
        perspective=args.perspective,
        rotation_deg=args.rotation,
        scale=(args.scale[0], args.scale[1]),
        translation=args.translation,
        min_overlap=args.min_overlap,
    )


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


def pose_command(args: argparse.Namespace) -> int:
    """Pairs with a known pose (tables 2, 3 and 6)."""
    _print_pose(_evaluate_pose(args, method_spec(args)))
    return 0


def _evaluate_pose(args: argparse.Namespace, spec: MethodSpec) -> Results:
    depths, reprojection_px = None, args.reprojection_threshold
    if args.depth:
        sequence = open_sequence(args.depth)
        depths = FrameDepths(sequence)
        if reprojection_px is None:
            reprojection_px = (OUTDOOR if sequence.outdoor else INDOOR).match
    elif reprojection_px is not None:
        raise ConfigError("--reprojection-threshold needs the sequence with depth: give --depth")
    cases = pose.pose_cases(read_pairs(args.pairs), args.images, depths)
    thresholds = args.estimator_threshold
    estimators = tuple(
        PoseEstimatorConfig(
            name=name,
            threshold_px=threshold,
            confidence=args.estimator_confidence,
            max_iterations=args.estimator_iterations,
            seed=args.seed,
            label="" if len(thresholds) == 1 else f"{name}@{threshold:g}",
        )
        for name in args.estimator
        for threshold in thresholds
    )
    protocol = pose.PoseProtocol(
        estimators=estimators,
        repeats=args.repeats,
        max_size=spec.config.front_end.max_size,
        epipolar=_epipolar_threshold(args),
        reprojection_px=reprojection_px,
        confidence_threshold=spec.confidence_threshold,
        rotation_only=args.rotation_only,
    )
    return _run_pose(cases, protocol, spec, args)


def _run_pose(
    cases: list[pose.PoseCase],
    protocol: pose.PoseProtocol,
    spec: MethodSpec,
    args: argparse.Namespace,
) -> Results:
    evaluation = PairEvaluation(
        kind="pose",
        cases=cases,
        data=pose.data_fingerprint(cases),
        protocol={**protocol.mapping(), "seed": args.seed},
        judge=partial(pose.judge, protocol=protocol),
        summarise=partial(pose.summarise, seed=args.seed),
        report=partial(report_pose, protocol=protocol),
    )
    return _run(evaluation, spec, args)


def _epipolar_threshold(args: argparse.Namespace) -> float:
    """The one given, or the paper's (section 5.3): squared, in normalised coordinates."""
    if args.epipolar_threshold is not None:
        return float(args.epipolar_threshold)
    return 1e-4 if args.preset == "outdoor" else 5e-4


def benchmark_command(args: argparse.Namespace) -> int:
    """A public benchmark under its published protocol."""
    one = BENCHMARKS[args.benchmark]
    spec = method_spec(args, one.settings)
    estimators = swept(
        tuple(args.estimator), tuple(args.estimator_threshold), one.homography, args.seed
    )
    if one.homography:
        images = homography.hpatches_cases(args.data, HPATCHES_SHORT_SIDE, HPATCHES_LEFT_OUT)
        results = _run_homography(
            images,
            homography.HomographyProtocol(
                confidence_threshold=spec.confidence_threshold,
                estimators=estimators,
                weighted_dlt=True,
            ),
            spec,
            args,
        )
    else:
        pairs, folder = benchmark_pairs(args.data)
        results = _run_pose(
            pose.pose_cases(pairs, folder),
            pose.PoseProtocol(
                estimators=estimators,
                max_size=spec.config.front_end.max_size,
                epipolar=one.epipolar,
                confidence_threshold=spec.confidence_threshold,
            ),
            spec,
            args,
        )
    text = markdown(_benchmark_table(one, results))
    (args.output / "benchmark.md").write_text(text, encoding="utf-8")
    print(text, end="")
    _print_missing(results)
    return 0


def _benchmark_table(one: Benchmark, results: Results) -> Table:
    """A row for every estimator at its best threshold, and for the DLT of homographies."""
    summary = results.summary
    best = best_thresholds(summary, one.auc)
    rows = [
        [f"{results.label}, {name} {threshold:g} px", *(number(areas[str(t)], 1) for t in one.auc)]
        for name, (threshold, areas) in best.items()
    ]
    if one.homography:
        areas = summary["dlt_auc"]
        rows.insert(0, [f"{results.label}, DLT", *(number(areas[str(t)], 1) for t in one.auc)])
    quality = [number(summary[k], 1) for k in ("precision", "mean_keypoints0", "mean_matches")]
    header = [*(f"AUC@{t}" for t in one.auc), "P", "keypoints", "matches"]
    title = f"{one.title}: area under the error curve [%] up to {one.auc} {one.unit}"
    return Table(title, ["method", *header], [[*row, *quality] for row in rows])


def ablation_command(args: argparse.Namespace) -> int:
    """SuperGlue without its parts (table 4)."""
    spec = method_spec(args).network_alone()
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
    rows = [("mutual", "NN + mutual", spec.with_matcher("mutual"))]
    for key, file in files.items():
        rows.append((key, variant(key).title, spec.with_matcher("superglue", str(file))))
    folders = []
    for key, title, one in rows:
        args.output, args.label = output / key, title
        _print_pose(_evaluate_pose(args, one))
        folders.append(output / key)
    print(markdown(compare(folders, output)), end="")
    for key in missing:
        print(f"no weights for {key}: train it with {variant(key).training_hint()}")
    return 0


def attention_command(args: argparse.Namespace) -> int:
    """Attention rays and spans (figures 7, 12 and 16)."""
    spec = method_spec(args)
    cases = pose.pose_cases(read_pairs(args.pairs), args.images)[: args.count]
    if args.variants:
        table = attention_of_variants(
            cases, spec, variant_files(args.variants), args.output, args.show
        )
        text = markdown(table)
        (args.output / "variants.md").write_text(text, encoding="utf-8")
        print(text, end="")
        return 0
    for kind, mean in attention_report(cases, spec, args.output, args.show).items():
        print(f"{kind}-attention span [px] per layer: {' '.join(f'{v:.0f}' for v in mean)}")
    return 0


def timing_command(args: argparse.Namespace) -> int:
    """Time by stage over keypoints (figure 11)."""
    table = timing_report(args.superglue, args.keypoints, args.device, args.repeat, args.output)
    print(markdown(table), end="")
    return 0


def _imu_of_bag(args: argparse.Namespace) -> ImuRecording | None:
    """The IMU of ``--imu``; imported as :func:`bag_command` does."""
    from superglue_ros.data.bag_sequences import read_imu
    from superglue_ros.data.bags import BagReader

    if not args.imu:
        return None
    if not args.back_end or args.imu_calibration is None:
        raise ConfigError(f"--imu {args.imu} needs --back-end and --imu-calibration FILE")
    calibration = read_imu_calibration(args.imu_calibration)
    with BagReader(args.bag) as bag:
        return ImuRecording(read_imu(bag, args.imu), calibration)


def bag_command(args: argparse.Namespace) -> int:
    """A recording, offline, live or as recorded."""
    # Imported here, so that the other commands run without rosbags.
    from superglue_ros.data.bag_sequences import BagSequence
    from superglue_ros.evaluation.bag.judge import BagProtocol
    from superglue_ros.evaluation.bag.run import BagOptions, run_bag

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
        live=args.live,
        recorded=args.recorded,
        use_depth=bool(args.depth),
        domain_id=args.domain_id,
        pictures=not args.no_pictures,
        back_end=args.back_end,
        imu=_imu_of_bag(args),
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
    tracks = s["tracks"]
    print(
        f"{tracks['tracks']:.0f} tracks of {number(tracks['mean_track_frames'], 1)} frames, "
        f"jitter {number(tracks['track_jitter_px'])} px"
    )
    for name, row in s.get("back_end", {}).get("trajectories", {}).items():
        print(
            f"{name}: ATE {number(100 * row['ate_m'], 1)} cm, RPE {number(100 * row['rpe_m'])} cm "
            f"and {number(row['rpe_deg'])} deg, scale {number(row['scale'], 4)}, "
            f"{number(100 * row['placed'], 0)}% of the frames placed"
        )
    return 0


def sequence_command(args: argparse.Namespace) -> int:
    """Trajectories of image sequences."""
    from superglue_ros.evaluation.sequences import SequenceOptions, evaluate_sequences

    options = SequenceOptions(args.depth, args.stereo, args.frames, args.stride)
    sequences = [open_sequence(path, args.depth_unit, args.layout) for path in args.sequences]
    return _print_table(
        evaluate_sequences(sequences, method_spec(args), options, args.output), args.output
    )


def trajectory_command(args: argparse.Namespace) -> int:
    """ATE and RPE of a trajectory file."""
    errors = trajectory_errors(
        read_ground_truth(args.estimate), read_ground_truth(args.truth), args.scale
    )
    print(
        f"ATE {errors['ate_m']:.4f} m, RPE {errors['rpe_m']:.4f} m and {errors['rpe_deg']:.3f} deg "
        f"per frame over {errors['poses']} poses (scale {errors['scale']:.4f})"
    )
    return 0


def retrieval_command(args: argparse.Namespace) -> int:
    """Place recognition on sequences with poses."""
    protocol = RetrievalProtocol(
        gap=args.gap,
        overlap=args.overlap,
        distance_m=args.distance,
        angle_deg=args.angle,
        later=args.later,
        stride=args.stride,
    )
    sequences = [open_sequence(path) for path in args.sequences]
    found = evaluate_retrieval(sequences, method_spec(args), protocol, args.output, args.seed)
    return _print_table(retrieval_table(found), args.output)


def loops_command(args: argparse.Namespace) -> int:
    """Right and wrong loops of the pipeline on sequences with poses."""
    protocol = LoopProtocol(
        rotation_deg=args.rotation, overlap=args.overlap, depth=args.depth, stride=args.stride
    )
    sequences: list[Any] = [open_sequence(path, args.depth_unit) for path in args.sequences]
    if not sequences:
        from superglue_ros.back_end.round_trip import RoundTripSequence

        sequences = [RoundTripSequence()]
    return _print_table(
        evaluate_loops(sequences, method_spec(args), protocol, args.output), args.output
    )


def _print_table(table: Table, output: Path) -> int:
    text = markdown(table)
    (output / "table.md").write_text(text, encoding="utf-8")
    print(text, end="")
    return 0


def make_pairs_command(args: argparse.Namespace) -> int:
    """A pairs file from a sequence with poses."""
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


def compare_command(args: argparse.Namespace) -> int:
    """Result folders side by side."""
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
    px = protocol["reprojection_px"]
    correct = f"epipolar < {protocol['epipolar']:g}" if px is None else f"reprojection < {px:g} px"
    shares = (("P", "precision"), ("R", "recall"), ("F1", "f1"), ("MS", "matching_score"))
    print(
        f"{results.label}: {', '.join(f'{k} {number(summary[name], 1)}' for k, name in shares)}, "
        f"right matches {number(summary['ratio_to_mutual'])} of mutual's over "
        f"{summary['pairs']} pairs ({correct})"
    )
    repeats = protocol["repeats"]
    for one in protocol["estimators"]:
        part = summary["estimators"][one["name"]]
        auc = " / ".join(_mean_and_deviation(part, t) for t in ("5", "10", "20"))
        how = f", {repeats} repeats" if repeats > 1 else ""
        print(
            f"  AUC@5/10/20 {auc} ({one['name']} {one['threshold_px']} px, "
            f"seed {protocol['seed']}{how})"
        )
    _print_missing(results)


def _mean_and_deviation(part: dict[str, Any], degrees: str) -> str:
    deviation = part["auc_deviation"][degrees]
    mean = number(part["auc"][degrees])
    return mean if deviation is None else f"{mean} ± {number(deviation)}"


def _print_missing(results: Results) -> None:
    count = results.summary["missing_pairs"]
    if count:
        print(f"{count} pairs were left out:")
        for line in (results.folder / "missing.txt").read_text(encoding="utf-8").splitlines():
            print(f"  {line}")
