"""Bad input: a clear message, Matches with status ERROR, and the next good frame works."""

from __future__ import annotations

import array
from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from diagnostic_msgs.msg import DiagnosticStatus
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
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from superglue_ros.msg import Features, Matches, RelativePose

pytestmark = pytest.mark.ros


def assert_refused(matcher: Matcher, at: float, said: str, before: int, **good: object) -> None:
    """The frame of that stamp was refused with these words, and a good one goes through."""
    refusal = matcher.peer.output("matches", at)
    assert refusal.status == Matches.ERROR
    assert len(refusal.u_ref) == 0
    assert seconds(refusal.query.stamp) == pytest.approx(at)
    assert refusal.query.id > 0
    assert refusal.reference.id == 0
    assert "frame refused" in matcher.wait_for_log(said, before)
    assert matcher.peer.output("status", at).refused > 0
    later = matcher.tick()
    matcher.peer.send(later, **{topic: make(later) for topic, make in good.items()})  # type: ignore[operator]
    assert matcher.peer.output("matches", later).status == Matches.OK


def zero_size(at: float) -> Image:
    message = image_message(picture(), at)
    message.height = 0
    return message


def unknown_encoding(at: float) -> Image:
    return image_message(picture(), at, "chromatic7")


def short_data(at: float) -> Image:
    message = image_message(picture(), at)
    message.data = message.data[: len(message.data) // 2]
    return message


def short_step(at: float) -> Image:
    message = image_message(picture(), at)
    message.step = WIDTH // 2
    return message


def long_step(at: float) -> Image:
    message = image_message(picture(), at)
    message.step = WIDTH * 3
    return message


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (zero_size, "zero size: 200x0"),
        (unknown_encoding, "encoding 'chromatic7' is unknown: known are"),
        (short_data, "has 15000 bytes of data, but 150 rows of step 200 take 30000"),
        (short_step, "has step 100, but a row of 200 pixels of mono8 takes 200 bytes"),
        (long_step, "has 30000 bytes of data, but 150 rows of step 600 take 90000"),
    ],
)
def test_malformed_images(matcher: Matcher, make: Callable[[float], Image], said: str) -> None:
    before, at = len(matcher.log), matcher.tick()
    matcher.peer.send(at, image=make(at))
    assert_refused(matcher, at, said, before)


def other_size(at: float) -> CameraInfo:
    return camera_info(at, width=640, height=480)


def nan_focal_length(at: float) -> CameraInfo:
    message = camera_info(at)
    message.k[0] = float("nan")
    return message


def unknown_model(at: float) -> CameraInfo:
    message = camera_info(at)
    message.distortion_model = "kaleidoscope"
    return message


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (other_size, "camera_info is for images of 640x480 but the image is 200x150"),
        (nan_focal_length, "NaN or infinite"),
        (unknown_model, "'kaleidoscope' is unknown"),
    ],
)
def test_calibrations_that_do_not_fit(
    matcher: Matcher, make: Callable[[float], CameraInfo], said: str
) -> None:
    before, at = len(matcher.log), matcher.tick()
    matcher.peer.send(at, camera_info=make(at))
    assert_refused(matcher, at, said, before)


def test_a_frame_larger_than_the_limit(matcher: Matcher) -> None:
    before, at = len(matcher.log), matcher.tick()
    assert matcher.set(limits__max_pixels=WIDTH * HEIGHT)[0].successful
    try:
        large = np.zeros((HEIGHT + 1, WIDTH), np.uint8)
        matcher.peer.send(at, image=image_message(large, at))
        assert_refused(matcher, at, "has more than 30000 pixels", before)
    finally:
        assert matcher.set(limits__max_pixels=25_000_000)[0].successful


def test_compressed_data_that_is_no_image(configure: Callable[..., Matcher]) -> None:
    matcher = configure({"image_transport": "compressed"})

    def good(at: float) -> CompressedImage:
        return compressed_message(picture(), at)

    matcher.prime(image=good)
    for data in (b"", b"this is no picture"):
        before, at = len(matcher.log), matcher.tick()
        bad = good(at)
        bad.data = array.array("B", data)
        matcher.peer.send(at, image=bad)
        said = "cannot be decoded" if data else "has no data"
        assert_refused(matcher, at, said, before, image=good)


POINTS = np.random.default_rng(3).uniform((10, 10), (190, 140), (60, 2))


def good_keypoints(at: float) -> Features:
    return keypoints_message(POINTS, at)


def nan_keypoints(at: float) -> Features:
    points = POINTS.copy()
    points[3:5, 0] = np.nan
    return keypoints_message(points, at)


def outside_keypoints(at: float) -> Features:
    return keypoints_message(POINTS + 1000, at)


def ragged_keypoints(at: float) -> Features:
    message = good_keypoints(at)
    message.v = message.v[:-1]
    return message


def described(at: float, detector: str, dim: int, size: int) -> Features:
    message = good_keypoints(at)
    message.detector = detector
    message.descriptor_dim = dim
    message.descriptors = np.ones(size, np.float32).tobytes()
    return message


