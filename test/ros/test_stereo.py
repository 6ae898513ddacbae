"""A rectified stereo camera over real DDS: a rendered room, in which depth and motion are exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from diagnostic_msgs.msg import DiagnosticStatus
from matcher_process import Matcher, compressed_message, image_message, seconds, stamp
from sensor_msgs.msg import CameraInfo

from superglue_ros.msg import Features, Matches, RelativePose

from ..stereo_room import BASELINE, HEIGHT, MATRIX, P_LEFT, P_RIGHT, WIDTH, motion, view

pytestmark = pytest.mark.ros

STEREO = {"inputs.stereo": True, "matcher.name": "ratio", "front_end.max_keypoints": 800}


def calibration(at: float, p: np.ndarray) -> CameraInfo:
    """With the D and K of the raw camera, which the images no longer have."""
    message = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model="plumb_bob")
    message.header.stamp = stamp(at)
    message.d = [-0.3, 0.1, 0.0, 0.0, 0.0]
    message.k = (MATRIX * [[1.1], [1.1], [1]]).ravel().tolist()
    message.p = p.tolist()
    return message


def pair(number: int, at: float, **changed: Any) -> dict[str, Any]:
    """All messages of a stereo pair, taken at place ``number`` of the room; None = not sent."""
    here = view(number)
    messages = {
        "left/image_rect": image_message(here.left, at),
        "right/image_rect": image_message(here.right, at),
        "left/camera_info": calibration(at, P_LEFT),
        "right/camera_info": calibration(at, P_RIGHT),
    }
    messages["left/image_rect"].header.frame_id = "left_optical"
    messages["right/image_rect"].header.frame_id = "right_optical"
    return {**messages, **{name.replace("__", "/"): value for name, value in changed.items()}}


def send(matcher: Matcher, messages: dict[str, Any]) -> None:
    for topic, message in messages.items():
        if message is not None:
            matcher.peer.publisher(topic, type(message)).publish(message)


def stereo_of(matcher: Matcher, at: float) -> tuple[Matches, RelativePose, Features, Features]:
    """Stereo matches with their pose, and the features of both images."""

    def whole() -> Any:
        peer = matcher.peer
        matches = [m for m in peer.outputs("matches", at) if m.kind == Matches.STEREO]
        poses = [
            p for p in peer.outputs("relative_pose", at) if matches and p.query == matches[0].query
        ]
        features = {f.frame.camera_index: f for f in peer.outputs("features", at)}
        if matches and poses and len(features) == 2 and peer.outputs("status", at):
            return matches[0], poses[0], features[0], features[1]
        return None

    return matcher.peer.wait(whole, f"a stereo pair of {at}:\n{matcher.log}")


def prime(matcher: Matcher) -> float:
    """Send the first place until a pair has come out; its stamp."""
    sent: list[float] = []
    for _ in range(40):
        sent.append(matcher.tick())
        send(matcher, pair(0, sent[-1]))
        try:
            matcher.peer.wait(
                lambda: [at for at in sent if len(matcher.peer.outputs("matches", at)) == 2],
                "a frame with a keyframe",
                2.0,
            )
        except AssertionError:
            continue
        return sent[-1]
    raise AssertionError(f"no stereo pair was matched:\n{matcher.log}")


@pytest.fixture
def stereo(configure: Callable[..., Matcher]) -> Matcher:
    matcher = configure(STEREO)
    prime(matcher)
    return matcher


def test_a_stereo_pair_gives_rows_depths_and_metric_poses(stereo: Matcher) -> None:
    at = stereo.tick()
    send(stereo, pair(1, at))
    matches, rig, left, right = stereo_of(stereo, at)
    assert matches.status == Matches.OK
    assert matches.rectified
    assert (matches.reference, matches.query) == (left.frame, right.frame)
    assert (left.frame.camera_index, right.frame.camera_index) == (0, 1)
    assert (left.frame.frame_id, right.frame.frame_id) == ("left_optical", "right_optical")
    assert matches.header.frame_id == "right_optical"
    assert seconds(matches.query.stamp) == pytest.approx(at)
    # Rows are equal, and the disparity is the room's: focal length x baseline / depth.
    inlier = np.array(matches.inlier, bool)
    assert inlier.sum() > 100
    u, v = np.array(matches.u_ref)[inlier], np.array(matches.v_ref)[inlier]
    disparity = u - np.array(matches.u_query)[inlier]
    assert np.abs(v - np.array(matches.v_query)[inlier]).max() < 1.5
    truth = view(1).depth[np.rint(v).astype(int), np.rint(u).astype(int)]
    depth = MATRIX[0, 0] * BASELINE / disparity
    assert np.median(np.abs(depth - truth) / truth) < 0.02
    # The right keypoint of a match sees the left one's landmark.
    ids = np.array(right.track_ids)[np.array(matches.index_query)]
    np.testing.assert_array_equal(ids, matches.track_ids)
    assert (ids[inlier] >= 0).sum() > 50
    # The pose of the pair is the calibration's.
    assert (rig.method, rig.status) == (RelativePose.STEREO, RelativePose.VALID)
    assert rig.scale_known
    assert rig.pose.pose.position.x == pytest.approx(BASELINE)
    assert rig.num_inliers == inlier.sum()

    pose = next(p for p in stereo.peer.outputs("relative_pose", at) if p.query == left.frame)
    assert (pose.method, pose.status) == (RelativePose.PNP, RelativePose.VALID)
    assert pose.scale_known
    expected = motion(0, 1)
    position = pose.pose.pose.position
    error = np.array([position.x, position.y, position.z]) - expected[:3, 3]
    assert np.linalg.norm(expected[:3, 3]) == pytest.approx(0.094, abs=0.002)
    assert np.linalg.norm(error) < 0.015, "metres"
    spread = np.array(pose.pose.covariance).reshape(6, 6)[:3, :3]
    assert error @ np.linalg.inv(spread) @ error < 11.3  # 99 % of chi-square, 3 degrees of freedom
    status = stereo.peer.output("status", at)
    assert status.received == status.matched
    assert status.unsynchronised == 0


def without_baseline(at: float) -> dict[str, Any]:
    return {"right__camera_info": calibration(at, P_LEFT)}


def swapped(at: float) -> dict[str, Any]:
    return {"right__camera_info": calibration(at, P_RIGHT * ([1, 1, 1, -1] * 3))}


def without_projection(at: float) -> dict[str, Any]:
    return {"right__camera_info": calibration(at, np.zeros(12))}


def uncalibrated(at: float) -> dict[str, Any]:
    message = calibration(at, P_LEFT)
    message.k = [0.0] * 9
    return {"left__camera_info": message}


def of_another_size(at: float) -> dict[str, Any]:
    info = calibration(at, P_RIGHT)
    info.height = HEIGHT // 2
    return {
        "right__image_rect": image_message(view(0).right[: HEIGHT // 2].copy(), at),
        "right__camera_info": info,
    }


def info_of_another_size(at: float) -> dict[str, Any]:
    return {"right__image_rect": image_message(view(0).right[: HEIGHT // 2].copy(), at)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_baseline, "P[3] of the right camera is 0, so the baseline is missing"),
        (swapped, "are left and right swapped?"),
        (without_projection, "P is not set though the image is rectified"),
        (uncalibrated, "left/camera_info is uncalibrated (K[0] = 0): calibrate the stereo pair"),
        (of_another_size, "the right image is 320x120 but the left one is 320x240"),
        (info_of_another_size, "camera_info is for images of 320x240 but the image is 320x120"),
    ],
)
def test_pairs_that_make_no_stereo_camera_are_refused(
    stereo: Matcher, change: Callable[[float], dict[str, Any]], said: str
) -> None:
    before, at = len(stereo.log), stereo.tick()
    send(stereo, pair(0, at, **change(at)))
    refusal = stereo.peer.output("matches", at)
    assert refusal.status == Matches.ERROR
    assert refusal.query.camera_index == 0
    assert "frame refused" in stereo.wait_for_log(said, before)
    good = stereo.tick()
    send(stereo, pair(1, good))
    assert stereo_of(stereo, good)[1].status == RelativePose.VALID


def test_images_that_are_not_rectified_are_said(stereo: Matcher) -> None:
    before, at = len(stereo.log), stereo.tick()
    raw = np.ascontiguousarray(np.roll(view(0).right, 5, axis=0))
    send(stereo, pair(0, at, right__image_rect=image_message(raw, at)))
    _, rig, *_ = stereo_of(stereo, at)
    assert rig.status == RelativePose.REJECTED
    line = stereo.wait_for_log("stereo matches lie on equal rows", before)
    assert "the images are not rectified" in line

    def warned() -> bool:
        said = [s for m in stereo.peer.received["/diagnostics"] for s in m.status]
        return any(
            s.level == DiagnosticStatus.WARN and "not on equal rows" in s.message for s in said
        )

    stereo.peer.wait(warned, "the diagnostics")


def test_a_right_image_that_never_comes_is_named(configure: Callable[..., Matcher]) -> None:
    matcher = configure({**STEREO, "inputs.silent_after": 1.0, "sync.queue": 2})
    before = len(matcher.log)
    prime(matcher)
    started = len(matcher.log)

    def named() -> bool:
        at = matcher.tick()
        send(matcher, pair(0, at, right__image_rect=None))
        return "no right/image_rect on /right/image_rect for" in matcher.log[started:]

    matcher.peer.wait(named, "the warning")
    line = matcher.wait_for_log("no right/image_rect on", before)
    assert "No left image is matched without its right one" in line

    def said_so() -> bool:
        at = matcher.tick()
        send(matcher, pair(0, at, right__image_rect=None))
        said = [s for m in matcher.peer.received["/diagnostics"] for s in m.status]
        return any(s.message == "nothing comes from /right/image_rect" for s in said)

    matcher.peer.wait(said_so, "the diagnostics")
    prime(matcher)
    # The left images that waited in vain are counted.
    matcher.peer.wait(
        lambda: matcher.peer.received["status"][-1].unsynchronised > 2, "the count in the status"
    )


def test_compressed_pairs_whose_calibration_comes_rarely(
    configure: Callable[..., Matcher],
) -> None:
    matcher = configure(
        {**STEREO, "image_transport": "compressed", "inputs.camera_info": "latest",
         "sync.mode": "approximate"}
    )  # fmt: skip
    for k in range(40):
        at = matcher.tick()
        images = {
            "left/image_rect/compressed": compressed_message(view(0).left, at),
            "right/image_rect/compressed": compressed_message(view(0).right, at + 0.005),
        }
        infos = {
            "left/camera_info": calibration(at, P_LEFT),
            "right/camera_info": calibration(at, P_RIGHT),
        }
        send(matcher, {**images, **infos} if k < 3 else images)
        try:
            matcher.peer.wait(lambda at=at: matcher.peer.outputs("features", at), "features", 2.0)
        except AssertionError:
            continue
        break
    right = matcher.peer.wait(
        lambda: [m for m in matcher.peer.received["matches"] if m.kind == Matches.STEREO], "a pair"
    )[-1]
    assert right.status == Matches.OK
    assert sum(right.inlier) > 100
    assert seconds(right.query.stamp) - seconds(right.reference.stamp) == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"inputs__camera_info": "none"}, "inputs.stereo needs the calibration of both cameras"),
        ({"inputs__depth": True}, "inputs.stereo and inputs.depth both give depth"),
    ],
)
def test_settings_that_make_no_stereo_camera(
    configure: Callable[..., Matcher], values: dict[str, Any], said: str
) -> None:
    matcher = configure(STEREO, activate=False)
    assert matcher.cleanup()
    refused = matcher.set(**values)[0]
    assert not refused.successful
    assert said in refused.reason
