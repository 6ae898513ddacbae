"""Hostile messages and requests over real DDS to a real matcher process.

The conversions alone see a thousand times as many (``message_targets.py``); here the process must
go on: every message and request is accounted for, good frames are matched, nothing is logged as
unforeseen.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from frame_targets import (
    Messages,
    compressed,
    described,
    plain,
    stereo,
    with_depth,
    with_keypoints,
    with_mask,
)
from judging import ACCEPTED, MAX_GROWTH_MIB, Outcome, resident_mib
from matcher_process import QUICK, Matcher, stamp
from mutation import FLOATS, TEXTS, WHOLE, mutate_message
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from worker import Failure, Tally

from superglue_ros.msg import Features, Matches
from superglue_ros.ros.parameters import all_settings
from superglue_ros.srv import AddKeyframe, LoadMap, MatchPair, SaveMap

_TOGETHER = 20  # messages before they are waited for
_STEREO = {
    "image": "left/image_rect", "camera_info": "left/camera_info",
    "right_image": "right/image_rect", "right_info": "right/camera_info",
}  # fmt: skip
INPUTS: Mapping[str, tuple[Mapping[str, Any], Callable[[float], Messages]]] = {
    "frames": ({}, plain),
    "compressed frames": ({"image_transport": "compressed"}, compressed),
    "frames with keypoints": ({"inputs.keypoints": True}, with_keypoints),
    "frames with depth": ({"inputs.depth": True}, with_depth),
    "frames with a mask": ({"inputs.mask": True}, with_mask),
    "stereo frames": ({"inputs.stereo": True}, stereo),
}
_BOTTOM = {**QUICK, "intake.mode": "lossless", "inputs.peers": True, "robot": "own"}
_NAMES = [name for name, _, _ in all_settings()]


class Live:
    """A matcher process under attack; what came of it is counted in ``tallies``, by input."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._rng = random.Random(seed)
        self.matcher = Matcher(folder / "matcher.log", {**_BOTTOM, "maps.folder": folder / "maps"})
        self.tallies: dict[str, Tally] = {}
        self._topics: Mapping[str, str] = {}
        self._make = plain

    # -- frames --------------------------------------------------------------------------------

    def configure(self, parameters: Mapping[str, Any], make: Callable[[float], Messages]) -> None:
        """Bring the process up with these inputs; ``make`` makes a good frame."""
        self._make = make
        matcher = self.matcher
        if matcher.state() == "active":
            assert matcher.deactivate()
            assert matcher.cleanup()
        switches = ("keypoints", "depth", "mask", "stereo")
        usual = {"image_transport": "raw", **{f"inputs.{name}": False for name in switches}}
        results = matcher.set_parameters({**usual, **parameters})
        assert all(result.successful for result in results), results
        self._topics = _STEREO if parameters.get("inputs.stereo") else {}
        assert matcher.configure(), matcher.log
        assert matcher.activate()

    def prime(self) -> None:
        """Send good frames until one is matched."""
        matcher, end = self.matcher, time.monotonic() + 120.0
        while True:
            at = matcher.tick()
            self._send(self._make(at), at)
            try:
                matcher.peer.wait(lambda at=at: self._ok(at), "a match", 0.5)
                break
            except AssertionError:
                assert time.monotonic() < end, f"no good frame is matched:\n{matcher.log[-3000:]}"
        matcher.peer.output("status", at)  # the last of all that were sent

    def frames(self, name: str, count: int) -> Iterator[Tally]:
        """Mutated frames, all with the stamps that bring them together."""
        tally = self.tallies.setdefault(f"live: {name}", Tally())
        while tally.tried < count:
            self.prime()
            before = self._status()
            some = min(_TOGETHER, count - tally.tried)
            for _ in range(some):
                at = self.matcher.tick()
                messages = self._make(at)
                for _ in range(self._rng.choice([1, 1, 2, 4])):
                    mutate_message(messages[self._rng.choice(sorted(messages))], self._rng)
                self._send(messages, at)
            self._count(tally, before, some)
            yield tally

    def peers(self, count: int) -> Iterator[Tally]:
        """Another robot's features, mutated."""
        tally = self.tallies.setdefault("live: peer_features", Tally())
        publisher = self.matcher.peer.publisher("peer_features", Features)
        while tally.tried < count:
            self.prime()
            before, sent = self._status(), 0
            for _ in range(min(_TOGETHER, count - tally.tried)):
                message = described(1.0)
                for _ in range(self._rng.choice([1, 1, 2, 4])):
                    mutate_message(message, self._rng)
                publisher.publish(message)
                # Its own features, and those without descriptors, are passed over unseen.
                sent += message.frame.robot != "own" and bool(message.descriptor_dim)
                tally.counts["passed over"] += not message.descriptor_dim
            self._count(tally, before, sent)
            yield tally

    def _count(self, tally: Tally, before: Any, sent: int) -> None:
        """Wait for what was sent, and for a good frame: a status follows frames only."""
        good = 0
        while True:
            at = self.matcher.tick()
            self._send(self._make(at), at)
            after = self.matcher.peer.output("status", at)
            good += 1
            if after.received - before.received >= sent + good and _all_done(after):
                break
        matched, refused = after.matched - before.matched - good, after.refused - before.refused
        tally.counts[ACCEPTED] += matched
        tally.counts["refused"] += refused
        received = after.received - before.received - good
        assert received == sent == matched + refused, (
            f"{sent} were sent, {received} received, {matched} matched, {refused} refused"
        )

    def _send(self, messages: Messages, at: float) -> None:
        for role, message in messages.items():
            message.header.stamp = stamp(at)
            topic = self._topics.get(role, role)
            if type(message).__name__ == "CompressedImage":
                topic += "/compressed"
            self.matcher.peer.publisher(topic, type(message)).publish(message)

    def _ok(self, at: float) -> bool:
        return any(m.status == Matches.OK for m in self.matcher.peer.outputs("matches", at))

    def _newest(self) -> Any:
        return self.matcher.peer.received["status"][-1]

    def _accounted(self) -> Any:
        status = self._newest()
        return status if _all_done(status) else None

    def _status(self) -> Any:
        """Counts when everything received is done with; what was heard before is forgotten."""
        status = self.matcher.peer.wait(self._accounted, "every message to be accounted for")
        for messages in self.matcher.peer.received.values():
            messages.clear()
        self.matcher.peer.received["status"].append(status)
        return status

    # -- requests ------------------------------------------------------------------------------

    def requests(self, count: int) -> Iterator[Tally]:
        """Every service with mutated requests, and parameters; each gets an answer."""
        tallies = {
            name: self.tallies.setdefault(f"live: {name}", Tally())
            for name in ("match_pair", "add_keyframe", "save_map", "load_map", "set_parameters")
        }
        makes = (self._match_pair, self._add_keyframe, self._map, self._parameter)
        for number in range(count):
            name, good = makes[number % len(makes)]()
            tallies[name].counts[ACCEPTED if good else "refused"] += 1
            if number % 50 == 49:
                self.prime()
            yield tallies[name]
        self.prime()

    def _match_pair(self) -> tuple[str, bool]:
        first, second = plain(1.0), plain(1.1)
        request = MatchPair.Request(
            reference=first["image"], query=second["image"],
            reference_info=first["camera_info"], query_info=second["camera_info"],
        )  # fmt: skip
        for _ in range(self._rng.choice([1, 2, 4])):
            mutate_message(request, self._rng)
        return "match_pair", self._call("match_pair", MatchPair, request).success

    def _add_keyframe(self) -> tuple[str, bool]:
        request = AddKeyframe.Request(**plain(self.matcher.tick()))
        at = request.image.header.stamp
        for _ in range(self._rng.choice([1, 2, 4])):
            mutate_message(request, self._rng)
        request.image.header.stamp = at  # one far ahead would make all later frames late
        return "add_keyframe", self._call("add_keyframe", AddKeyframe, request).success

    def _map(self) -> tuple[str, bool]:
        name, kind = self._rng.choice([("save_map", SaveMap), ("load_map", LoadMap)])
        path = self._rng.choice([*TEXTS, "a.map", "a.map", "/etc/passwd", "a/b", "..", ".x", "\n"])
        return name, self._call(name, kind, kind.Request(path=path)).success

    def _parameter(self) -> tuple[str, bool]:
        value = self._rng.choice([*FLOATS, *WHOLE[:-1], *TEXTS, True, [1, 2], [1.0], ["x"]])
        name = self._rng.choice([*_NAMES, "x" * 300, "use_sim_timer"])
        before = self.matcher.get(name) if name in _NAMES else None
        parameter = Parameter(name, value=value).to_parameter_msg()
        kind = SetParameters
        done = self._call("set_parameters", kind, kind.Request(parameters=[parameter])).results[0]
        if done.successful and before is not None:  # as it was: other inputs come to be tried
            parameter.value = before
            again = self._call("set_parameters", kind, kind.Request(parameters=[parameter]))
            assert again.results[0].successful, again
        return "set_parameters", done.successful

    def _call(self, service: str, kind: Any, request: Any) -> Any:
        return self.matcher.peer.call(f"{self.matcher.name}/{service}", kind, request)


