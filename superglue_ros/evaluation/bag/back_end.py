"""``evaluate bag --back-end``: the trajectory of a recording with and without the back-end.

The example back-end takes the middle-end's results of every frame, offline, live or recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from superglue_ros.data.bag_sequences import BagSequence
from superglue_ros.data.imu import ImuRecording
from superglue_ros.data.trajectories import Trajectory
from superglue_ros.errors import ConfigError, DataError
from superglue_ros.evaluation.bag.outcomes import FrameOutcome
from superglue_ros.evaluation.reports.report import Table, number
from superglue_ros.types import FrameId

TRAJECTORIES = "trajectories.png"


def with_back_end(
    outcomes: Sequence[FrameOutcome],
    sequence: BagSequence,
    truth: Trajectory | None,
    output: Path,
    imu: ImuRecording | None = None,
) -> dict[str, Any]:
    """Run the back-end over ``outcomes``; returns ATE and RPE (evo) of both trajectories.

    Writes ``relative_poses.tum`` and ``back_end.tum`` (``T_world_camera``), and with ground truth
    ``trajectories.png``. Alignment is by a rigid motion where the poses are metric, else by a
    similarity. Raises :class:`DataError` without calibration and :class:`ConfigError` without
    GTSAM or evo.
    """
    try:
        # Imported here: only this evaluation needs the extras of the back-end.
        from superglue_ros.back_end import accuracy, pictures
        from superglue_ros.back_end.bundle_adjuster import BundleAdjuster
        from superglue_ros.back_end.imu import Imu
        from superglue_ros.back_end.offline import Session
    except ImportError as error:
        raise ConfigError(
            f"--back-end needs {error.name}: pip install 'superglue_ros[backend,evaluation]'"
        ) from error
    if sequence.camera is None:
        raise DataError(f"bag {sequence.path} has no calibration: a back-end cannot use it")
    used = None if imu is None else Imu(imu.calibration, imu.readings)
    session = Session(BundleAdjuster(imu=used))
    ids = _frame_ids(outcomes)
    for outcome in outcomes:
        pairs = [pair.said for pair in outcome.pairs if pair.said is not None]
        frame = ids.get(outcome.id, FrameId(id=outcome.id, stamp_ns=outcome.stamp_ns))
        known = None if truth is None else truth.at(outcome.stamp_ns)
        session.add(frame, pairs, sequence.camera, known)
    run = session.finish()
    found: dict[str, Any] = {
        "metric": run.metric,
        "loops": [[one.query, one.reference, one.inliers] for one in run.closures],
        "landmarks": len(run.landmarks),
        "lost": run.lost,
        "trajectories": {},
    }
    drawn = {}
    run.write(output)
    for name, poses in run.trajectories.items():
        measured = accuracy.measure(run.stamps_ns, run.truth, poses, run.metric)
        if measured is not None:
            drawn[name] = measured
            found["trajectories"][name] = measured.figures()
    (output / TRAJECTORIES).unlink(missing_ok=True)
    if drawn:
        scale = "metric" if run.metric else "monocular, scale aligned"
        pictures.plot_trajectories(output / TRAJECTORIES, f"{sequence.name}, {scale}", drawn)
    return found


def trajectory_table(found: dict[str, Any]) -> Table:
    """The errors of both trajectories for the report."""
    rows = [
        [
            name,
            number(100 * row["ate_m"], 1),
            number(100 * row["rpe_m"]),
            number(row["rpe_deg"]),
            number(row["scale"], 4),
            number(100 * row["placed"], 0),
        ]
        for name, row in found["trajectories"].items()
    ]
    aligned = "rigid" if found["metric"] else "similarity; relative poses take their true lengths"
    return Table(
        f"Trajectories, aligned ({aligned}); loops closed: {len(found['loops'])}",
        ["", "ATE [cm]", "RPE [cm]", "RPE [deg]", "scale", "placed [%]"],
        rows,
    )


def _frame_ids(outcomes: Sequence[FrameOutcome]) -> dict[int, FrameId]:
    """The full id of every frame in a pair, as query or as reference."""
    said = [pair.said.matches for o in outcomes for pair in o.pairs if pair.said is not None]
    return {one.id: one for matches in said for one in (matches.reference, matches.query)}
