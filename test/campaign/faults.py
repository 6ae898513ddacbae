"""Faults of a long run: what happens to the node and around it, and that it goes on.

Each fault is a function of the run (:class:`soak.Run`); it raises AssertionError where the node
does not do what is promised, and leaves the run's ledger right.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matcher_process import PRIVATE, camera_info, image_message, picture, stamp
from mutation import mutate_message
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from superglue_ros.data.bag_sequences import SequenceTopics, write_bag
from superglue_ros.srv import AddKeyframe, LoadMap, MatchPair, SaveMap

if TYPE_CHECKING:
    from soak import Run

Fault = Callable[["Run"], None]
SIZES = ((200, 150), (160, 120), (240, 180))
_BURST = 15  # frames of a peer before it is killed


# -- what comes in -------------------------------------------------------------------------------


def time_jumps_back(run: Run) -> None:
    """The stamps start again, as a bag does: the map is dropped, once."""
    run.clock = run.start_clock
    run.expected_resets += 1


def time_jumps_forward(run: Run) -> None:
    """A pause of a thousand seconds; the first stamp after it is in doubt until the second."""
    run.clock += 1000.0
    run.send()
    run.send()


def one_wrong_stamp(run: Run) -> None:
    """A calibration an hour ahead: its image finds no partner, and nothing else is lost."""
    at = run.tick()
    run.matcher.peer.send(at, camera_info=camera_info(at + 3600, *run.size), image=run.image(at))
    run.unsynchronised = True


def another_size(run: Run) -> None:
    """The camera is switched to another resolution."""
    run.size = SIZES[(SIZES.index(run.size) + 1) % len(SIZES)]


def bad_frames(run: Run) -> None:
    """Images and calibrations that are refused, each counted."""

    def short(at: float) -> dict[str, Any]:
        image = run.image(at)
        image.data = image.data[:100]
        return {"image": image}

    def encoding(at: float) -> dict[str, Any]:
        image = run.image(at)
        image.encoding = "nonsense"
        return {"image": image}

    def calibration(at: float) -> dict[str, Any]:
        info = camera_info(at, *run.size)
        info.k[2] = float("nan")
        return {"camera_info": info, "image": run.image(at)}

    for make in (short, encoding, calibration):
        at = run.tick()
        messages = {"camera_info": camera_info(at, *run.size), **make(at)}
        run.matcher.peer.send(at, **messages)
        run.sent += 1
        run.expected_refusals += 1


def mutated_frames(run: Run) -> None:
    """Frames mutated as in `make fuzz`, but for the stamps, without which they never meet."""
    rng = random.Random(run.number)
    for _ in range(20):
        at = run.tick()
        messages = {"camera_info": camera_info(at, *run.size), "image": run.image(at)}
        for _ in range(rng.choice([1, 2, 4])):
            mutate_message(messages[rng.choice(sorted(messages))], rng)
        for message in messages.values():
            message.header.stamp = stamp(at)
        run.matcher.peer.send(at, **messages)
        run.sent += 1
    run.refusals_unknown = True


# -- services, parameters, life cycle, disk ------------------------------------------------------


def services(run: Run) -> None:
    """All services, with good and bad requests."""
    peer, name = run.matcher.peer, run.matcher.name
    info, image = camera_info(1.0), image_message(picture(), 1.0)
    found = peer.call(
        f"{name}/match_pair",
        MatchPair,
        MatchPair.Request(reference=image, query=image, reference_info=info, query_info=info),
    )
    assert found.success, found.message
    empty = peer.call(f"{name}/match_pair", MatchPair, MatchPair.Request())
    assert not empty.success
    run.good_frame()
    kept = peer.call(f"{name}/add_keyframe", AddKeyframe, AddKeyframe.Request())
    assert kept.success, kept.message
    saved = peer.call(f"{name}/save_map", SaveMap, SaveMap.Request(path="soak.map"))
    assert saved.success, saved.message
    outside = peer.call(f"{name}/save_map", SaveMap, SaveMap.Request(path="../soak.map"))
    assert not outside.success
    loaded = peer.call(f"{name}/load_map", LoadMap, LoadMap.Request(path="soak.map"))
    assert loaded.success, loaded.message
    assert loaded.keyframes == saved.keyframes
    assert not peer.call(f"{name}/load_map", LoadMap, LoadMap.Request(path="none.map")).success


def reset(run: Run) -> None:
    """The map is dropped on request."""
    assert run.matcher.peer.call(f"{run.matcher.name}/reset", Trigger, Trigger.Request()).success
    run.expected_resets += 1


def parameters(run: Run) -> None:
    """Parameters change between frames; bad values are refused and change nothing."""
    values = {"matcher.ratio": 0.7, "geometry.threshold_px": -1.0, "front_end.name": "orb",
              "keyframes.window": 2, "nonsense.name": 1}  # fmt: skip
    done = []
    for name, value in values.items():
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        service = f"{run.matcher.name}/set_parameters"
        done.append(run.matcher.peer.call(service, SetParameters, request).results[0].successful)
    assert done == [True, False, False, True, False], done
    assert run.matcher.set_parameters({"keyframes.window": 1})[0].successful


def life_cycle(run: Run) -> None:
    """Deactivated and activated again: counts start anew, the map stays."""
    assert run.matcher.deactivate()
    assert run.matcher.activate()
    run.begin_life()


def full_disk(run: Run) -> None:
    """No map can be saved while the disk is full; the old one stays, and later it can."""
    name, peer = f"{run.matcher.name}/save_map", run.matcher.peer
    run.good_frame()
    run.good_frame()
    with run.disk.full(run.matcher.process.pid):
        answer = peer.call(name, SaveMap, SaveMap.Request(path="full.map"))
        assert not answer.success
        assert run.disk.said in answer.message, answer.message
        run.good_frame()
    answer = peer.call(name, SaveMap, SaveMap.Request(path="full.map"))
    assert answer.success, answer.message


# -- peers ---------------------------------------------------------------------------------------


def subscriber_comes_or_goes(run: Run) -> None:
    """A subscriber of the pictures, which are drawn only while there is one."""
    peer = run.matcher.peer
    if run.pictures is None:
        run.pictures = peer.subscribe("matches_image", Image)
    else:
        peer.node.destroy_subscription(run.pictures)
        run.pictures = None


def camera_is_killed(run: Run) -> None:
    """Another camera publishes on the same topics and is killed between two messages."""
    script = str(Path(__file__).with_name("camera_process.py"))
    with _child(run, "camera", [script, f"{run.clock + 0.1:.3f}", str(10 * _BURST)]) as child:
        _lines(child, _BURST)
    run.clock = round(run.clock + 0.1 * 10 * _BURST, 3)
    run.settle()


def player_is_killed(run: Run) -> None:
    """A bag is played to the node; the player is killed in the middle."""
    bag = run.folder / "bag"
    if not bag.exists():
        write_bag(run, bag, SequenceTopics("/image", "/camera_info", "", ""))
    command = ["-m", "superglue_ros.ros.tools.bag_player", str(bag), "--rate", "20", "--wait-for",
               "/image", "/camera_info"]  # fmt: skip
    with _child(run, "player", command) as child:
        _lines(child, _BURST)
    run.settle()


def back_end_is_killed(run: Run) -> None:
    """The example back-end takes part and is killed."""
    code = "from superglue_ros.ros.start import bundle_adjuster; bundle_adjuster()"
    _subscribe_and_kill(run, "back_end", ["-c", code], "relative_pose")


def subscriber_is_killed(run: Run) -> None:
    """A recorder of all outputs is killed."""
    topics = ["/matches", "/relative_pose", *(f"/{name}" for name in PRIVATE.values())]
    bag = str(run.folder / f"recorded{run.number}")
    command = ["-m", "superglue_ros.ros.tools.bag_recorder", bag, *topics]
    _subscribe_and_kill(run, "recorder", command, "matches")


def node_is_killed(run: Run) -> None:
    """The node itself, with frames in work; the next one answers."""
    for _ in range(5):
        run.send()
    run.matcher.process.kill()
    run.matcher.process.wait()
    run.count_lost()
    run.start_node()


FAULTS: tuple[Fault, ...] = (
    time_jumps_back, another_size, bad_frames, camera_is_killed, services, time_jumps_forward,
    subscriber_is_killed, mutated_frames, full_disk, one_wrong_stamp, another_size,
    player_is_killed, subscriber_comes_or_goes, reset, parameters, back_end_is_killed, life_cycle,
    bad_frames, another_size, subscriber_comes_or_goes,
)  # fmt: skip
"""In this order, again and again; the node itself is killed in the first part of a run only."""


@contextlib.contextmanager
def _child(run: Run, name: str, command: list[str]) -> Iterator[subprocess.Popen]:
    """A Python process that is killed at the end."""
    with (run.folder / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    try:
        yield child
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def _lines(child: subprocess.Popen, count: int) -> None:
    """Wait for that many lines of its output."""
    assert child.stdout is not None
    for _ in range(count):
        assert child.stdout.readline(), "the peer ended before it was killed"


def _subscribe_and_kill(run: Run, name: str, command: list[str], topic: str) -> None:
    node = run.matcher.peer.node

    def subscribers() -> set[tuple[int, ...]]:
        found = node.get_subscriptions_info_by_topic(f"/{topic}")
        return {tuple(info.endpoint_gid) for info in found}

    before = subscribers()  # with those of dead processes, until their lease ends
    with _child(run, name, command):
        run.matcher.peer.wait(lambda: subscribers() - before, f"the {name}'s subscription")
        for _ in range(3):
            run.good_frame()
    run.good_frame()


# -- the disk ------------------------------------------------------------------------------------


class MountedDisk:
    """A tmpfs on the folder of maps, in a mount namespace of the node's own."""

    name = "tmpfs of 16 MiB in a mount namespace of the node"
    said = "No space left"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        mount = f'mount -t tmpfs -o size=16m none {folder} && exec "$@"'
        self.within = ("unshare", "--mount", "--map-root-user", "sh", "-c", mount, "sh")

    @staticmethod
    def possible(folder: Path) -> bool:
        """Whether this user may mount one."""
        try:
            test = [*MountedDisk(folder).within, "true"]
            return subprocess.run(test, capture_output=True).returncode == 0
        except OSError:
            return False

    @contextlib.contextmanager
    def full(self, process: int) -> Iterator[None]:
        """Fill it, and make room again."""
        file = Path(f"/proc/{process}/root{self._folder}/filling")
        with contextlib.suppress(OSError), file.open("wb", buffering=0) as opened:
            while True:
                opened.write(bytes(4096))
        try:
            yield
        finally:
            file.unlink()


class LimitedFiles:
    """Where nothing may be mounted: a limit of the size of files, set from outside.

    It holds for the log too, so it is a little more than that and less than a map.
    """

    name = "RLIMIT_FSIZE of the node"
    said = "File too large"
    within: tuple[str, ...] = ()

    @contextlib.contextmanager
    def full(self, process: int) -> Iterator[None]:
        """Let every file end after 64 KiB; Python ignores the signal, the write fails."""
        soft, hard = resource.prlimit(process, resource.RLIMIT_FSIZE)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (64 << 10, hard))
        try:
            yield
        finally:
            resource.prlimit(process, resource.RLIMIT_FSIZE, (soft, hard))
