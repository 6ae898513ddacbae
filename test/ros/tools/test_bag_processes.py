"""Player and recorder as processes over real DDS."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from superglue_ros.data.bag_sequences import IMAGE, SequenceTopics, write_bag
from superglue_ros.data.bags import BagReader, BagWriter, typestore
from superglue_ros.data.sequences.base import SequenceItem
from superglue_ros.geometry.camera import Camera

pytestmark = pytest.mark.ros

CAMERA = Camera(64, 48, np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]]), np.zeros(0))
PATIENCE = 60


class Noise:
    name = "noise"

    def __len__(self) -> int:
        return 5

    def __iter__(self):
        rng = np.random.default_rng(0)
        for index in range(5):
            image = rng.integers(0, 256, (48, 64, 3), np.uint8)
            stamp_ns = 7_000_000_000 + index * 50_000_000
            yield SequenceItem(stamp_ns, image, CAMERA, None, np.eye(4))


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"superglue_ros.ros.tools.{module}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    write_bag(Noise(), tmp_path / "bag", SequenceTopics(depth=""))
    return tmp_path / "bag"


def test_what_is_played_is_recorded(bag: Path, tmp_path: Path, domain: int) -> None:
    """Every byte, in order, and the recorded clock is that of the bag."""
    names = ["/camera/image_raw", "/camera/camera_info", "/ground_truth/pose"]
    recorder = start(
        "bag_recorder", str(tmp_path / "copy"), *names, "--storage", "sqlite3",
        *("--ros-args", "-p", "use_sim_time:=true"),
    )  # fmt: skip
    player = start("bag_player", str(bag), "--wait-for", *names, "--patience", str(PATIENCE))
    try:
        said, errors = player.communicate(timeout=PATIENCE)
        assert player.returncode == 0, errors
        assert said.splitlines()[-1] == '{"published": 5, "answered": 0}'
    finally:
        recorder.send_signal(signal.SIGINT)
        said, errors = recorder.communicate(timeout=PATIENCE)
        player.kill()
    assert recorder.returncode == 0, errors
    assert said.splitlines()[0] == "ready"
    with BagReader(bag) as before, BagReader(tmp_path / "copy") as after:
        for name in names:
            played = [bytes(data) for _, _, data in before.serialised([name])]
            recorded = [bytes(data) for _, _, data in after.serialised([name])]
            assert len(recorded) == len(played) == 5
            for sent, got in zip(played, recorded, strict=True):
                # Behind the 4 bytes of the encapsulation; DDS pads to a multiple of 4.
                assert got[4 : len(sent)] == sent[4:]
                assert len(got) - len(sent) < 4
        stamps = [stamp for _, stamp, _ in after.serialised([names[0]])]
    assert all(7_000_000_000 <= stamp <= 7_500_000_000 for stamp in stamps[1:])


def fails(module: str, *arguments: str) -> str:
    process = start(module, *arguments)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    return errors


def test_the_player_says_what_is_wrong(bag: Path, tmp_path: Path, domain: int) -> None:
    errors = fails("bag_player", str(bag), "--topics", "/nothing")
    assert "no topic '/nothing'. It has:\n  /camera/camera_info" in errors
    image = "/camera/image_raw"
    errors = fails("bag_player", str(bag), "--wait-for", image, "--patience", "0.5")
    assert "no subscriber on /camera/image_raw within 0 s" in errors
    errors = fails("bag_player", str(bag), "--max-in-flight", "1", "--patience", "0.5")
    assert "the matcher answered 0 of 1 frames" in errors


def test_the_recorder_says_what_is_wrong(tmp_path: Path, domain: int) -> None:
    errors = fails("bag_recorder", str(tmp_path / "bag"), "/nothing", "--patience", "0.5")
    assert "no publisher on /nothing" in errors
    with BagReader(tmp_path / "bag") as reader:
        assert not reader.topics


def test_types_that_are_not_installed_are_named(tmp_path: Path, domain: int) -> None:
    from rosbags.typesys import get_types_from_msg

    store = typestore()
    store.register(get_types_from_msg("int32 x", "strange_msgs/msg/Thing"))
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/thing", "strange_msgs/msg/Thing")
        writer.add_topic("/image", IMAGE)
    errors = fails("bag_player", str(tmp_path / "bag"))
    assert "strange_msgs/msg/Thing is not installed" in errors