def foreign_descriptors(at: float) -> Features:
    return described(at, "surf", 128, len(POINTS) * 128)


def descriptors_of_another_size(at: float) -> Features:
    return described(at, "sift-root", 64, len(POINTS) * 64)


def too_few_descriptor_bytes(at: float) -> Features:
    return described(at, "sift-root", 128, 7)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (nan_keypoints, "2 of 60 keypoints are NaN or infinite"),
        (outside_keypoints, "outside the 200x150 image"),
        (ragged_keypoints, "59 values of v for 60 of u"),
        (foreign_descriptors, "descriptors are sift-root (128) but the query's are surf (128)"),
        (descriptors_of_another_size, "but the query's are sift-root (64)"),
        (too_few_descriptor_bytes, "descriptors have 28 bytes, but 60 keypoints"),
    ],
)
def test_keypoints_that_do_not_fit(
    configure: Callable[..., Matcher], make: Callable[[float], Features], said: str
) -> None:
    matcher = configure({"inputs.keypoints": True})
    matcher.prime(keypoints=good_keypoints)
    before, at = len(matcher.log), matcher.tick()
    matcher.peer.send(at, keypoints=make(at))
    assert_refused(matcher, at, said, before, keypoints=good_keypoints)


def test_zero_one_and_a_hundred_thousand_keypoints(configure: Callable[..., Matcher]) -> None:
    # Lossless, because best effort may lose a part of a message of more than a megabyte.
    matcher = configure({"inputs.keypoints": True, "intake.mode": "lossless"})
    matcher.prime(keypoints=good_keypoints)
    expected = {0: Matches.NO_KEYPOINTS_QUERY, 1: Matches.FEW}
    for count, status in expected.items():
        at = matcher.tick()
        matcher.peer.send(at, keypoints=keypoints_message(POINTS[:count], at))
        assert matcher.peer.output("matches", at).status == status
        pose = matcher.peer.output("relative_pose", at)
        assert pose.status in (RelativePose.FEW, RelativePose.LOST)
        assert pose.num_inliers == 0
        assert np.isnan([pose.median_epipolar_px, pose.median_parallax_rad]).all()
        assert len(matcher.peer.output("features", at).u) == count
    before, at = len(matcher.log), matcher.tick()
    many = np.random.default_rng(4).uniform((1, 1), (198, 148), (100_000, 2))
    message = keypoints_message(many, at)
    scores = np.random.default_rng(5).uniform(0, 1, 100_000).astype(np.float32)
    message.scores = array.array("f", scores.tobytes())
    matcher.peer.send(at, keypoints=message)
    kept = matcher.peer.output("features", at)
    assert len(kept.u) == 300
    assert min(kept.scores) == pytest.approx(np.sort(scores)[-300])
    matcher.wait_for_log("100000 keypoints came, the best 300 are used", before)
    assert matcher.peer.output("matches", at).status != Matches.ERROR


@pytest.mark.parametrize("sigma", [np.nan, -1.0, 0.0])
def test_the_first_frame_of_all_with_nonsense_is_no_keyframe(
    configure: Callable[..., Matcher], sigma: float
) -> None:
    """It became the first keyframe, and all good frames after it were refused."""
    matcher = configure({"inputs.keypoints": True, "intake.mode": "lossless"})
    at, bad = matcher.tick(), []

    def spoilt(at: float) -> Features:
        message = good_keypoints(at)
        message.sigma_px = array.array("f", [sigma] * len(POINTS))
        return message

    for topic, kind in (("keypoints", Features), ("image", Image), ("camera_info", CameraInfo)):
        matcher.peer.publisher(topic, kind)
    matcher.peer.send(at, keypoints=spoilt(at))
    assert matcher.peer.output("matches", at).status == Matches.ERROR
    for _ in range(5):
        at = matcher.tick()
        matcher.peer.send(at, keypoints=good_keypoints(at))
        bad += [m for m in [matcher.peer.output("status", at)] if m.refused > 1]
    assert not bad


def test_absurd_depth_counts_as_unknown(configure: Callable[..., Matcher]) -> None:
    matcher = configure({"inputs.depth": True, "intake.mode": "lossless"})

    def depth(metres: float) -> Callable[[float], Image]:
        return lambda at: image_message(np.full((HEIGHT, WIDTH), metres, np.float32), at, "32FC1")

    matcher.prime(depth=depth(1e30))
    at = matcher.tick()
    matcher.peer.send(at, shift=5, depth=depth(2.0)(at))
    assert matcher.peer.output("matches", at).status == Matches.OK
    assert matcher.peer.output("status", at).refused == 0


def absurd_principal_point(at: float) -> CameraInfo:
    message = camera_info(at)
    message.k[2] = 1e160
    return message


def long_name(at: float) -> Image:
    message = image_message(picture(), at)
    message.header.frame_id = "x" * 100_000
    return message


