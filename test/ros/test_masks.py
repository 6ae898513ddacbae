"""Masks: what moves with the camera, as the robot's own body does, is not matched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from matcher_process import HEIGHT, WIDTH, Matcher, image_message, keypoints_message
from sensor_msgs.msg import Image
from skimage import data

from superglue_ros.errors import ConfigError
from superglue_ros.msg import Matches
from superglue_ros.ros.node_config import InputsConfig, NodeConfig

pytestmark = pytest.mark.ros

PHOTOGRAPH = cv2.resize(data.camera(), (400, 400), interpolation=cv2.INTER_AREA)
BODY = HEIGHT - 50  # the robot's own body fills the rows from here on
BODY_PICTURE = cv2.resize(data.coins(), (WIDTH, HEIGHT - BODY), interpolation=cv2.INTER_AREA)
MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
MASK[:BODY] = 255


def view(at: float, shift: int = 0) -> Image:
    """The photograph from a camera that moved, with the robot's body in the foreground."""
    image = PHOTOGRAPH[100 : 100 + HEIGHT, 100 + shift : 100 + shift + WIDTH].copy()
    image[BODY:] = BODY_PICTURE
    return image_message(image, at)


def mask(at: float) -> Image:
    return image_message(MASK, at)


def motions(matches: Matches) -> np.ndarray:
    """(K,) pixels that each match moved to the right."""
    return np.subtract(matches.u_query, matches.u_ref)


def test_the_body_is_matched_without_a_mask(configure: Callable[..., Matcher]) -> None:
    """So that the tests below mean something."""
    matcher = configure()
    matcher.prime(image=view)
    at = matcher.tick()
    matcher.peer.send(at, image=view(at, 8))
    moved = motions(matcher.peer.output("matches", at))
    assert np.count_nonzero(np.abs(moved) < 0.5) > 20
    assert np.count_nonzero(np.abs(moved + 8) < 0.5) > 20
    assert matcher.peer.output("status", at).masked == 0


def assert_the_body_is_not_matched(matcher: Matcher, at: float) -> None:
    matches = matcher.peer.output("matches", at)
    assert matches.status == Matches.OK
    moved = motions(matches)
    assert np.count_nonzero(np.abs(moved + 8) < 0.5) > 20
    assert not np.count_nonzero(np.abs(moved) < 0.5)
    features = matcher.peer.output("features", at)
    assert max(features.v) < BODY - 0.5
    np.testing.assert_array_equal(np.array(features.u)[matches.index_query], matches.u_query)
    assert matcher.peer.output("status", at).masked > 20


def test_a_mask_of_each_image(configure: Callable[..., Matcher]) -> None:
    matcher = configure({"inputs.mask": True})
    matcher.prime(image=view, mask=mask)
    at = matcher.tick()
    matcher.peer.send(at, image=view(at, 8), mask=mask(at))
    assert_the_body_is_not_matched(matcher, at)


def test_a_mask_file_and_a_mask_of_each_image(
    configure: Callable[..., Matcher], tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "body.png"), MASK // 255)  # 1 is as good as 255
    matcher = configure({"inputs.mask_file": str(tmp_path / "body.png"), "inputs.mask": True})
    left = np.zeros((HEIGHT, WIDTH), np.uint8)
    left[:, : WIDTH // 2] = 1

    def send(at: float, usable: np.ndarray) -> None:
        matcher.peer.send(at, image=view(at, 8), mask=image_message(usable, at))

    matcher.prime(image=view, mask=lambda at: image_message(np.ones_like(MASK), at))
    at = matcher.tick()
    send(at, np.ones_like(MASK))
    assert_the_body_is_not_matched(matcher, at)
    at = matcher.tick()
    send(at, left)
    features = matcher.peer.output("features", at)
    assert max(features.v) < BODY - 0.5
    assert max(features.u) < WIDTH // 2 - 0.5
    # Nothing is left: an answer all the same, and a word about the likely mistake.
    before, at = len(matcher.log), matcher.tick()
    send(at, np.zeros_like(MASK))
    assert matcher.peer.output("matches", at).status == Matches.NO_KEYPOINTS_QUERY
    matcher.wait_for_log("the mask leaves no pixel of the image", before)


def test_keypoints_of_an_outside_front_end_are_masked(configure: Callable[..., Matcher]) -> None:
    matcher = configure({"inputs.keypoints": True, "inputs.mask": True})
    x, y = np.meshgrid(np.arange(20, WIDTH - 20, 10), np.arange(20, HEIGHT - 10, 10))
    grid = np.column_stack((x.ravel(), y.ravel()))
    at = matcher.prime(image=view, mask=mask, keypoints=lambda at: keypoints_message(grid, at))
    features = matcher.peer.output("features", at)
    kept = grid[grid[:, 1] < BODY]
    np.testing.assert_array_equal(np.column_stack((features.u, features.v)), kept)
    first, status = len(grid) - len(kept), matcher.peer.output("status", at)
    assert status.masked == first * status.matched


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda at: image_message(MASK[:-1], at), "mask is 200x149 but the image is 200x150"),
        (lambda at: image_message(np.dstack([MASK] * 3), at, "rgb8"), "mask encoding 'rgb8'"),
        (lambda at: Image(header=mask(at).header, encoding="mono8"), "mask has zero size"),
    ],
)
def test_masks_that_do_not_fit(
    configure: Callable[..., Matcher], make: Callable[[float], Image], said: str
) -> None:
    matcher = configure({"inputs.mask": True})
    matcher.prime(image=view, mask=mask)
    before, at = len(matcher.log), matcher.tick()
    matcher.peer.send(at, image=view(at), mask=make(at))
    assert matcher.peer.output("matches", at).status == Matches.ERROR
    assert "frame refused" in matcher.wait_for_log(said, before)
    at = matcher.tick()
    matcher.peer.send(at, image=view(at), mask=mask(at))
    assert matcher.peer.output("matches", at).status == Matches.OK


def test_mask_files_that_do_not_fit(
    configure: Callable[..., Matcher], shared: Matcher, tmp_path: Path
) -> None:
    small, empty = str(tmp_path / "small.png"), str(tmp_path / "empty.png")
    cv2.imwrite(small, MASK[:-1])
    cv2.imwrite(empty, MASK * 0)
    matcher = configure({"inputs.mask_file": small})
    before, at = len(matcher.log), matcher.tick()
    matcher.peer.send(at, image=view(at))
    assert "small.png is 200x149 but the image is 200x150" in matcher.wait_for_log(
        "frame refused", before
    )
    assert matcher.deactivate()
    assert matcher.cleanup()
    for path, said in (
        (empty, "empty.png is zero everywhere: nonzero pixels are used"),
        (str(tmp_path / "absent.png"), "absent.png does not exist"),
    ):
        assert shared.set_parameters({"inputs.mask_file": path})[0].successful
        before = len(shared.log)
        assert not shared.configure()
        assert said in shared.wait_for_log("cannot be configured: inputs.mask_file", before)


def test_mask_files_of_several_cameras() -> None:
    config = NodeConfig(cameras="a,b", inputs=InputsConfig(mask_file="a.png, "))
    assert config.mask_files == ("a.png", "")
    assert NodeConfig(cameras="a,b").mask_files == ("", "")
    with pytest.raises(ConfigError, match="names 1 files for 2 cameras"):
        NodeConfig(cameras="a,b", inputs=InputsConfig(mask_file="a.png"))
