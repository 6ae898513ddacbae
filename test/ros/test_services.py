"""Services of the running process, and a rig of several cameras."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from matcher_process import (
    Matcher,
    camera_info,
    image_message,
    picture,
)
from safetensors import safe_open
from safetensors.numpy import save_file
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger

from superglue_ros.config import KeyframesConfig
from superglue_ros.mapping import map_io
from superglue_ros.mapping.keyframes import KeyframeStore
from superglue_ros.msg import Matches
from superglue_ros.srv import AddKeyframe, LoadMap, MatchPair, SaveMap

pytestmark = pytest.mark.ros


def call(matcher: Matcher, name: str, kind: type, **request: object) -> object:
    return matcher.peer.call(f"{matcher.name}/{name}", kind, kind.Request(**request))


def pair(matcher: Matcher, shift: int, **other: object) -> MatchPair.Response:
    request = {
        "reference": image_message(picture(), 1.0),
        "query": image_message(picture(shift), 1.5),
        "reference_info": camera_info(1.0),
        "query_info": camera_info(1.5),
        **other,
    }
    return call(matcher, "match_pair", MatchPair, **request)  # type: ignore[return-value]


def test_match_pair(matcher: Matcher) -> None:
    keyframes = matcher.peer.output("status", matcher.prime()).keyframes
    answer = pair(matcher, 8)
    assert answer.success, answer.message
    matches = answer.matches
    assert len(matches.u_ref) > 50
    shift = np.median(np.array(matches.u_query) - np.array(matches.u_ref))
    assert shift == pytest.approx(-8, abs=0.1)
    assert answer.relative_pose.num_inliers > 40
    assert answer.relative_pose.query == matches.query
    # Stamps of 1 s are earlier than the frames': no reset, no keyframe of it.
    status = matcher.peer.output("status", matcher.prime())
    assert (status.keyframes, status.resets) == (keyframes, 0)


def test_match_pair_without_calibration_gives_no_pose(matcher: Matcher) -> None:
    answer = pair(matcher, 8, reference_info=CameraInfo(), query_info=CameraInfo())
    assert answer.success
    assert answer.matches.status == Matches.OK
    assert answer.relative_pose.pose.covariance[0] == -1


def test_match_pair_refuses_a_bad_image(matcher: Matcher) -> None:
    answer = pair(matcher, 8, query=Image())
    assert not answer.success
    assert "unknown" in answer.message
    matcher.prime()


def test_keyframes_by_hand(matcher: Matcher) -> None:
    at = matcher.tick()
    matcher.peer.send(at, shift=1)
    frame = matcher.peer.output("features", at).frame
    answer = call(matcher, "add_keyframe", AddKeyframe)
    assert answer.success, answer.message  # type: ignore[attr-defined]
    assert answer.frame == frame  # type: ignore[attr-defined]
    at = matcher.tick()
    answer = call(
        matcher,
        "add_keyframe",
        AddKeyframe,
        image=image_message(picture(2), at),
        camera_info=camera_info(at),
    )
    assert answer.success, answer.message  # type: ignore[attr-defined]
    late = matcher.tick()
    matcher.peer.send(late, shift=2)
    assert matcher.peer.output("matches", late).reference == answer.frame  # type: ignore[attr-defined]
    early = call(
        matcher,
        "add_keyframe",
        AddKeyframe,
        image=image_message(picture(2), 1.0),
        camera_info=camera_info(1.0),
    )
    assert not early.success  # type: ignore[attr-defined]
    assert "before the newest" in early.message  # type: ignore[attr-defined]


def test_reset(matcher: Matcher) -> None:
    last = matcher.peer.output("features", matcher.prime()).frame.id
    answer = call(matcher, "reset", Trigger)
    assert answer.success  # type: ignore[attr-defined]
    assert "keyframes dropped" in answer.message  # type: ignore[attr-defined]
    at = matcher.tick()
    matcher.peer.send(at)
    assert matcher.peer.output("features", at).frame.id > last
    assert matcher.peer.output("status", at).keyframes == 1
    assert not matcher.peer.outputs("matches", at)


def test_maps_outlive_the_node(configure: Callable[..., Matcher], tmp_path: Path) -> None:
    folder = {"maps.folder": str(tmp_path / "maps")}
    matcher = configure(folder)
    matcher.prime()
    file = tmp_path / "maps" / "hall.map"
    saved = call(matcher, "save_map", SaveMap, path="hall.map")
    assert saved.success, saved.message  # type: ignore[attr-defined]
    assert saved.keyframes >= 1  # type: ignore[attr-defined]
    references = {m.reference.id for m in matcher.peer.received["matches"]}
    configure(folder)  # cleaned up and configured again: the map is empty
    loaded = call(matcher, "load_map", LoadMap, path="hall.map")
    assert loaded.success, loaded.message  # type: ignore[attr-defined]
    assert loaded.keyframes == saved.keyframes  # type: ignore[attr-defined]
    at = matcher.prime()
    first = matcher.peer.received["matches"][0]
    assert first.reference.id in references
    assert first.status == Matches.OK
    assert matcher.peer.output("features", at).frame.id > max(references)
    # A map of a process that went on to frame 1,000,000: these numbers are taken, too.
    store = KeyframeStore(KeyframesConfig())
    for entry in map_io.load(file).keyframes:
        store.insert(entry.keyframe)
    late = file.with_name("late.map")
    map_io.save(late, store, last_frame=1_000_000)
    assert call(matcher, "load_map", LoadMap, path="late.map").success  # type: ignore[attr-defined]
    at = matcher.tick()
    matcher.peer.send(at)
    assert matcher.peer.output("features", at).frame.id > 1_000_000
    file.write_bytes(file.read_bytes()[:100])
    damaged = call(matcher, "load_map", LoadMap, path="hall.map")
    assert not damaged.success  # type: ignore[attr-defined]
    assert "hall.map" in damaged.message  # type: ignore[attr-defined]
    matcher.prime()


def test_a_nonsense_map_changes_nothing(configure: Callable[..., Matcher], tmp_path: Path) -> None:
    """Its checksum is right: it was taken, and the next frame ended the process by a signal."""
    matcher = configure({"maps.folder": str(tmp_path)})
    matcher.prime()
    file = tmp_path / "hall.map"
    saved = call(matcher, "save_map", SaveMap, path=file.name)
    assert saved.success, saved.message  # type: ignore[attr-defined]
    with safe_open(file, "numpy") as opened:
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        metadata = opened.metadata()
    for change in ({"frame_id": 5}, {"id": 1.5}, {"id": -5}, {"last_frame": 2**64 - 1}):
        entries, counters = (json.loads(metadata[name]) for name in ("keyframes", "counters"))
        (counters if "last_frame" in change else entries[0]["id"]).update(change)
        sha256 = map_io._digest(arrays, {"entries": entries, "counters": counters})
        described = {"keyframes": json.dumps(entries), "counters": json.dumps(counters)}
        save_file(arrays, file, {**metadata, **described, "sha256": sha256})
        keyframes = matcher.peer.output("status", matcher.prime()).keyframes
        answer = call(matcher, "load_map", LoadMap, path=file.name)
        assert not answer.success, change  # type: ignore[attr-defined]
        assert "hall.map is inconsistent" in answer.message  # type: ignore[attr-defined]
        at = matcher.tick()
        matcher.peer.send(at)
        assert matcher.peer.output("matches", at).status == Matches.OK
        assert matcher.peer.output("status", at).keyframes == keyframes
        assert matcher.process.poll() is None


def test_maps_stay_in_their_folder_and_replace_nothing_else(
    configure: Callable[..., Matcher], tmp_path: Path
) -> None:
    """Whoever is on the network may call the services."""
    folder = tmp_path / "maps"
    folder.mkdir()
    (folder / "notes.txt").write_text("precious")
    os.mkfifo(folder / "pipe")
    matcher = configure({"maps.folder": str(folder)})
    matcher.prime()
    for path in (str(tmp_path / "x"), "../x", "..", "", "a/b", ".hidden", "x\n", "x" * 200):
        for name, kind in (("save_map", SaveMap), ("load_map", LoadMap)):
            answer = call(matcher, name, kind, path=path)
            assert not answer.success  # type: ignore[attr-defined]
            assert "no name of a map" in answer.message  # type: ignore[attr-defined]
    for name in ("notes.txt", "pipe"):
        saved = call(matcher, "save_map", SaveMap, path=name)
        assert not saved.success  # type: ignore[attr-defined]
        loaded = call(matcher, "load_map", LoadMap, path=name)  # of a FIFO: the node froze
        assert not loaded.success  # type: ignore[attr-defined]
    assert (folder / "notes.txt").read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["maps"]
    assert sorted(p.name for p in folder.iterdir()) == ["notes.txt", "pipe"]
    matcher.prime()


def test_services_of_an_unconfigured_node_say_so(
    configure: Callable[..., Matcher], shared: Matcher
) -> None:
    configure(activate=False)
    assert shared.cleanup()
    answer = call(shared, "reset", Trigger)
    assert not answer.success  # type: ignore[attr-defined]
    assert "not configured" in answer.message  # type: ignore[attr-defined]


def test_a_rig_of_two_cameras(configure: Callable[..., Matcher]) -> None:
    matcher = configure({"cameras": "left, right", "intake.mode": "lossless"})
    peer = matcher.peer
    shifts = {"left": 4, "right": 9}

    def send(at: float, moved: bool) -> None:
        for name, shift in shifts.items():
            image = image_message(picture(shift if moved else 0), at)
            image.header.frame_id = name
            peer.publisher(f"{name}/image", Image).publish(image)
            peer.publisher(f"{name}/camera_info", CameraInfo).publish(camera_info(at))

    def both(at: float) -> bool:
        return {m.query.camera_index for m in peer.outputs("matches", at)} == {0, 1}

    first = matcher.tick()
    send(first, False)
    peer.wait(lambda: len(peer.outputs("features", first)) == 2 or both(first), "two cameras")
    at = matcher.tick()
    send(at, True)
    peer.wait(lambda: both(at), "matches of both cameras")
    for matches in peer.outputs("matches", at):
        name = ("left", "right")[matches.query.camera_index]
        assert matches.reference.camera_index == matches.query.camera_index
        assert matches.query.frame_id == name
        moved = np.median(np.array(matches.u_query) - np.array(matches.u_ref))
        assert moved == pytest.approx(-shifts[name], abs=0.1)
    ids = [f.frame.id for f in peer.received["features"]]
    assert len(ids) == len(set(ids))
    # A pose in a map does not name its camera: each has a topic of its own.
    published = dict(peer.node.get_topic_names_and_types())
    for name in shifts:
        assert published[f"/{name}/relocalised_pose"] == [
            "geometry_msgs/msg/PoseWithCovarianceStamped"
        ]
    # Landmark ids are unique over the cameras.
    tracks = {0: set(), 1: set()}  # type: ignore[var-annotated]
    for found in peer.received["features"]:
        tracks[found.frame.camera_index] |= set(found.track_ids) - {-1}
    assert tracks[0]
    assert tracks[1]
    assert not tracks[0] & tracks[1]


@pytest.mark.parametrize("cameras", ["left,left", "a b", "left,,right"])
def test_names_that_make_no_rig(configure: Callable[..., Matcher], cameras: str) -> None:
    matcher = configure(activate=False)
    assert matcher.cleanup()
    refused = matcher.set(cameras=cameras)[0]
    assert not refused.successful
    assert "cameras" in refused.reason


def test_frames_are_answered_while_clients_loop(matcher: Matcher) -> None:
    """Services went before all frames: with four clients no frame was ever answered."""
    clients = [
        matcher.peer.node.create_client(MatchPair, f"{matcher.name}/match_pair") for _ in range(4)
    ]
    request = MatchPair.Request(
        reference=image_message(picture(), 1.0),
        query=image_message(picture(8), 1.5),
        reference_info=camera_info(1.0),
        query_info=camera_info(1.5),
    )
    answers: list[bool] = []
    looping = True

    def ask(client: object) -> None:
        future = client.call_async(request)  # type: ignore[attr-defined]
        future.add_done_callback(lambda done: answered(client, done))

    def answered(client: object, done: object) -> None:
        answers.append(done.result().success)  # type: ignore[attr-defined]
        if looping:
            ask(client)

    for client in clients:
        assert client.wait_for_service(60)
        for _ in range(2):
            ask(client)
    try:
        for number in range(10):
            at = matcher.tick()
            matcher.peer.send(at, shift=number % 3)
            assert matcher.peer.output("matches", at).status == Matches.OK
    finally:
        looping = False
    assert all(answers)
    assert len(answers) >= 10
    for client in clients:
        matcher.peer.node.destroy_client(client)
