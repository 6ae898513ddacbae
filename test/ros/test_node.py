"""The node as a real process over real DDS: what goes in comes out right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from matcher_process import (
    HEIGHT,
    WIDTH,
    Matcher,
    camera_info,
    compressed_message,
    image_message,
    keypoints_message,
    picture,
    seconds,
)
from sensor_msgs.msg import Image

from superglue_ros.msg import Features, Matches, RelativePose

pytestmark = pytest.mark.ros


def displacement(matches: Matches) -> np.ndarray:
    """Median motion of the matched points from reference to query, (2,) pixels."""
    du = np.array(matches.u_query) - np.array(matches.u_ref)
    dv = np.array(matches.v_query) - np.array(matches.v_ref)
    return np.array([np.median(du), np.median(dv)])


def test_matches_carry_the_known_shift(matcher: Matcher) -> None:
    at = matcher.tick()
    matcher.peer.send(at, shift=12)
    matches = matcher.peer.output("matches", at)
    pose = matcher.peer.output("relative_pose", at)
    features = matcher.peer.output("features", at)
    assert matches.status == Matches.OK
    assert matches.kind == Matches.KEYFRAME
    assert len(matches.u_ref) > 50
    np.testing.assert_allclose(displacement(matches), (-12, 0), atol=0.1)
    assert matches.header.frame_id == "camera_optical"
    assert matches.query.frame_id == "camera_optical"
    assert seconds(matches.query.stamp) == pytest.approx(at)
    assert matches.query.id > matches.reference.id > 0
    assert len(features.u) == len(features.v) == len(features.scores)
    np.testing.assert_array_equal(
        np.array(features.u)[np.array(matches.index_query)], matches.u_query
    )
    assert features.frame == matches.query == pose.query
    assert pose.reference == matches.reference
    assert pose.num_matches == len(matches.u_ref)
    assert pose.status in (RelativePose.PLANAR, RelativePose.ROTATION_ONLY)
    assert pose.num_inliers == sum(matches.inlier) > 40
    assert 0 <= pose.median_epipolar_px < pose.inlier_threshold_px
    assert np.isfinite(pose.median_parallax_rad)
    assert features.descriptor_dim == 0


def test_status_and_diagnostics_account_for_every_frame(matcher: Matcher) -> None:
    at = matcher.prime()
    status = matcher.peer.output("status", at)
    assert status.received == status.matched + status.dropped + status.refused
    assert status.refused == 0
    assert status.keyframes >= 1
    assert (status.device, status.precision) == ("cpu", "float32")
    assert "sift" in status.weights
    assert status.extract_seconds > 0
    assert 0 <= status.queue_seconds < 10
    said = matcher.peer.wait(
        lambda: [
            s
            for array in matcher.peer.received["/diagnostics"]
            for s in array.status
            # The first ones may have been sent before the frame was through.
            if s.message == "matching" and int({v.key: v.value for v in s.values}["matched"])
        ],
        "healthy diagnostics of a matched frame",
    )[-1]
    assert said.level == b"\0"


def test_the_status_reports_the_precision_in_effect(configure: Callable[..., Matcher]) -> None:
    """SIFT and nearest neighbours have no network that could run in what is asked for."""
    matcher = configure({"precision": "bfloat16"})
    assert matcher.peer.output("status", matcher.prime()).precision == "float32"


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_compressed_images(configure: Callable[..., Matcher], ending: str) -> None:
    matcher = configure({"image_transport": "compressed"})
    matcher.prime(image=lambda at: compressed_message(picture(), at, ending))
    at = matcher.tick()
    matcher.peer.send(at, image=compressed_message(picture(9), at, ending))
    np.testing.assert_allclose(displacement(matcher.peer.output("matches", at)), (-9, 0), atol=0.2)


@pytest.mark.parametrize("encoding", ["rgb8", "bgra8", "mono16", "8UC1"])
def test_encodings(matcher: Matcher, encoding: str) -> None:
    grey = picture(5)
    image = {
        "rgb8": np.repeat(grey[:, :, None], 3, axis=2),
        "bgra8": np.repeat(grey[:, :, None], 4, axis=2),
        "mono16": grey.astype(np.uint16) * 257,
        "8UC1": grey,
    }[encoding]
    at = matcher.tick()
    matcher.peer.send(at, image=image_message(np.ascontiguousarray(image), at, encoding))
    np.testing.assert_allclose(displacement(matcher.peer.output("matches", at)), (-5, 0), atol=0.1)


def test_approximate_stamps(configure: Callable[..., Matcher]) -> None:
    matcher = configure({"sync.mode": "approximate", "sync.slop": 0.05})
    matcher.prime(camera_info=lambda at: camera_info(at + 0.01))
    at = matcher.tick()
    matcher.peer.send(at, shift=7, camera_info=camera_info(at - 0.01))
    np.testing.assert_allclose(displacement(matcher.peer.output("matches", at)), (-7, 0), atol=0.1)


def test_without_calibration_there_are_matches_but_no_poses(
    configure: Callable[..., Matcher],
) -> None:
    matcher = configure({"inputs.camera_info": "none"})
    at = matcher.prime(camera_info=lambda at: None)
    assert matcher.peer.output("matches", at).status == Matches.OK
    pose = matcher.peer.output("relative_pose", at)
    assert pose.method == RelativePose.NONE
    assert pose.pose.covariance[0] == -1


def test_an_uncalibrated_camera_is_said_once(matcher: Matcher) -> None:
    before = len(matcher.log)
    for _ in range(2):
        at = matcher.tick()
        info = camera_info(at)
        info.k = [0.0] * 9
        matcher.peer.send(at, camera_info=info)
        assert matcher.peer.output("matches", at).status == Matches.OK
        assert matcher.peer.output("relative_pose", at).method == RelativePose.NONE
    assert "uncalibrated" in matcher.wait_for_log("K[0] = 0", before)
    assert matcher.log[before:].count("K[0] = 0") == 1


def test_the_latest_camera_info_serves_all_images(configure: Callable[..., Matcher]) -> None:
    matcher = configure({"inputs.camera_info": "latest", "inputs.silent_after": 0.5})
    before = len(matcher.log)
    matcher.prime()
    at = matcher.tick()
    matcher.peer.send(at, shift=12, camera_info=None)
    assert matcher.peer.output("relative_pose", at).num_inliers > 40
    # One is enough: only the image is missed.
    matcher.wait_for_log("no image on /image for", before)
    assert "no camera_info on" not in matcher.log[before:]


def grid(step: int = 12, shift: int = 0) -> np.ndarray:
    """A grid of pixels (N, 2) of the unshifted image, as seen in the image shifted by ``shift``."""
    x, y = np.meshgrid(np.arange(30, WIDTH - 30, step), np.arange(20, HEIGHT - 20, step))
    return np.column_stack((x.ravel() - shift, y.ravel())).astype(np.float32)


def test_keypoints_of_an_outside_front_end_are_described(
    configure: Callable[..., Matcher],
) -> None:
    matcher = configure({"inputs.keypoints": True})
    matcher.prime(keypoints=lambda at: keypoints_message(grid(), at))
    at = matcher.tick()
    matcher.peer.send(at, shift=6, keypoints=keypoints_message(grid(shift=6), at))
    matches = matcher.peer.output("matches", at)
    features = matcher.peer.output("features", at)
    assert len(features.u) == len(grid())
    assert len(matches.u_ref) > 0.8 * len(grid())
    np.testing.assert_array_equal(matches.index_ref, matches.index_query)
    np.testing.assert_allclose(displacement(matches), (-6, 0), atol=0.01)


def test_descriptors_of_an_outside_front_end_are_used(configure: Callable[..., Matcher]) -> None:
    matcher = configure({"inputs.keypoints": True, "outputs.descriptors": "float16"})
    unit = np.eye(128, dtype=np.float16)

    def message(at: float, order: np.ndarray) -> Features:
        points = grid()[: len(order)]
        found = keypoints_message(points, at)
        found.detector = "sift-root"
        found.descriptor_dim = 128
        found.descriptor_type = Features.F16
        found.descriptors = np.ascontiguousarray(unit[order]).tobytes()
        return found

    order = np.arange(40)
    matcher.prime(keypoints=lambda at: message(at, order))
    at = matcher.tick()
    matcher.peer.send(at, keypoints=message(at, order[::-1]))
    matches = matcher.peer.output("matches", at)
    assert len(matches.u_ref) == 40
    np.testing.assert_array_equal(np.array(matches.index_query), 39 - np.array(matches.index_ref))
    features = matcher.peer.output("features", at)
    assert (features.descriptor_dim, features.descriptor_type) == (128, Features.F16)
    assert bytes(features.descriptors) == np.ascontiguousarray(unit[order[::-1]]).tobytes()


def test_registered_depth_gives_metric_scale(configure: Callable[..., Matcher]) -> None:
    matcher = configure({"inputs.depth": True})
    # A wall half at 2 m, half at 4 m, seen by a camera that moved: shift = f * baseline / depth.
    depth = np.full((HEIGHT, WIDTH), 2000, np.uint16)
    depth[HEIGHT // 2 :] = 4000
    matcher.prime(depth=lambda at: image_message(depth, at, "16UC1"))
    at = matcher.tick()
    moved = np.vstack((picture(12)[: HEIGHT // 2], picture(6)[HEIGHT // 2 :]))
    matcher.peer.send(at, image=image_message(moved, at), depth=image_message(depth, at, "16UC1"))
    pose = matcher.peer.output("relative_pose", at)
    assert pose.status == RelativePose.VALID
    assert pose.method == RelativePose.PNP
    assert pose.scale_known
    position = pose.pose.pose.position
    np.testing.assert_allclose((position.x, position.y, position.z), (0.12, 0, 0), atol=0.01)


def test_matches_image_only_while_somebody_looks(matcher: Matcher) -> None:
    matcher.prime()
    subscription = matcher.peer.subscribe("matches_image", Image)
    try:
        picture_message = matcher.peer.wait(
            lambda: matcher.prime() and matcher.peer.received["matches_image"], "a picture"
        )[-1]
        assert picture_message.encoding == "bgr8"
        assert picture_message.header.frame_id == "camera_optical"
        assert picture_message.width >= 2 * WIDTH
        assert len(picture_message.data) == picture_message.step * picture_message.height
    finally:
        matcher.peer.node.destroy_subscription(subscription)


def test_time_that_jumps_backwards_drops_the_keyframes(matcher: Matcher) -> None:
    before = len(matcher.log)
    last = matcher.tick()
    matcher.peer.send(last)
    last_id = matcher.peer.output("matches", last).query.id
    earlier = last - 50.0
    matcher.peer.send(earlier)
    features = matcher.peer.output("features", earlier)
    assert features.frame.id > last_id
    assert "keyframes are dropped" in matcher.wait_for_log("time jumped backwards", before)
    matcher.peer.send(earlier + 0.1, shift=4)
    matches = matcher.peer.output("matches", earlier + 0.1)
    assert matches.reference.id == features.frame.id
    np.testing.assert_allclose(displacement(matches), (-4, 0), atol=0.1)
    status = matcher.peer.output("status", earlier + 0.1)
    assert (status.resets, status.keyframes) == (1, 1)


def test_a_jump_is_announced_although_its_first_frame_is_refused(
    configure: Callable[..., Matcher],
) -> None:
    """The first frame after the jump brings keypoints that cannot be described, or no image."""
    matcher = configure({"inputs.keypoints": True})
    matcher.prime(keypoints=lambda at: keypoints_message(grid(), at))
    before = len(matcher.log)
    earlier = matcher.tick() - 50.0
    broken = keypoints_message(grid(), earlier)
    broken.detector, broken.descriptor_dim = "other", 1
    broken.descriptors = np.full(len(grid()), np.nan, np.float32).tobytes()
    matcher.peer.send(earlier, keypoints=broken)
    assert matcher.peer.output("matches", earlier).status == Matches.ERROR
    later = earlier + 0.1
    matcher.peer.send(later, keypoints=keypoints_message(grid(), later))
    features = matcher.peer.output("features", later)
    matcher.wait_for_log("time jumped backwards", before)
    status = matcher.peer.output("status", later)
    assert (status.resets, status.keyframes) == (1, 1)
    assert not matcher.peer.outputs("matches", later)
    matcher.peer.send(later + 0.1, keypoints=keypoints_message(grid(), later + 0.1))
    assert matcher.peer.output("matches", later + 0.1).reference.id == features.frame.id
    assert matcher.log[before:].count("time jumped backwards") == 1
