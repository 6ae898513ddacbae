"""rosbag2 directories, written and read back in both storage formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from superglue_ros.data.bags import STORAGES, BagReader, BagWriter, message_folder, typestore
from superglue_ros.errors import DataError

TEXT = "std_msgs/msg/String"


def text(value: str) -> Any:
    return typestore().types[TEXT](data=value)


@pytest.fixture(params=STORAGES)
def bag(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "bag"
    with BagWriter(path, request.param) as writer:
        writer.add_topic("/a", TEXT)
        writer.add_topic("/b", TEXT)
        writer.add_topic("/none", TEXT)
        for stamp in (1, 2, 3):
            writer.write("/a", stamp * 10, text(f"a{stamp}"))
            writer.write("/b", stamp * 10 + 5, text(f"b{stamp}"))
    return path


def test_messages_come_back_in_the_order_of_recording(bag: Path) -> None:
    with BagReader(bag) as reader:
        found = [(t, stamp, m.data) for t, stamp, m in reader.messages(["/a", "/b"])]
        only_b = [m.data for _, _, m in reader.messages(["/b"])]
    assert found[:3] == [("/a", 10, "a1"), ("/b", 15, "b1"), ("/a", 20, "a2")]
    assert only_b == ["b1", "b2", "b3"]


def test_topics_have_types_and_counts(bag: Path) -> None:
    with BagReader(bag) as reader:
        assert {t.name: t.count for t in reader.topics.values()} == {"/a": 3, "/b": 3, "/none": 0}
        assert {t.type for t in reader.topics.values()} == {TEXT}
        assert list(reader.messages(["/none"])) == []
        assert list(reader.messages([])) == []


def test_serialised_messages_pass_unchanged(bag: Path, tmp_path: Path) -> None:
    with BagReader(bag) as reader, BagWriter(tmp_path / "copy") as writer:
        writer.add_topic("/a", TEXT)
        before = list(reader.serialised(["/a"]))
        for name, stamp_ns, data in before:
            writer.write_serialised(name, stamp_ns, data)
    with BagReader(tmp_path / "copy") as reader:
        assert [(t, s, bytes(d)) for t, s, d in reader.serialised(["/a"])] == [
            (t, s, bytes(d)) for t, s, d in before
        ]


def test_metadata_is_that_of_jazzy(bag: Path) -> None:
    information = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert information["version"] == 9
    assert information["message_count"] == 6
    assert information["duration"]["nanoseconds"] == 25
    (qos,) = information["topics_with_message_count"][0]["topic_metadata"]["offered_qos_profiles"]
    assert qos["reliability"] == "reliable"


def test_own_messages_are_known(tmp_path: Path) -> None:
    """Every .msg of the package can be written and read."""
    types = {path.stem for path in message_folder().glob("*.msg")}
    assert {"Matches", "RelativePose", "Features", "MatcherStatus", "FrameId"} <= types
    frame = typestore().types["superglue_ros/msg/FrameId"](
        robot="r", camera_index=1, id=7,
        stamp=typestore().types["builtin_interfaces/msg/Time"](sec=3, nanosec=4), frame_id="c",
    )  # fmt: skip
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/f", "superglue_ros/msg/FrameId")
        writer.write("/f", 0, frame)
    with BagReader(tmp_path / "bag") as reader:
        ((_, _, again),) = reader.messages(["/f"])
    assert (again.robot, again.id, again.stamp.nanosec) == ("r", 7, 4)


def test_missing_topic_lists_those_there_are(bag: Path) -> None:
    with BagReader(bag) as reader:
        with pytest.raises(
            DataError, match=r"no topic '/c'. It has:\n  /a \(std_msgs/msg/String, 3"
        ):
            reader.require("/c")
        with pytest.raises(
            DataError, match=r"is a std_msgs/msg/String, not a x/msg/Y or a x/msg/Z"
        ):
            reader.require("/a", ("x/msg/Y", "x/msg/Z"))
        with pytest.raises(DataError, match="no topic '/c'"):
            list(reader.messages(["/c"]))


def test_what_is_no_bag(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        BagReader(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no metadata\.yaml.*reindex"):
        BagReader(tmp_path)
    (tmp_path / "metadata.yaml").write_text("rosbag2_bagfile_information: {version: 99}\n")
    with pytest.raises(DataError, match="cannot be read: Rosbag2 version 99"):
        BagReader(tmp_path)
    (tmp_path / "x.mcap").write_bytes(b"not mcap")
    with pytest.raises(DataError, match="cannot be read"):
        BagReader(tmp_path / "x.mcap")


def test_damaged_bags_are_errors_not_crashes(bag: Path) -> None:
    (file,) = [*bag.glob("*.mcap"), *bag.glob("*.db3")]
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    with pytest.raises(DataError, match="cannot be read"), BagReader(bag) as reader:
        list(reader.messages(["/a"]))


def test_a_single_storage_file_is_enough(bag: Path) -> None:
    (file,) = [*bag.glob("*.mcap"), *bag.glob("*.db3")]
    with BagReader(file) as reader:
        assert [m.data for _, _, m in reader.messages(["/b"])] == ["b1", "b2", "b3"]


def test_only_bags_are_overwritten(bag: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="exists already"):
        BagWriter(bag)
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "thesis.txt").write_text("x")
    with pytest.raises(DataError, match="exists already"):
        BagWriter(folder, overwrite=True)
    assert (folder / "thesis.txt").is_file()
    with BagWriter(bag, overwrite=True) as writer:
        writer.add_topic("/new", TEXT)
    with BagReader(bag) as reader:
        assert list(reader.topics) == ["/new"]


def test_unknown_storage_and_type(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="storage 'zip' is unknown: known are mcap, sqlite3"):
        BagWriter(tmp_path / "bag", "zip")
    with BagWriter(tmp_path / "bag") as writer, pytest.raises(DataError, match="'a/msg/B'"):
        writer.add_topic("/x", "a/msg/B")


def test_arrays_keep_their_types(tmp_path: Path) -> None:
    kind = "std_msgs/msg/Float32MultiArray"
    types = typestore().types
    layout = types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    values = np.array([1.5, -2.0], np.float32)
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/x", kind)
        writer.write("/x", 0, types[kind](layout=layout, data=values))
    with BagReader(tmp_path / "bag") as reader:
        ((_, _, message),) = reader.messages(["/x"])
    assert message.data.dtype == np.float32
    np.testing.assert_array_equal(message.data, values)
