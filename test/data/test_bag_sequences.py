"""Sequences into bags and back."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from superglue_ros.data.bag_sequences import (
    CAMERA_INFO,
    IMAGE,
    BagSequence,
    SequenceTopics,
    depth_of,
    image_of,
    write_bag,
)
from superglue_ros.data.bags import BagReader, BagWriter, typestore
from superglue_ros.data.sequences.base import SequenceItem
from superglue_ros.errors import DataError
from superglue_ros.geometry.camera import Camera

CAMERA = Camera(
    8, 6, np.array([[10.0, 0, 3.5], [0, 11, 2.5], [0, 0, 1]]), np.array([0.1, 0, 0, 0.01])
)


class Memory:
    """Three frames: a smooth image, depth except for the second, pose except for the third."""

    name = "memory"

    def __init__(self, colour: bool = True) -> None:
        self._colour = colour

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[SequenceItem]:
        for index in range(3):
            ramp = np.add.outer(np.arange(6), np.arange(8)).astype(np.uint8) * 10 + index
            image = np.stack([ramp, ramp + 1, ramp + 2], axis=2) if self._colour else ramp
            depth = None if index == 1 else np.full((6, 8), 1.25 + index, np.float32)
            pose = np.eye(4)
            pose[:3, 3] = (index, 2, 3)
            stamp_ns = 5_000_000_000 + index * 100_000_000
            yield SequenceItem(stamp_ns, image, CAMERA, depth, pose if index < 2 else None)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("colour", [True, False])
def test_sequences_survive(tmp_path: Path, storage: str, colour: bool) -> None:
    write_bag(Memory(colour), tmp_path / "bag", storage=storage)
    again = BagSequence(tmp_path / "bag", depth=SequenceTopics.depth)
    assert len(again) == 3
    for item, expected in zip(again, Memory(colour), strict=True):
        assert item.stamp_ns == expected.stamp_ns
        np.testing.assert_array_equal(item.image, expected.image)
        assert item.camera is not None
        np.testing.assert_array_equal(item.camera.matrix, CAMERA.matrix)
        np.testing.assert_allclose(item.camera.distortion[:4], CAMERA.distortion)
        assert (item.depth is None) == (expected.depth is None)
        if expected.depth is not None:
            np.testing.assert_allclose(item.depth, expected.depth, atol=5e-4)
        assert (item.T_world_camera is None) == (expected.T_world_camera is None)
        if expected.T_world_camera is not None:
            np.testing.assert_allclose(item.T_world_camera, expected.T_world_camera)


def test_compressed_images_have_a_topic_of_their_own(tmp_path: Path) -> None:
    progress: list[int] = []
    write_bag(Memory(), tmp_path / "bag", jpeg_quality=95, progress=progress.append)
    sequence = BagSequence(tmp_path / "bag")
    assert sequence.topics.image == "/camera/image_raw/compressed"
    assert sequence.topics.camera_info == "/camera/camera_info"
    for item, expected in zip(sequence, Memory(), strict=True):
        assert np.abs(item.image.astype(int) - expected.image.astype(int)).mean() < 5
        assert item.depth is None
    assert progress == [1, 2, 3]


def test_topics_can_be_renamed_and_left_out(tmp_path: Path) -> None:
    topics = SequenceTopics("/cam/image", "", "", "/truth")
    write_bag(Memory(), tmp_path / "bag", topics)
    with BagReader(tmp_path / "bag") as bag:
        assert set(bag.topics) == {"/cam/image", "/truth"}
    sequence = BagSequence(tmp_path / "bag")
    assert sequence.camera is None
    assert sequence.trajectory is None  # not the usual name: it must be named
    named = BagSequence(tmp_path / "bag", ground_truth="/truth")
    assert named.trajectory is not None
    assert len(named.trajectory) == 2


def test_single_images_are_found_by_stamp(tmp_path: Path) -> None:
    write_bag(Memory(), tmp_path / "bag")
    frames = {item.stamp_ns: item.image for item in Memory()}
    wanted = sorted(frames)[1]
    found = BagSequence(tmp_path / "bag").images_at({wanted, 12345})
    assert list(found) == [wanted]
    np.testing.assert_array_equal(found[wanted], frames[wanted])


def test_distant_depth_is_unknown_not_wrapped(tmp_path: Path) -> None:
    class Far(Memory):
        def __iter__(self) -> Iterator[SequenceItem]:
            image = np.zeros((6, 8), np.uint8)
            depth = np.full((6, 8), 70.0, np.float32)
            depth[0] = np.nan
            depth[1] = 65.0
            yield SequenceItem(0, image, None, depth, None)

    write_bag(Far(), tmp_path / "bag")
    (item,) = BagSequence(tmp_path / "bag", depth=SequenceTopics.depth)
    assert item.depth is not None
    np.testing.assert_allclose(item.depth[:3, 0], [0, 65, 0])


def test_ambiguous_and_missing_image_topics_are_listed(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "two") as writer:
        for name in ("/left/image_raw", "/right/image_raw"):
            writer.add_topic(name, IMAGE)
            writer.write(name, 0, image_message(np.zeros((6, 8), np.uint8), "mono8"))
    with pytest.raises(DataError, match=r"has 2 image topics: say which one[^/]*/left/image_raw"):
        BagSequence(tmp_path / "two")
    assert len(BagSequence(tmp_path / "two", image="/left/image_raw")) == 1
    with pytest.raises(DataError, match=r"no topic '/top'"):
        BagSequence(tmp_path / "two", image="/top")
    with BagWriter(tmp_path / "none") as writer:
        writer.add_topic("/camera_info", CAMERA_INFO)
    with pytest.raises(DataError, match="has no image topic"):
        BagSequence(tmp_path / "none")


def image_message(image: np.ndarray, encoding: str, step: int | None = None) -> object:
    types = typestore().types
    header = types["std_msgs/msg/Header"](
        stamp=types["builtin_interfaces/msg/Time"](sec=1, nanosec=2), frame_id="c"
    )
    rows = np.ascontiguousarray(image).view(np.uint8).reshape(image.shape[0], -1)
    if step is not None:
        rows = np.pad(rows, ((0, 0), (0, step - rows.shape[1])), constant_values=99)
    return types[IMAGE](
        header=header,
        height=image.shape[0],
        width=image.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=rows.shape[1],
        data=rows.ravel(),
    )


def test_padded_rows_are_compacted() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(6, 8)
    np.testing.assert_array_equal(image_of(image_message(image, "mono8", step=12)), image)
    colour = np.arange(144, dtype=np.uint8).reshape(6, 8, 3)
    np.testing.assert_array_equal(
        image_of(image_message(colour, "rgb8", step=32)), colour[:, :, ::-1]
    )
    depth = np.arange(48, dtype=np.uint16).reshape(6, 8)
    np.testing.assert_allclose(depth_of(image_message(depth, "16UC1", step=20)), depth / 1000)


def test_bayer_images_are_turned_into_colour() -> None:
    grey = np.full((6, 8), 120, np.uint8)
    image = image_of(image_message(grey, "bayer_rggb8"))
    assert image.shape == (6, 8, 3)
    assert abs(int(image.mean()) - 120) <= 1


@pytest.mark.parametrize(
    ("encoding", "dtype"), [("mono8", np.uint8), ("32FC1", np.float32), ("16UC1", np.uint16)]
)
def test_short_data_is_refused(encoding: str, dtype: type) -> None:
    read = image_of if encoding == "mono8" else depth_of
    message = image_message(np.zeros((6, 8), dtype), encoding)
    for name, value, said in (
        ("height", 9, "but 9 rows of step"),
        ("height", 0, "zero size: 8x0"),
        ("width", 9, "but a row of 9 pixels"),
    ):
        damaged = copy.copy(message)
        setattr(damaged, name, value)
        with pytest.raises(DataError, match=said):
            read(damaged)


def test_unknown_encodings_are_refused() -> None:
    with pytest.raises(DataError, match="cannot be decoded"):
        image_of(image_message(np.zeros((6, 8), np.uint8), "smell8"))
    with pytest.raises(DataError, match="depth encoding 'mono8' is unknown"):
        depth_of(image_message(np.zeros((6, 8), np.uint8), "mono8"))


def test_damaged_jpeg_is_refused() -> None:
    types = typestore().types
    header = types["std_msgs/msg/Header"](
        stamp=types["builtin_interfaces/msg/Time"](sec=0, nanosec=0), frame_id=""
    )
    _, data = cv2.imencode(".jpg", np.zeros((6, 8), np.uint8))
    message = types["sensor_msgs/msg/CompressedImage"](
        header=header, format="jpeg", data=np.asarray(data).ravel()[:20]
    )
    with pytest.raises(DataError, match="cannot be decoded"):
        image_of(message)
