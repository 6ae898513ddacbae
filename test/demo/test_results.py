"""Figures of a run, from a recorded bag with known content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from superglue_ros.data.bags import BagWriter, typestore
from superglue_ros.data.trajectories import Trajectory, quaternion_of
from superglue_ros.demo.results import (
    MATCHES,
    POSE,
    STATUS,
    read_results,
    summarise,
    true_epipolar_error,
)
from superglue_ros.errors import DataError
from superglue_ros.geometry.camera import Camera
from superglue_ros.types import MatchStatus, PoseStatus

CAMERA = Camera(640, 480, np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), np.zeros(0))
POINTS = np.random.default_rng(0).uniform((-1, -1, 3), (1, 1, 6), (20, 3))


def pose(x: float, yaw_deg: float = 0.0) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("y", yaw_deg, degrees=True).as_matrix()
    T[0, 3] = x
    return T


TRUTH = Trajectory(np.arange(3) * 100_000_000, np.array([pose(0), pose(0.1, 1), pose(0.2, 2)]))


def make(name: str, **values: Any) -> Any:
    """A message whose other fields are zero or empty."""
    store = typestore()
    kind = name if "/" in name else f"superglue_ros/msg/{name}"
    fields = {}
    for field, (node, what) in store.fielddefs[kind][1]:
        if field in values:
            fields[field] = values[field]
        elif node == 2:  # another message
            fields[field] = make(what)
        elif node in (3, 4):  # arrays
            base, length = what
            dtype = base[1][0] if base[0] == 1 else None
            fields[field] = np.zeros(length if node == 3 else 0, dtype or object)
        else:
            fields[field] = "" if what[0] == "string" else np.dtype(what[0]).type(0).item()
    return store.types[kind](**fields)


def frame(number: int) -> Any:
    stamp = make("builtin_interfaces/msg/Time", sec=0, nanosec=(number - 1) * 100_000_000)
    return make("FrameId", id=number, stamp=stamp)


def project(T_world_camera: np.ndarray) -> np.ndarray:
    inverse = np.linalg.inv(T_world_camera)
    return CAMERA.project(POINTS @ inverse[:3, :3].T + inverse[:3, 3])


def pair(
    ref: int, query: int, estimate: np.ndarray, status: PoseStatus, shift_px: float = 0.0
) -> tuple[Any, Any]:
    u_ref, v_ref = project(TRUTH.poses[ref - 1]).astype(np.float32).T.copy()
    u_query, v_query = project(TRUTH.poses[query - 1]).astype(np.float32).T.copy()
    count = len(POINTS)
    indices = np.arange(count, dtype=np.int32)
    matches = make(
        "Matches", reference=frame(ref), query=frame(query), index_ref=indices, index_query=indices,
        u_ref=u_ref, v_ref=v_ref, u_query=u_query, v_query=v_query + np.float32(shift_px),
        scores=np.ones(count, np.float32), inlier=(indices < 15).astype(np.uint8),
        sigma_px=np.ones(count, np.float32), track_ids=np.full(count, -1),
    )  # fmt: skip
    x, y, z = estimate[:3, 3]
    qx, qy, qz, qw = quaternion_of(estimate[:3, :3])
    with_covariance = make(
        "geometry_msgs/msg/PoseWithCovariance",
        pose=make(
            "geometry_msgs/msg/Pose",
            position=make("geometry_msgs/msg/Point", x=x, y=y, z=z),
            orientation=make("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
        ),
    )
    relative = make(
        "RelativePose", reference=frame(ref), query=frame(query), pose=with_covariance,
        status=int(status), median_parallax_rad=0.02,
    )  # fmt: skip
    return matches, relative


def status(extract_s: float, matched: int) -> Any:
    return make(
        "MatcherStatus", extract_seconds=extract_s, match_seconds=0.02, geometry_seconds=0.003,
        matched=matched, dropped=1, keyframes=2, device="cpu", precision="float32", weights="w",
    )  # fmt: skip


def record(path: Path, messages: list[tuple[str, Any]]) -> Path:
    with BagWriter(path) as bag:
        for name, kind in ((MATCHES, "Matches"), (POSE, "RelativePose"), (STATUS, "MatcherStatus")):
            bag.add_topic(name, f"superglue_ros/msg/{kind}")
        for stamp, (name, message) in enumerate(messages):
            bag.write(name, stamp, message)
    return path


def relative(ref: int, query: int) -> np.ndarray:
    return np.linalg.inv(TRUTH.poses[ref - 1]) @ TRUTH.poses[query - 1]


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """Pair 1-2: rotation 1 degree off. Pair 1-3: exact, direction opposite. Then a refusal."""
    turned = relative(1, 2)
    turned[:3, :3] = turned[:3, :3] @ Rotation.from_euler("x", 1, degrees=True).as_matrix()
    opposite = relative(1, 3)
    opposite[:3, 3] *= -1
    messages = [(STATUS, status(0.5, 1))]
    for ref, query, estimate, shift in ((1, 2, turned, 0.0), (1, 3, opposite, 2.0)):
        matches, pose_message = pair(ref, query, estimate, PoseStatus.VALID, shift)
        messages += [(MATCHES, matches), (POSE, pose_message), (STATUS, status(0.1, query))]
    refused = make("Matches", query=frame(4), status=int(MatchStatus.ERROR))
    return record(tmp_path / "bag", [*messages, (MATCHES, refused)])


def test_errors_against_the_truth(bag: Path) -> None:
    results = read_results(bag, TRUTH, CAMERA)
    first, second = results.pairs
    assert first.rotation_error_deg == pytest.approx(1.0, abs=1e-6)
    assert first.direction_error_deg == pytest.approx(0.0, abs=1e-6)
    assert second.rotation_error_deg == pytest.approx(0.0, abs=1e-6)
    assert second.direction_error_deg == pytest.approx(180.0)
    assert first.epipolar_px is not None
    assert second.epipolar_px is not None
    assert first.epipolar_px.max() < 1e-3
    assert np.median(second.epipolar_px) == pytest.approx(2.0, rel=0.1)


def test_summary(bag: Path) -> None:
    summary = summarise(read_results(bag, TRUTH, CAMERA))
    json.dumps(summary)
    assert (summary["frames"], summary["pairs"], summary["keyframes"]) == (3, 2, 2)
    assert (summary["matches_median"], summary["inliers_median"]) == (20, 15)
    assert summary["rotation_error_deg_median"] == pytest.approx(0.5, abs=1e-3)
    assert summary["direction_error_deg_median"] == pytest.approx(90.0)
    assert summary["poses"]["valid"] == 2
    assert summary["milliseconds_per_stage"] == pytest.approx(
        {"extract": 100, "match": 20, "geometry": 3}
    )


def test_no_truth_is_no_error(bag: Path) -> None:
    summary = summarise(read_results(bag, None, CAMERA))
    assert summary["rotation_error_deg_median"] is None
    assert summary["direction_error_deg_median"] is None
    assert summary["true_epipolar_error_px_median"] is None
    assert summary["matches_median"] == 20


@pytest.mark.parametrize(
    "state, rotation, direction",
    [
        (PoseStatus.PLANAR, True, True),
        (PoseStatus.ROTATION_ONLY, True, False),
        (PoseStatus.REJECTED, False, False),
        (PoseStatus.FEW, False, False),
    ],
)
def test_only_what_the_node_claims_is_scored(
    tmp_path: Path, state: PoseStatus, rotation: bool, direction: bool
) -> None:
    matches, pose_message = pair(1, 2, relative(1, 2), state)
    path = record(
        tmp_path / "bag", [(MATCHES, matches), (POSE, pose_message), (STATUS, status(0.1, 2))]
    )
    (result,) = read_results(path, TRUTH, CAMERA).pairs
    assert np.isfinite(result.rotation_error_deg) == rotation
    assert np.isfinite(result.direction_error_deg) == direction


def test_a_silent_node_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the node matched no frame"):
        read_results(record(tmp_path / "bag", []), TRUTH, CAMERA)


def test_without_a_baseline_there_are_no_epipolar_lines(bag: Path) -> None:
    matches = read_results(bag, None, CAMERA).pairs[0].matches
    assert np.isnan(true_epipolar_error(matches, CAMERA, np.eye(4))).all()