def test_absurd_calibrations_and_names_are_refused_and_counted(matcher: Matcher) -> None:
    for topic, make, said in (
        ("camera_info", absurd_principal_point, "which no camera has"),
        ("image", long_name, "at most 256 characters"),
    ):
        before, at = len(matcher.log), matcher.tick()
        matcher.peer.send(at, **{topic: make(at)})
        assert_refused(matcher, at, said, before)
        assert "Traceback" not in matcher.log[before:]
    at = matcher.prime()
    status = matcher.peer.output("status", at)
    assert status.received == status.matched + status.dropped + status.refused


def test_other_robots_nonsense_is_counted_and_goes_no_further(
    configure: Callable[..., Matcher],
) -> None:
    matcher = configure({"inputs.peers": True, "intake.mode": "lossless"})
    at = matcher.prime()
    own = next(f for f in matcher.peer.received["features"])
    start = matcher.peer.output("status", at)
    rng = np.random.default_rng(0)

    def features(**changes: object) -> Features:
        message = keypoints_message(POINTS, 1.0)
        message.detector, message.descriptor_dim = own.detector, 128
        message.frame.robot, message.frame.id = "other", 1
        message.descriptors = rng.random((len(POINTS), 128), np.float32).tobytes()
        message.k = camera_info(1.0).k
        for name, value in changes.items():
            setattr(message, name, value)
        return message

    absurd = camera_info(1.0).k
    absurd[2] = 1e160
    beyond = features()
    beyond.frame.id = 2**64 - 1
    messages = [
        features(k=absurd), beyond, features(sigma_px=[np.nan] * len(POINTS)), features(),
        features(detector="x" * 10_000),
    ]  # fmt: skip
    publisher = matcher.peer.publisher("peer_features", Features)
    for message in messages:
        publisher.publish(message)

    def accounted_for() -> bool:
        status = matcher.peer.received["status"][-1]
        done = status.matched + status.dropped + status.refused
        return status.received == done >= start.matched + start.dropped + len(messages)

    matcher.peer.wait(accounted_for, "every message of the other robot")
    matcher.prime()
    assert matcher.peer.received["status"][-1].refused == start.refused + 4
    assert "Traceback" not in matcher.log


def test_a_mistake_in_new_words_each_time_does_not_flood_the_log(matcher: Matcher) -> None:
    """The key of the throttle held what the sender wrote."""
    before = len(matcher.log)
    for number in range(60):
        at = matcher.tick()
        matcher.peer.send(at, image=image_message(picture(), at, f"{number}encoding{number}"))
        assert matcher.peer.output("matches", at).status == Matches.ERROR
    assert 1 <= matcher.log[before:].count("frame refused") <= 5


def test_the_same_mistake_does_not_flood_the_log(matcher: Matcher) -> None:
    before = len(matcher.log)
    for _ in range(30):
        at = matcher.tick()
        matcher.peer.send(at, image=unknown_encoding(at))
        assert matcher.peer.output("matches", at).status == Matches.ERROR
    assert 1 <= matcher.log[before:].count("frame refused") <= 5


def test_one_calibration_an_hour_ahead_costs_one_frame(configure: Callable[..., Matcher]) -> None:
    """All frames that waited for their calibrations were lost, and the whole map was dropped."""
    matcher = configure({"intake.mode": "lossless"})
    start = matcher.peer.output("status", matcher.prime())
    stamps = [matcher.tick() for _ in range(20)]
    for number, at in enumerate(stamps):
        info = camera_info(at + 3600) if number == 3 else camera_info(at)
        matcher.peer.send(at, camera_info=info)
    for number, at in enumerate(stamps):
        if number != 3:
            assert matcher.peer.output("matches", at).status == Matches.OK
    status = matcher.peer.output("status", stamps[-1])
    assert status.resets == start.resets
    assert status.refused == start.refused


def test_a_lossless_queue_is_bounded_and_says_so(configure: Callable[..., Matcher]) -> None:
    """It grew without a bound, and diagnostics said OK."""
    matcher = configure({"intake.mode": "lossless", "intake.max_mib": 1})
    at = matcher.prime()
    start = matcher.peer.output("status", at)
    count = 300  # 30 kB each: nine times the bound
    image, info = (
        matcher.peer.publisher("image", Image),
        matcher.peer.publisher("camera_info", CameraInfo),
    )
    for _ in range(count):
        at = matcher.tick()
        info.publish(camera_info(at))
        image.publish(image_message(picture(), at))

    def accounted_for() -> bool:
        status = matcher.peer.received["status"][-1]
        done = status.matched + status.dropped + status.refused
        return status.received == done >= start.received + count * 0.9

    def said() -> bool:
        return any(
            status.level == DiagnosticStatus.ERROR and "intake.max_mib" in status.message
            for message in matcher.peer.received["/diagnostics"]
            for status in message.status
        )

    matcher.peer.wait(said, "diagnostics of a full queue")
    matcher.peer.wait(accounted_for, "every frame")
    assert matcher.peer.received["status"][-1].dropped > 0
