"""Image sequences to trajectories, with and without the back-end, and their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from superglue_ros.data.sequences.base import FolderSequence
from superglue_ros.errors import ConfigError
from superglue_ros.evaluation.bag.run import deterministic
from superglue_ros.evaluation.pairs.methods import MethodSpec
from superglue_ros.evaluation.progress import track
from superglue_ros.evaluation.reports.report import Table, number
from superglue_ros.evaluation.reports.results import versions, write_json
from superglue_ros.evaluation.trajectory_errors import kitti_errors, pairs_by_time, relative_errors
from superglue_ros.pipeline import Pipeline
from superglue_ros.settings import to_mapping


@dataclass(frozen=True)
class SequenceOptions:
    """``depth`` and ``stereo`` give metric scale; ``frames`` 0 = all, every ``stride``-th of them.

    Raises :class:`ConfigError` on values that cannot be.
    """

    depth: bool = False
    stereo: bool = False
    frames: int = 0
    stride: int = 1

    def __post_init__(self) -> None:
        if self.depth and self.stereo:
            raise ConfigError("--depth and --stereo exclude each other: give one source of scale")
        if self.stride < 1 or self.frames < 0:
            raise ConfigError("--stride must be at least 1, and --frames not negative")


def evaluate_sequences(
    sequences: Sequence[FolderSequence], spec: MethodSpec, options: SequenceOptions, output: Path
) -> Table:
    """Run all; write trajectories, plots and ``summary.json`` to ``output``; returns the table.

    In ``output/NAME``: ``relative_poses.tum``, ``back_end.tum`` (``T_world_camera``) and, with
    ground truth, ``trajectories.png``. Raises :class:`ConfigError` without GTSAM or evo, and where
    two sequences have one name.
    """
    names = [sequence.name for sequence in sequences]
    if len(set(names)) < len(names):
        raise ConfigError(f"sequences must have different names, not {', '.join(names)}")
    output.mkdir(parents=True, exist_ok=True)
    found = {one.name: _run(one, spec, options, output / one.name) for one in sequences}
    write_json(output / "versions.json", versions())
    write_json(
        output / "config.json",
        {
            "kind": "sequence",
            "label": spec.label,
            "method": spec.fingerprint(),
            "settings": to_mapping(deterministic(spec.config)),
            "options": vars(options),
        },
    )
    write_json(output / "summary.json", found)
    return sequence_table(found)


def sequence_table(found: dict[str, dict[str, Any]]) -> Table:
    """A row for every sequence and trajectory that ground truth judges."""
    columns = ("ate_m", "rpe_m", "rpe_deg", "rpe_1s_m", "rpe_1s_deg", "drift_percent",
               "drift_deg_per_100m")  # fmt: skip
    rows = []
    for name, run in found.items():
        for poses, errors in run["trajectories"].items():
            cells = [number(errors[column], 3) for column in columns]
            aligned = "metric" if run["metric"] else f"x {errors['scale']:.3g}"
            placed = number(100 * errors["placed"], 0)
            rows.append([name, poses, str(run["frames"]), *cells, aligned, placed])
    header = [
        "sequence", "poses", "frames", "ATE [m]", "RPE [m]", "RPE [deg]", "RPE, 1 s [m]",
        "RPE, 1 s [deg]", "drift [%]", "drift [deg / 100 m]", "scale", "placed [%]",
    ]  # fmt: skip
    return Table("Trajectories (root mean squares; drift: means over 100 to 800 m)", header, rows)


def _run(
    sequence: FolderSequence, spec: MethodSpec, options: SequenceOptions, output: Path
) -> dict[str, Any]:
    try:
        # Imported here: only this evaluation needs the extras of the back-end.
        from superglue_ros.back_end import accuracy, pictures
        from superglue_ros.back_end.bundle_adjuster import BundleAdjuster
        from superglue_ros.back_end.offline import recordings, run
    except ImportError as error:
        raise ConfigError(
            f"trajectories need {error.name}: pip install 'superglue_ros[backend,evaluation]'"
        ) from error
    output.mkdir(parents=True, exist_ok=True)
    end = min(options.frames or len(sequence), len(sequence))
    chosen = sequence.select(range(0, end, options.stride))
    shown = track(recordings(chosen, options.depth, options.stereo), len(chosen), sequence.name)
    done = run(shown, Pipeline(deterministic(spec.config)), BundleAdjuster())
    done.write(output)
    out: dict[str, Any] = {
        "frames": len(chosen),
        "metric": done.metric,
        "keyframes": done.keyframes,
        "lost": done.lost,
        "loops": [[one.query, one.reference, one.inliers] for one in done.closures],
        "trajectories": {},
    }
    drawn = {}
    for name, poses in done.trajectories.items():
        measured = accuracy.measure(done.stamps_ns, done.truth, poses, done.metric)
        if measured is None:
            continue
        drawn[name] = measured
        stamps = np.asarray(done.stamps_ns)[measured.indices]
        pairs = pairs_by_time(stamps, 1.0)
        metres, degrees = relative_errors(measured.aligned, measured.truth, pairs)
        out["trajectories"][name] = {
            **measured.figures(),
            "rpe_1s_m": _rms(metres),
            "rpe_1s_deg": _rms(degrees),
            **kitti_errors(measured.aligned, measured.truth),
        }
    if drawn:
        scale = "metric" if done.metric else "monocular, scale aligned"
        pictures.plot_trajectories(output / "trajectories.png", f"{sequence.name}, {scale}", drawn)
    return out


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2))) if len(values) else float("nan")
