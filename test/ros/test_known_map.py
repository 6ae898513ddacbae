"""The running process in a map whose keyframes have poses, over DDS."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from geometry_msgs.msg import PoseWithCovarianceStamped
from matcher_process import Matcher, seconds

from superglue_ros.config import KeyframesConfig
from superglue_ros.geometry.rotation import exp
from superglue_ros.geometry.uncertain_pose import UncertainPose
from superglue_ros.mapping import map_io
from superglue_ros.mapping.keyframes import KeyframeStore
from superglue_ros.srv import LoadMap, SaveMap

pytestmark = pytest.mark.ros

DEPTH = 2.0  # of the wall that the camera looks at
TURN = exp(np.array([0.0, 0.0, np.pi / 2]))
PLACE = np.array([1.0, 2.0, 3.0])


def load(matcher: Matcher, name: str) -> Any:
    return matcher.peer.call("matcher/load_map", LoadMap, LoadMap.Request(path=name))


def rewritten(source: Path, target: Path, features: dict[str, Any], **changes: Any) -> None:
    """The map ``source`` with other fields of all keyframes and of their features."""
    store = KeyframeStore(KeyframesConfig())
    for entry in map_io.load(source).keyframes:
        keyframe = entry.keyframe
        count = len(keyframe.features)
        fields = {**changes, "depth": np.full(count, changes.get("depth", 0.0), np.float32)}
        changed = dataclasses.replace(keyframe.features, **features)
        store.insert(dataclasses.replace(keyframe, features=changed, **fields))
    target.parent.mkdir(exist_ok=True)
    map_io.save(target, store)


def test_frames_are_placed_in_a_map_with_poses_and_other_maps_explained(
    configure: Callable[..., Matcher], tmp_path: Path
) -> None:
    matcher = configure({"maps.folder": str(tmp_path), "maps.frame_id": "hall"})
    peer = matcher.peer
    peer.subscribe("relocalised_pose", PoseWithCovarianceStamped)
    matcher.prime()
    saved = peer.call("matcher/save_map", SaveMap, SaveMap.Request(path="bare.map"))
    assert saved.success, saved.message
    assert not peer.received["relocalised_pose"]

    # What cannot be taken is refused by name; the frames go on as before.
    (tmp_path / "photos").mkdir()
    rewritten(tmp_path / "bare.map", tmp_path / "other.map", {"detector": "orb"})
    (tmp_path / "damaged").mkdir()
    whole = (tmp_path / "bare.map").read_bytes()
    (tmp_path / "damaged" / "map.safetensors").write_bytes(whole[: len(whole) // 2])
    answers = {name: load(matcher, name) for name in ("photos", "other.map", "damaged")}
    assert not [name for name, answer in answers.items() if answer.success]
    assert answers["photos"].message == (
        f"{tmp_path}/photos has no map.safetensors: `superglue-ros reconstruct` writes it where "
        f"images come with poses, which give the map its metres. Reconstruct a sequence or bag "
        f"with poses, without --no-align and from images rather than matches"
    )
    assert answers["other.map"].message == (
        f"{tmp_path}/other.map is a map of orb descriptors, frames have sift-root: configure the "
        f"front-end and weights that made the map, or make it again with these"
    )
    damaged = answers["damaged"].message
    assert f"{tmp_path}/damaged/map.safetensors is no map, or is truncated" in damaged
    without = load(matcher, "bare.map")
    assert without.success
    assert without.message == (
        f"0 of {saved.keyframes} keyframes have a pose in the map: relocalised_pose stays silent. "
        f"A map with poses comes from `superglue-ros reconstruct` with images that have poses, or "
        f"from a run in such a map"
    )
    matcher.prime()
    assert not peer.received["relocalised_pose"]

    # A folder of `superglue-ros reconstruct`: the camera looks at a wall.
    pose = UncertainPose(TURN, PLACE, np.zeros((6, 6)))
    target = tmp_path / "office" / "map.safetensors"
    rewritten(tmp_path / "bare.map", target, {}, pose=pose, depth=DEPTH)
    loaded = load(matcher, "office")
    assert loaded.success, loaded.message
    count = saved.keyframes
    assert loaded.message == f"{count} of {count} keyframes have a pose in the map"
    at = matcher.tick()
    peer.send(at, shift=8)  # 8 pixels of a focal length of 200: the camera moved to its right
    found = peer.output("relocalised_pose", at)
    assert found.header.frame_id == "hall"
    assert seconds(found.header.stamp) == pytest.approx(at, abs=1e-9)
    p, q = found.pose.pose.position, found.pose.pose.orientation
    expected = PLACE + TURN @ [8 * DEPTH / 200, 0, 0]
    np.testing.assert_allclose([p.x, p.y, p.z], expected, atol=0.02)
    half = np.sqrt(0.5)
    np.testing.assert_allclose([q.x, q.y, q.z, q.w], [0, 0, half, half], atol=0.01)
    covariance = np.reshape(found.pose.covariance, (6, 6))
    assert np.linalg.eigvalsh(covariance)[0] > 0
    assert 1e-3 < np.sqrt(covariance[0, 0]) < 0.1

    refused = matcher.set(maps__frame_id="/hall")[0]
    assert not refused.successful
    assert "maps.frame_id '/hall' is no name of a TF frame" in refused.reason
