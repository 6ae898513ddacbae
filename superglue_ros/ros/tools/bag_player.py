"""Play a rosbag2 directory over DDS with its own clock, for machines without ``ros2 bag``.

    ros2 run superglue_ros bag_player BAG --max-in-flight 2

Stored messages are published at the pace of the recording, together with ``/clock``. With
``--max-in-flight`` the player waits for the matcher (topic ``status``), so that a slow computer
matches every frame. Progress is written to the standard output as one JSON object per line.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import rclpy
from builtin_interfaces.msg import Time
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock

from superglue_ros.data.bag_sequences import COMPRESSED, IMAGE
from superglue_ros.data.bags import BagReader
from superglue_ros.errors import DataError
from superglue_ros.msg import MatcherStatus
from superglue_ros.ros.beginning import begin
from superglue_ros.ros.ending import destroy

_CLOCK_PERIOD = 0.01  # seconds of wall time between clock messages
_SETTLE = 1.0  # seconds between the discovery of subscribers and the first message
_DEPTH = 100


def message_class(kind: str) -> Any:
    """The Python class of ``package/msg/Name``; raises :class:`DataError` where it is missing."""
    package, _, name = kind.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError):
        raise DataError(
            f"message type {kind} is not installed: install {package}, or leave its topics out "
            f"(--topics)"
        ) from None


class BagPlayer(Node):
    """Publishes the topics ``names`` of an open bag.

    ``frames`` is the topic whose messages count as frames ("" = none). Raises :class:`DataError`.
    """

    def __init__(self, bag: BagReader, names: Sequence[str], frames: str, rate: float) -> None:
        super().__init__("bag_player")
        self._bag = bag
        self._names = names
        self._frames = frames
        self._rate = rate
        profile = QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
        self._outputs = {
            name: self.create_publisher(message_class(bag.topics[name].type), name, profile)
            for name in names
        }
        self._clock = self.create_publisher(Clock, "/clock", 10)
        self.create_subscription(MatcherStatus, "matcher/status", self._hear_status, profile)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self.published = 0
        self.answered = 0
        self._last_answer = time.monotonic()
        self._last_clock = 0.0
        self._now_ns = 0

    def wait_for_subscribers(self, names: Sequence[str], timeout: float) -> None:
        """Wait until each topic has a subscriber.

        Raises :class:`DataError` after ``timeout`` seconds.
        """
        end = time.monotonic() + timeout
        while missing := [name for name in names if not self._has_subscriber(name)]:
            if time.monotonic() > end:
                raise DataError(
                    f"no subscriber on {', '.join(missing)} within {timeout:.0f} s: "
                    f"does the node run, and are its inputs remapped to these names?"
                )
            self._executor.spin_once(timeout_sec=0.05)
        # A subscriber may discover its publisher later than the reverse; it misses messages sent
        # in between.
        end = time.monotonic() + (_SETTLE if names else 0.0)
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def _has_subscriber(self, name: str) -> bool:
        if name in self._outputs:  # connected, not only discovered
            return bool(self._outputs[name].get_subscription_count())
        return bool(self.count_subscribers(name))

    def play(self, max_in_flight: int, patience: float) -> None:
        """Publish everything; with ``max_in_flight`` wait for the matcher's answers.

        Raises :class:`DataError` after ``patience`` seconds without an answer.
        """
        start_ns: int | None = None
        started = time.monotonic()
        for name, stamp_ns, data in self._bag.serialised(self._names):
            if start_ns is None:
                start_ns = stamp_ns
            due = started + (stamp_ns - start_ns) * 1e-9 / self._rate
            self._wait_until(due, stamp_ns)
            if name == self._frames and max_in_flight:
                self._wait_for_answers(self.published - max_in_flight + 1, patience)
            # Time stands still while the player waits.
            started += max(0.0, time.monotonic() - due)
            self._outputs[name].publish(data)
            if name == self._frames:
                self.published += 1
                self._report()
        if max_in_flight:
            self._wait_for_answers(self.published, patience)
        self._wait_for_delivery(patience)

    def _wait_for_delivery(self, patience: float) -> None:
        """Wait until every reliable subscriber has everything: a closed writer loses its queue.

        Raises :class:`DataError` if one has not within ``patience`` seconds.
        """
        for name, output in self._outputs.items():
            if not output.wait_for_all_acked(Duration(seconds=patience)):
                raise DataError(
                    f"a subscriber of {name} did not take everything within {patience:.0f} s: "
                    f"is it stopped?"
                )

    def _wait_until(self, due: float, stamp_ns: int) -> None:
        """Let the clock run up to a message's time."""
        while (left := due - time.monotonic()) > 0:
            self._tick(stamp_ns - int(left * self._rate * 1e9))
            self._executor.spin_once(timeout_sec=min(left, _CLOCK_PERIOD))
        self._tick(stamp_ns, force=True)

    def _wait_for_answers(self, count: int, patience: float) -> None:
        self._last_answer = time.monotonic()
        while self.answered < count:
            self._executor.spin_once(timeout_sec=_CLOCK_PERIOD)
            self._tick(self._now_ns)
            if time.monotonic() - self._last_answer > patience:
                raise DataError(
                    f"the matcher answered {self.answered} of {self.published} frames and then "
                    f"nothing for {patience:.0f} s: does it run with intake.mode lossless, as a "
                    f"best-effort subscription loses large images?"
                )

    def _hear_status(self, status: MatcherStatus) -> None:
        answered = status.matched + status.dropped + status.refused
        if answered > self.answered:
            self._last_answer = time.monotonic()
            self.answered = answered
            self._report()

    def _tick(self, now_ns: int, force: bool = False) -> None:
        self._now_ns = max(now_ns, self._now_ns)
        if not force and time.monotonic() - self._last_clock < _CLOCK_PERIOD:
            return
        self._last_clock = time.monotonic()
        seconds, nanoseconds = divmod(self._now_ns, 1_000_000_000)
        self._clock.publish(Clock(clock=Time(sec=seconds, nanosec=nanoseconds)))

    def _report(self) -> None:
        print(json.dumps({"published": self.published, "answered": self.answered}), flush=True)


