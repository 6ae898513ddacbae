"""rosbag2 directories, written and read back in both storage formats."""

from __future__ import annotations

import sqlite3
from contextlib import closing
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


def test_what_a_killed_writer_left_is_overwritten(tmp_path: Path) -> None:
    unfinished = tmp_path / "bag"
    unfinished.mkdir()
    (unfinished / "bag.mcap").write_bytes(b"")
    with pytest.raises(DataError, match="exists already"):
        BagWriter(unfinished)
    with BagWriter(unfinished, overwrite=True) as writer:
        writer.add_topic("/new", TEXT)
    with BagReader(unfinished) as reader:
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


STRING_HASH = "RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18"
QOS = """- history: 1
  depth: 10
  reliability: 1
  durability: 2
  deadline:
    sec: 9223372036
    nsec: 854775807
  lifespan:
    sec: 9223372036
    nsec: 854775807
  liveliness: 1
  liveliness_lease_duration:
    sec: 9223372036
    nsec: 854775807
  avoid_ros_namespace_conventions: false"""


def distribution_bag(path: Path, version: int, qos: str = QOS) -> Path:
    """A bag as ``ros2 bag record`` of Humble (version 5) or Jazzy (9) writes it to SQLite.

    Written with SQLite and YAML alone, by the statements of rosbag2_storage_sqlite3: Humble's files
    have no message definitions and no hashes of types.
    """
    path.mkdir()
    jazzy = version >= 8
    hashes, hash_column = (STRING_HASH,) * jazzy, ", type_description_hash TEXT NOT NULL" * jazzy
    with closing(sqlite3.connect(path / "bag_0.db3")) as database, database:
        if jazzy:
            database.execute(
                "CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT NOT "
                "NULL, encoding TEXT NOT NULL, encoded_message_definition TEXT NOT NULL, "
                "type_description_hash TEXT NOT NULL)"
            )
            database.execute(
                "INSERT INTO message_definitions VALUES(1, ?, 'ros2msg', 'string data', ?)",
                [TEXT, STRING_HASH],
            )
        for statement in (
            "schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL)",
            "metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER NOT NULL, "
            "metadata TEXT NOT NULL)",
            "topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, "
            f"serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL{hash_column})",
            "messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, "
            "timestamp INTEGER NOT NULL, data BLOB NOT NULL)",
        ):
            database.execute(f"CREATE TABLE {statement}")
        database.execute(
            "INSERT INTO schema VALUES(?, ?)", (4, "jazzy") if jazzy else (3, "humble")
        )
        database.execute(
            f"INSERT INTO topics VALUES(1, '/a', ?, 'cdr', ?{', ?' * jazzy})",
            [TEXT, QOS, *hashes],
        )
        for stamp in (10, 20):
            data = bytes(typestore().serialize_cdr(text(f"a{stamp}"), TEXT))
            database.execute(
                "INSERT INTO messages(topic_id, timestamp, data) VALUES(1, ?, ?)", (stamp, data)
            )
    span = {
        "starting_time": {"nanoseconds_since_epoch": 10},
        "duration": {"nanoseconds": 10},
        "message_count": 2,
    }
    topic = {"name": "/a", "type": TEXT, "serialization_format": "cdr"}
    topic["offered_qos_profiles"] = yaml.safe_load(qos) if jazzy else qos
    if jazzy:
        topic["type_description_hash"] = STRING_HASH
    information = {
        "version": version,
        "storage_identifier": "sqlite3",
        **span,
        "topics_with_message_count": [{"topic_metadata": topic, "message_count": 2}],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": ["bag_0.db3"],
        "files": [{"path": "bag_0.db3", **span}],
    }
    if jazzy:
        information |= {"custom_data": None, "ros_distro": "jazzy"}
    (path / "metadata.yaml").write_text(
        yaml.safe_dump({"rosbag2_bagfile_information": information})
    )
    return path


@pytest.mark.parametrize("version", [5, 9])
def test_bags_of_distributions_are_read(version: int, tmp_path: Path) -> None:
    bag = distribution_bag(tmp_path / "bag", version)
    for place in (bag, bag / "bag_0.db3"):
        with BagReader(place) as reader:
            assert [(t.name, t.type, t.count) for t in reader.topics.values()] == [("/a", TEXT, 2)]
            found = [(stamp, m.data) for _, stamp, m in reader.messages(["/a"])]
        assert found == [(10, "a10"), (20, "a20")]


def test_metadata_that_contradict_the_file(tmp_path: Path) -> None:
    """rosbags leaves out a topic whose quality of service differs between metadata and file."""
    bag = distribution_bag(tmp_path / "bag", 5, QOS.replace("depth: 10", "depth: 5"))
    with BagReader(bag) as reader, pytest.raises(DataError, match=r"name the \.mcap or \.db3 file"):
        list(reader.messages(["/a"]))
    with BagReader(bag / "bag_0.db3") as reader:
        assert len(list(reader.messages(["/a"]))) == 2
