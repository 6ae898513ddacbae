from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from superglue_ros.data.trajectories import Trajectory, quaternion_of, write_trajectory
from superglue_ros.errors import DataError
from superglue_ros.evaluation.bag.trajectories import read_ground_truth, trajectory_errors

STAMPS = np.arange(12, dtype=np.int64) * 100_000_000 + 5_000_000_000


def a_trajectory(seed: int = 0) -> Trajectory:
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (12, 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(rng.normal(0, 0.5, (12, 3))).as_matrix()
    poses[:, :3, 3] = rng.normal(0, 2, (12, 3))
    return Trajectory(STAMPS, poses)


def brute_force_ate(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Kabsch alignment of the positions by an SVD of our own."""
    a, b = estimate[:, :3, 3], truth[:, :3, 3]
    u, _, vt = np.linalg.svd((b - b.mean(0)).T @ (a - a.mean(0)))
    rotation = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
    aligned = (a - a.mean(0)) @ rotation.T + b.mean(0)
    return float(np.sqrt(np.mean(np.sum((aligned - b) ** 2, axis=1))))


def test_ate_and_rpe_agree_with_brute_force():
    truth = a_trajectory()
    rng = np.random.default_rng(1)
    poses = truth.poses.copy()
    poses[:, :3, 3] += rng.normal(0, 0.1, (12, 3))
    turn = Rotation.from_euler("z", 40, degrees=True).as_matrix()
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = turn, [5, 6, 7]
    errors = trajectory_errors(Trajectory(STAMPS, moved @ poses), truth, correct_scale=False)
    assert errors["poses"] == 12
    assert errors["ate_m"] == pytest.approx(brute_force_ate(poses, truth.poses), rel=1e-6)
    relative = [
        np.linalg.inv(np.linalg.inv(truth.poses[i]) @ truth.poses[i + 1])
        @ (np.linalg.inv(poses[i]) @ poses[i + 1])
        for i in range(11)
    ]
    rpe = np.sqrt(np.mean([np.sum(r[:3, 3] ** 2) for r in relative]))
    assert errors["rpe_m"] == pytest.approx(rpe, rel=1e-6)


def test_scale_is_found_where_it_may_be():
    truth = a_trajectory()
    shrunk = truth.poses.copy()
    shrunk[:, :3, 3] *= 0.25
    errors = trajectory_errors(Trajectory(STAMPS, shrunk), truth, correct_scale=True)
    assert errors["scale"] == pytest.approx(4)
    assert errors["ate_m"] == pytest.approx(0, abs=1e-9)
    later = Trajectory(STAMPS + 10**12, shrunk)
    with pytest.raises(DataError, match="share"):
        trajectory_errors(later, truth, correct_scale=False)


def test_all_three_formats_give_the_same_poses(tmp_path):
    truth = a_trajectory()
    write_trajectory(tmp_path / "truth.tum", truth)
    np.savetxt(tmp_path / "kitti.txt", truth.poses[:, :3].reshape(12, 12))
    rows = ["#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_w, q_x, q_y, q_z"]
    for stamp, pose in zip(STAMPS, truth.poses, strict=True):
        x, y, z, w = quaternion_of(pose[:3, :3])
        values = [*pose[:3, 3], w, x, y, z, *[0.0] * 9]
        rows.append(",".join([str(stamp), *(f"{v:.12f}" for v in values)]))
    (tmp_path / "euroc.csv").write_text("\n".join(rows) + "\n")
    for name in ("truth.tum", "kitti.txt", "euroc.csv"):
        read = read_ground_truth(tmp_path / name, stamps_ns=STAMPS)
        np.testing.assert_allclose(read.poses, truth.poses, atol=1e-6)
        assert np.abs(read.stamps_ns - STAMPS).max() < 1000
    body_camera = np.eye(4)
    body_camera[0, 3] = 1.0
    shifted = read_ground_truth(tmp_path / "truth.tum", T_body_camera=body_camera)
    np.testing.assert_allclose(shifted.poses, truth.poses @ body_camera, atol=1e-6)


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_ground_truth(tmp_path / "none.tum")
    file = tmp_path / "bad.tum"
    file.write_text("1.0 2 3\n")
    with pytest.raises(DataError, match="cannot be read as tum"):
        read_ground_truth(file)
    file.write_text("1.0 nan 0 0 0 0 0 1\n2.0 0 0 0 0 0 0 1\n")
    with pytest.raises(DataError, match="not finite"):
        read_ground_truth(file)
    np.savetxt(tmp_path / "kitti.txt", np.eye(4)[:3].reshape(1, 12))
    with pytest.raises(DataError, match="one line per image"):
        read_ground_truth(tmp_path / "kitti.txt", stamps_ns=STAMPS)


def test_a_straight_line_is_aligned_by_its_first_pose():
    poses = np.tile(np.eye(4), (12, 1, 1))
    poses[:, 0, 3] = np.arange(12)
    truth = Trajectory(STAMPS, poses)
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("y", 90, degrees=True).as_matrix()
    errors = trajectory_errors(Trajectory(STAMPS, turned @ poses), truth, correct_scale=False)
    assert errors["alignment"] == "first pose"
    assert errors["ate_m"] == pytest.approx(0, abs=1e-9)
