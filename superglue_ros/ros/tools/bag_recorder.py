"""Record topics into a rosbag2 directory, for machines without ``ros2 bag``.

    ros2 run superglue_ros bag_recorder BAG /matches /relative_pose

Messages are stored as they arrive. SIGINT or SIGTERM close the bag properly, with all messages
received until then. The line ``ready`` on the standard output says that every topic has a
publisher.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args

from superglue_ros.data.bags import STORAGES, BagWriter
from superglue_ros.errors import DataError
from superglue_ros.ros.beginning import begin
from superglue_ros.ros.ending import destroy
from superglue_ros.ros.tools.bag_player import message_class

_DEPTH = 1000
_POLL = 0.1  # seconds between checks for signals
_DRAIN = 10  # polls without a message after which none is left


class BagRecorder(Node):
    """Writes all messages of some topics into an open bag.

    With ``use_sim_time`` the time of recording is that of ``/clock``.
    """

    def __init__(self, bag: BagWriter) -> None:
        super().__init__("bag_recorder")
        self._bag = bag
        self.counts: dict[str, int] = {}

    def wait_for_topics(
        self, names: Sequence[str], timeout: float, stopped: threading.Event
    ) -> None:
        """Subscribe to each topic as soon as a publisher shows its type.

        Ends early when ``stopped``.

        Raises :class:`DataError` after ``timeout`` seconds.
        """
        end = time.monotonic() + timeout
        missing = [self.resolve_topic_name(name) for name in names]
        while missing and not stopped.is_set():
            known = dict(self.get_topic_names_and_types())
            for name in [n for n in missing if n in known and self.count_publishers(n)]:
                self._record(name, known[name][0])
                missing.remove(name)
            if missing and time.monotonic() > end:
                raise DataError(f"no publisher on {', '.join(missing)} within {timeout:.0f} s")
            rclpy.spin_once(self, timeout_sec=0.05)

    def _record(self, name: str, kind: str) -> None:
        self._bag.add_topic(name, kind)
        self.counts[name] = 0
        profile = QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
        self.create_subscription(message_class(kind), name, self._writer(name), profile, raw=True)

    def _writer(self, name: str) -> Callable[[Any], None]:
        def write(data: bytes) -> None:
            self._bag.write_serialised(name, self.get_clock().now().nanoseconds, data)
            self.counts[name] += 1

        return write

    def record_until(self, stopped: threading.Event) -> None:
        """Store messages until ``stopped``, then those that are still queued."""
        while not stopped.is_set():
            rclpy.spin_once(self, timeout_sec=_POLL)
        before = -1
        while (stored := sum(self.counts.values())) > before:
            before = stored
            for _ in range(_DRAIN):
                rclpy.spin_once(self, timeout_sec=0.0)


def main(args: list[str] | None = None) -> int:
    """Record until interrupted; exit code 0, or 1 with a reason."""
    given = sys.argv if args is None else ["bag_recorder", *args]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bag", help="rosbag2 directory to write")
    parser.add_argument("topics", nargs="+", help="topics to record")
    parser.add_argument("--storage", choices=STORAGES, default="mcap")
    parser.add_argument("--overwrite", action="store_true", help="replace an older bag")
    parser.add_argument("--patience", type=float, default=120.0, help="wait for topics [s]")
    options = parser.parse_args(remove_ros_args(given)[1:])
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    # rclpy's own handlers would close the subscriptions with messages still in them.
    begin(given)
    recorder = None
    try:
        with BagWriter(options.bag, options.storage, options.overwrite) as bag:
            recorder = BagRecorder(bag)
            recorder.wait_for_topics(options.topics, options.patience, stopped)
            if not stopped.is_set():
                print("ready", flush=True)
            recorder.record_until(stopped)
        for name, count in recorder.counts.items():
            print(f"{name}: {count} messages", flush=True)
    except DataError as error:
        print(f"bag_recorder: {error}", file=sys.stderr)
        return 1
    finally:
        if recorder is not None:
            destroy(recorder)
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
