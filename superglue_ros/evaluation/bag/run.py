"""``evaluate bag`` from a recording to a finished result folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.config import Config
from superglue_ros.data.bag_sequences import BagSequence
from superglue_ros.data.imu import ImuRecording
from superglue_ros.data.trajectories import Trajectory
from superglue_ros.drawing.matches import draw_correspondences, write_text
from superglue_ros.drawing.plots import plot_over_time
from superglue_ros.errors import DataError
from superglue_ros.evaluation.bag import judge as bag
from superglue_ros.evaluation.bag.back_end import TRAJECTORIES, trajectory_table, with_back_end
from superglue_ros.evaluation.bag.outcomes import (
    TOPICS,
    FrameOutcome,
    PairOutcome,
    offline,
    recorded,
)
from superglue_ros.evaluation.bag.trajectories import require_evo
from superglue_ros.evaluation.pairs.methods import MethodSpec
from superglue_ros.evaluation.progress import console, track
from superglue_ros.evaluation.reports import figures
from superglue_ros.evaluation.reports.report import (
    Picture,
    Table,
    number,
    run_details,
    with_interval,
    write_report,
)
from superglue_ros.evaluation.reports.results import (
    Results,
    read_results,
    timing_summary,
    versions,
    write_json,
    write_records,
)
from superglue_ros.pipeline import Pipeline
from superglue_ros.settings import to_mapping


@dataclass(frozen=True)
class BagOptions:
    """What to run: ``live`` through a node over DDS, ``recorded`` from its recorded outputs.

    ``back_end``: also run the example back-end on the matcher's results, with an ``imu`` if given.
    """

    live: bool = False
    recorded: Path | None = None
    use_depth: bool = False
    domain_id: int | None = None
    pictures: bool = True
    back_end: bool = False
    imu: ImuRecording | None = None


def deterministic(config: Config) -> Config:
    """The same settings without time limits, so that results depend only on the images."""
    return replace(config, keyframes=replace(config.keyframes, relocalise_budget_s=0.0))


def run_bag(
    sequence: BagSequence,
    spec: MethodSpec,
    truth: Trajectory | None,
    protocol: bag.BagProtocol,
    options: BagOptions,
    output: Path,
    label: str = "",
    seed: int = 0,
) -> Results:
    """Run, evaluate and write ``output``. ``sequence`` must give grey images."""
    if truth is None:
        truth = sequence.trajectory
    if truth is not None:
        require_evo()
    output.mkdir(parents=True, exist_ok=True)
    config = deterministic(spec.config)
    if options.recorded is not None:
        outcomes = recorded(options.recorded)
    elif options.live:
        outcomes = _live(sequence, config, options, output)
    else:
        frames = offline(sequence, Pipeline(config), options.use_depth)
        outcomes = list(track(frames, len(sequence), "matching offline"))
    if not outcomes:
        raise DataError(f"bag {sequence.path} holds no image on {sequence.topics.image}")
    records = bag.judge(outcomes, truth, sequence.camera, protocol)
    write_json(
        output / "config.json",
        {
            "kind": "bag",
            "label": label or ("as recorded" if options.recorded else spec.label),
            "mode": _mode(options),
            "protocol": {**protocol.mapping(), "seed": seed},
            **_method(spec, config, options),
            "use_depth": options.use_depth,
            "use_imu": options.imu is not None,
            "data": _fingerprint(sequence, truth),
        },
    )
    write_json(output / "versions.json", versions())
    write_records(output / "records.csv", records)
    seconds = bag.timing(outcomes)
    write_json(output / "timing.json", timing_summary(seconds))
    rows = [{"frame": o.id, **dict(zip(bag.STAGES, o.seconds, strict=True))} for o in outcomes]
    write_records(output / "timing.csv", rows)
    refused = [f"frame {o.id}: {o.refused}\n" for o in outcomes if o.refused]
    (output / "missing.txt").write_text("".join(refused), encoding="utf-8")
    summary = bag.summarise(outcomes, records, truth, seed)
    if options.back_end:
        summary["back_end"] = with_back_end(outcomes, sequence, truth, output, options.imu)
    write_json(output / "summary.json", summary)
    results = read_results(output)
    if options.pictures:
        _report(results, sequence, outcomes, seconds)
    return results


def node_parameters(config: Config) -> dict[str, str]:
    """All settings that differ from the defaults, as ROS parameters in YAML."""
    values = _flat(to_mapping(config))
    defaults = _flat(to_mapping(Config()))
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
        if value != defaults[name]
    }


def _live(
    sequence: BagSequence, config: Config, options: BagOptions, output: Path
) -> list[FrameOutcome]:
    # Imported here: only live runs need ROS.
    from superglue_ros.live.play_and_record import OUTPUT_BAG, LiveOptions, play_and_record

    live = LiveOptions(
        output=output,
        rate=1000.0,
        use_depth=options.use_depth,
        domain_id=options.domain_id,
        parameters=node_parameters(config),
    )
    play_and_record(sequence, live, console, TOPICS)
    return recorded(output / OUTPUT_BAG)


def _mode(options: BagOptions) -> str:
    if options.recorded is not None:
        return "recorded"
    return "live" if options.live else "offline"


def _method(spec: MethodSpec, config: Config, options: BagOptions) -> dict[str, Any]:
    """What was run; for a recording, only its path."""
    if options.recorded is not None:
        return {"method": {"recorded": str(options.recorded)}}
    return {"method": spec.fingerprint(), "settings": to_mapping(config)}


def _fingerprint(sequence: BagSequence, truth: Trajectory | None) -> dict[str, Any]:
    digest = hashlib.sha256()
    if truth is not None:
        digest.update(truth.stamps_ns.tobytes() + np.ascontiguousarray(truth.poses).tobytes())
    return {
        "bag": sequence.name,
        "frames": len(sequence),
        "image": sequence.topics.image,
        "truth": digest.hexdigest() if truth is not None else "none",
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out


def _report(
    results: Results,
    sequence: BagSequence,
    outcomes: list[FrameOutcome],
    seconds: Mapping[str, list[float]],
) -> None:
    folder = results.folder / "pictures"
    folder.mkdir(exist_ok=True)
    for old in (*folder.glob("*.png"), *folder.glob("*.jpg")):
        old.unlink()
    summary = results.summary
    paired = [row for row in results.records if int(row["reference"]) >= 0]
    stamps = np.array([int(row["stamp_ns"]) for row in paired], np.int64)
    start = min((o.stamp_ns for o in outcomes), default=0)

    def column(name: str) -> NDArray[np.float64]:
        return np.array([float(row[name]) for row in paired], np.float64)

    def curve(name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return (stamps - start) / 1e9, column(name)

    pictures = []
    if paired:
        plot_over_time(
            folder / "frames.png",
            f"{results.label} along {sequence.name}",
            {
                "count": {name: curve(name) for name in ("keypoints", "matches", "inliers")},
                "epipolar [px]": {"median of the matches": curve("epipolar_px")},
                "error [deg]": {
                    "rotation": curve("rotation_error_deg"),
                    "direction": curve("direction_error_deg"),
                },
            },
        )
        pictures.append(Picture(folder / "frames.png", "Along the recording", True))
    errors = column("pose_error_deg")
    errors = errors[~np.isnan(errors)]
    if len(errors):
        figures.error_curves(
            folder / "pose_error.png", "Relative pose", {results.label: errors}, 20.0, "degrees"
        )
        pictures.append(Picture(folder / "pose_error.png", "Cumulative error curve"))
    figures.error_curves(
        folder / "latency.png",
        "Time per frame",
        {name: 1000 * np.array(values) for name, values in seconds.items()},
        max(1.0, 1.2e3 * float(np.percentile(seconds["total"], 99))) if seconds["total"] else 1.0,
        "ms",
    )
    pictures.append(Picture(folder / "latency.png", "Share of frames done within a time"))
    pictures += _match_pictures(folder, sequence, outcomes)
    auc = [with_interval(summary["auc"][t], summary["auc_interval"][t]) for t in ("5", "10", "20")]
    table = Table(
        "Relative poses along the recording [%], 95% intervals",
        ["AUC@5", "AUC@10", "AUC@20", "valid", "usable", "frames", "keypoints", "matches"],
        [
            [
                *auc,
                number(summary["valid_share"], 1),
                number(summary["usable_share"], 1),
                str(summary["frames"]),
                number(summary["mean_keypoints"], 0),
                number(summary["mean_matches"], 0),
            ]
        ],
    )
    tables = [table]
    if "back_end" in summary:
        tables.append(trajectory_table(summary["back_end"]))
        if (results.folder / TRAJECTORIES).exists():
            pictures.insert(0, Picture(results.folder / TRAJECTORIES, "Trajectories", True))
    lead = "; ".join(f"{k.replace('_', ' ')} {v}" for k, v in results.config["protocol"].items())
    details = {"Summary": summary, **run_details(results)}
    write_report(
        results.folder / "report.html",
        f"{sequence.name}: {results.label} ({results.config['mode']})",
        lead,
        tables,
        pictures,
        details,
    )


def _match_pictures(
    folder: Path, sequence: BagSequence, outcomes: list[FrameOutcome], count: int = 4
) -> list[Picture]:
    """Matches of a few frames spread over the recording, coloured by confidence."""
    paired = [o for o in outcomes if o.pairs]
    chosen = {
        paired[int(k)].id: paired[int(k)]
        for k in np.linspace(0, len(paired) - 1, min(count, len(paired)))
    }
    wanted = set(chosen) | {o.pairs[0].reference_id for o in chosen.values()}
    images = dict(_images(sequence, wanted))
    pictures = []
    for outcome in chosen.values():
        pair: PairOutcome = outcome.pairs[0]
        picture = draw_correspondences(
            images[pair.reference_id],
            images[outcome.id],
            pair.points_ref,
            pair.points_query,
            pair.scores,
            ~pair.inlier,
        )
        text = f"frames {pair.reference_id} and {outcome.id}: {len(pair.scores)} matches, "
        text += f"{int(pair.inlier.sum())} inliers, pose {pair.pose_status.name.lower()}"
        write_text(picture, [text])
        path = folder / f"matches_{outcome.id:06d}.jpg"
        cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
        pictures.append(Picture(path, f"{text} (colour: confidence; thin: rejected)", True))
    return pictures


def _images(sequence: BagSequence, wanted: set[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for index, item in enumerate(sequence, start=1):
        if index in wanted:
            yield index, item.image
