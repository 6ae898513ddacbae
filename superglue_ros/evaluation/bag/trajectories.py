"""Trajectories through evo: ground truth in its formats, absolute and relative errors."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.trajectories import Trajectory
from superglue_ros.errors import ConfigError, DataError

FORMATS = ("tum", "euroc", "kitti")


def read_ground_truth(
    path: Path,
    form: str = "",
    stamps_ns: NDArray[np.int64] | None = None,
    T_body_camera: NDArray[np.float64] | None = None,
) -> Trajectory:
    """Poses ``T_world_camera`` of a TUM, EuRoC or KITTI file.

    ``form`` is one of :data:`FORMATS`, empty = by the file (``.csv`` EuRoC, 12 columns KITTI, else
    TUM). KITTI has no stamps: it takes those of the images, ``stamps_ns``, one per line.
    ``T_body_camera`` (4, 4) is applied to files that hold the poses of a body (EuRoC: the IMU).
    Raises :class:`DataError` on files that cannot be read, and on poses that are not finite.
    """
    require_evo()
    from evo.tools import file_interface

    if not path.is_file():
        raise DataError(f"ground truth {path} does not exist")
    form = form or _guess(path)
    try:
        if form == "kitti":
            read = file_interface.read_kitti_poses_file(str(path))
            if stamps_ns is None or len(stamps_ns) != read.num_poses:
                count = "no" if stamps_ns is None else len(stamps_ns)
                raise DataError(
                    f"{path} has {read.num_poses} poses for {count} images: KITTI files need one "
                    f"line per image"
                )
            stamps = np.asarray(stamps_ns, np.int64)
        else:
            reader = {
                "tum": file_interface.read_tum_trajectory_file,
                "euroc": file_interface.read_euroc_csv_trajectory,
            }[form]
            read = reader(str(path))
            stamps = np.rint(np.asarray(read.timestamps) * 1e9).astype(np.int64)
        poses = np.array(read.poses_se3, np.float64)
    except KeyError as error:
        raise DataError(f"ground truth format {form!r}: known are {', '.join(FORMATS)}") from error
    except (file_interface.FileInterfaceException, ValueError) as error:
        raise DataError(f"{path} cannot be read as {form} trajectory: {error}") from error
    bad = ~np.isfinite(poses).all(axis=(1, 2))
    if bad.any():
        raise DataError(f"{path}: pose {int(bad.argmax()) + 1} is not finite")
    order = np.argsort(stamps, kind="stable")
    keep = np.concatenate([[True], np.diff(stamps[order]) > 0]) if len(order) else order
    poses, stamps = poses[order][keep], stamps[order][keep]
    if T_body_camera is not None:
        poses = poses @ T_body_camera
    return Trajectory(stamps, poses)


def trajectory_errors(
    estimate: Trajectory, truth: Trajectory, correct_scale: bool, max_difference_s: float = 0.01
) -> dict[str, Any]:
    """ATE and RPE (root mean squares) of an estimate by evo, after alignment of the two.

    ATE in metres after a rigid (``correct_scale``: similarity) alignment of the positions, or of
    the first poses where the positions lie on a line; RPE of successive poses, in metres and
    degrees. Raises :class:`DataError` where the two share fewer than three stamps.
    """
    require_evo()
    from evo.core import metrics, sync, units
    from evo.core.geometry import GeometryException

    try:
        reference, aligned = sync.associate_trajectories(
            _evo(truth), _evo(estimate), max_diff=max_difference_s
        )
    except sync.SyncException as error:
        raise DataError(f"estimate and ground truth share no stamps: {error}") from error
    if reference.num_poses < 3:
        raise DataError("estimate and ground truth share fewer than three stamps")
    out: dict[str, Any] = {"poses": int(reference.num_poses), "scale": 1.0}
    try:
        _, _, scale = aligned.align(reference, correct_scale=correct_scale)
        out |= {"scale": float(scale), "alignment": "all poses"}
    except GeometryException:
        # Positions on a line leave the rotation about it open; orientations do not.
        aligned.align_origin(reference)
        out["alignment"] = "first pose"
    ate = metrics.APE(metrics.PoseRelation.translation_part)
    ate.process_data((reference, aligned))
    out["ate_m"] = float(ate.get_statistic(metrics.StatisticsType.rmse))
    for name, relation in (
        ("rpe_m", metrics.PoseRelation.translation_part),
        ("rpe_deg", metrics.PoseRelation.rotation_angle_deg),
    ):
        rpe = metrics.RPE(relation, delta=1.0, delta_unit=units.Unit.frames, all_pairs=True)
        rpe.process_data((reference, aligned))
        out[name] = float(rpe.get_statistic(metrics.StatisticsType.rmse))
    return out


def require_evo() -> None:
    """Import evo on use: few commands need it, and it takes seconds to load."""
    if find_spec("evo") is None:
        raise ConfigError("ground-truth files and trajectory errors need evo: pip install evo")


def _evo(trajectory: Trajectory) -> Any:
    from evo.core.trajectory import PoseTrajectory3D

    return PoseTrajectory3D(
        poses_se3=list(trajectory.poses), timestamps=trajectory.stamps_ns.astype(np.float64) / 1e9
    )


def _guess(path: Path) -> str:
    if path.suffix == ".csv":
        return "euroc"
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.split("#")[0].split()
            if words:
                return "kitti" if len(words) == 12 else "tum"
    raise DataError(f"ground truth {path} holds no pose")