def _all_done(status: Any) -> bool:
    return status.received == status.matched + status.dropped + status.refused


def attack_live(count: int, seed: int) -> Iterator[dict[str, Tally]]:
    """``count`` messages and requests; yields the tallies as they grow.

    A promise that is broken is a failure of the tally "live".
    """
    with tempfile.TemporaryDirectory(prefix="campaign-") as name:
        live = Live(Path(name), seed)
        whole = live.tallies.setdefault("live", Tally())
        each = count // (len(INPUTS) + 3)
        memory = 0.0
        try:
            for inputs, (parameters, make) in INPUTS.items():
                live.configure(parameters, make)
                for _ in live.frames(inputs, each):
                    memory = memory or resident_mib(live.matcher.process.pid)
                    yield live.tallies
            live.configure({}, plain)
            for steps in (live.peers(each), live.requests(2 * each)):
                for _ in steps:
                    yield live.tallies
            growth = resident_mib(live.matcher.process.pid) - memory
            assert growth < MAX_GROWTH_MIB, f"{growth:.0f} MiB more memory"
            code = live.matcher.stop()
            assert code == 0, f"exit code {code}"
            assert "Traceback" not in live.matcher.log, live.matcher.log[-4000:]
            assert "unforeseen" not in live.matcher.log, live.matcher.log[-4000:]
        except AssertionError as error:
            detail = f"{error}\n{live.matcher.log[-2000:]}"
            whole.counts["broken promise"] += 1
            whole.failures.append(
                Failure("live", Outcome("broken promise", True, detail, "live"), {})
            )
        finally:
            live.matcher.kill()
    yield live.tallies