def frame_topic(bag: BagReader, names: Sequence[str]) -> str:
    """The first image topic that is not depth; "" if there is none."""
    images = [n for n in names if bag.topics[n].type in (IMAGE, COMPRESSED) and "depth" not in n]
    return images[0] if images else ""


def main(args: list[str] | None = None) -> int:
    """Play one bag; exit code 0 when all of it was played, 1 with a reason otherwise."""
    given = sys.argv if args is None else ["bag_player", *args]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bag", help="rosbag2 directory, .mcap or .db3 file")
    parser.add_argument("--topics", nargs="+", default=[], help="play these only (default: all)")
    parser.add_argument("--rate", type=float, default=1.0, help="times the recorded pace")
    parser.add_argument(
        "--max-in-flight", type=int, default=0, help="frames ahead of the matcher; 0: do not wait"
    )
    parser.add_argument("--frames", default="", help="image topic that counts as frames")
    parser.add_argument(
        "--wait-for", nargs="*", default=[], help="start when these topics have subscribers"
    )
    parser.add_argument("--patience", type=float, default=120.0, help="longest wait [s]")
    options = parser.parse_args(remove_ros_args(given)[1:])
    if options.rate <= 0:
        parser.error("--rate must be positive")
    begin(given, SignalHandlerOptions.ALL)
    player = None
    try:
        with BagReader(options.bag) as bag:
            names = options.topics or list(bag.topics)
            for name in names:
                bag.require(name)
            frames = options.frames or frame_topic(bag, names)
            player = BagPlayer(bag, names, frames, options.rate)
            player.wait_for_subscribers(options.wait_for, options.patience)
            player.play(options.max_in_flight, options.patience)
    except DataError as error:
        print(f"bag_player: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    finally:
        if player is not None:
            destroy(player)
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
