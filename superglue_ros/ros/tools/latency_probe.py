"""Measures the matcher node from outside: latency, and the camera rate that it holds.

    python -m superglue_ros.ros.tools.latency_probe --frames 20
    python -m superglue_ros.ros.tools.latency_probe --frames 20 --keypoints 512 1024 --keyframes 1 4

Acts as camera driver and back-end, on images of the built-in sequence with their calibration.

The first form sends one frame at a time. For every answered frame one line of JSON goes to the
standard output: ``latency`` from publishing the image to receiving its matches and ``processing``,
the networks' and geometry's share of it as the node reports it [s].

The second form gives one line of JSON for every number of keypoints with every number of keyframes:
``rate``, the images per second that the node holds without dropping one [Hz], and at that rate the
latency's ``median`` and ``p95`` [s] over so many ``frames``, with the ``precision`` in effect. How
fast the node can be is measured first, with two frames in its hands at all times; that rate, less a
few per cent, is then tried with a clock, and a lower one as long as frames are dropped. ``rate`` is
null where none of ``TRIALS`` is held.
"""

from __future__ import annotations

import argparse
import array
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from rcl_interfaces.srv import SetParameters
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger

from superglue_ros.data.image import to_grey
from superglue_ros.data.sequences.base import SequenceItem
from superglue_ros.msg import MatcherStatus, Matches
from superglue_ros.ros.beginning import begin
from superglue_ros.ros.ending import destroy
from superglue_ros.ros.qos import output_profile
from superglue_ros.srv import AddKeyframe
from superglue_ros.synthetic.demo_room import RoomSequence

STEP_NS = 100_000_000  # between two stamps, whatever the rate: the node goes by the stamps
IN_HAND = 2  # frames: one is in work and one waits, or each of two is in one stage
MARGIN, STEP, TRIALS = 0.97, 0.93, 6
"""The first rate tried, as a share of the fastest, each next one, as a share of the last, and how
many at most."""
LEAST_FRAMES = 10
TRIAL_SECONDS = 5.0
"""Fewer frames than asked for are sent where they would take longer, but at least so many."""
_VIEWS = 40  # of the sequence, there and back again


class ProbeError(Exception):
    """The node does not do what it should, as the message says."""


@dataclass
class _Sent:
    """A frame on its way; times of ``time.perf_counter``, ``matched`` that of its last matches."""

    stamp_ns: int
    published: float = 0.0
    matched: float = 0.0
    answered: float = 0.0
    references: int = 0
    status: MatcherStatus | None = None

    @property
    def latency(self) -> float:
        return self.matched - self.published


class LatencyProbe(Node):
    """Acts as camera driver and back-end. ``patience``: the longest wait for anything [s]."""

    def __init__(self, patience: float, **options: Any) -> None:
        super().__init__("latency_probe", **options)
        profile = output_profile()
        self._patience = patience
        self._image = self.create_publisher(Image, "image", profile)
        self._camera_info = self.create_publisher(CameraInfo, "camera_info", profile)
        self.create_subscription(Matches, "matches", self._hear_matches, profile)
        self.create_subscription(MatcherStatus, "matcher/status", self._hear_status, profile)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self)
        self.room = RoomSequence()
        self._messages: dict[int, tuple[Image, CameraInfo]] = {}
        self._newest = _Sent(stamp_ns=self.room[0].stamp_ns)
        self._sent: dict[int, _Sent] = {}
        self._answered_ns = 0
        self._keyframes = 1

    def wait_for_node(self) -> bool:
        """Wait until the node has subscribed."""
        topics = (self._image, self._camera_info)
        return self._wait(lambda: all(topic.get_subscription_count() for topic in topics))

    # -- one frame at a time -------------------------------------------------------------------

    def time_frame(self, index: int) -> dict[str, float] | None:
        """Publish one frame; None if it has no reference to be matched with, or on no answer."""
        sent = self._send(index)
        self._wait(lambda: sent.status is not None)
        status = sent.status
        if status is None or not sent.matched:
            return None
        processing = status.extract_seconds + status.match_seconds + status.geometry_seconds
        return {"latency": sent.latency, "processing": processing}

    # -- rates ---------------------------------------------------------------------------------

    def held_rate(self, keypoints: int, keyframes: int, frames: int) -> dict[str, Any]:
        """The rate that the node holds with these settings; see the module."""
        for index in range(min(_VIEWS, max(frames, LEAST_FRAMES, keyframes))):
            self._message(index)  # drawing one takes as long as matching it
        self._prepare(keypoints, keyframes)
        rate = MARGIN * self._fastest(LEAST_FRAMES)
        found: dict[str, Any] = {"keypoints": keypoints, "keyframes": keyframes}
        for _ in range(TRIALS):
            count = max(LEAST_FRAMES, min(frames, int(TRIAL_SECONDS * rate)))
            answered = self._try(rate, count)
            if answered is not None:
                break
            rate *= STEP
        else:
            return {**found, "rate": None}
        fewest = min(one.references for one in answered)
        if fewest < keyframes:
            raise ProbeError(f"a frame was matched with {fewest} keyframes instead of {keyframes}")
        latencies = [one.latency for one in answered]
        status = answered[-1].status
        return {
            **found,
            "rate": rate,
            "median": float(np.median(latencies)),
            "p95": float(np.quantile(latencies, 0.95)),
            "frames": len(answered),
            "precision": "" if status is None else status.precision,
        }

    def _prepare(self, keypoints: int, keyframes: int) -> None:
        """Change the settings, and fill the window with keyframes."""
        values = {"front_end.max_keypoints": keypoints, "keyframes.window": keyframes}
        request = SetParameters.Request(
            parameters=[Parameter(k, value=v).to_parameter_msg() for k, v in values.items()]
        )
        results = self._call(SetParameters, "matcher/set_parameters", request).results
        refused = [result.reason for result in results if not result.successful]
        if refused:
            raise ProbeError("; ".join(refused))
        self._keyframes = keyframes
        self._asked(Trigger, "matcher/reset", Trigger.Request())
        for index in range(keyframes):
            self._settle(self._send(index))
            self._asked(AddKeyframe, "matcher/add_keyframe", AddKeyframe.Request())

    def _fastest(self, frames: int) -> float:
        """Frames per second [Hz] while ``IN_HAND`` are with the node at all times."""
        self._settle(self._newest)
        sent: list[_Sent] = []
        for index in _there_and_back(frames):
            if len(sent) >= IN_HAND:
                self._settle(sent[-IN_HAND])
            sent.append(self._send(index))
        self._settle(self._newest)
        answered = [one.answered for one in sent if one.answered]
        if len(answered) < 2:
            raise ProbeError(f"of {frames} frames the node answered {len(answered)}")
        return (len(answered) - 1) / (answered[-1] - answered[0])

    def _try(self, rate: float, frames: int) -> list[_Sent] | None:
        """Send frames by the clock; None as soon as one is known to be dropped."""
        self._settle(self._newest)
        sent: list[_Sent] = []

        def lost() -> bool:
            return any(one.status is None for one in sent if one.stamp_ns < self._answered_ns)

        began = time.perf_counter()
        for number, index in enumerate(_there_and_back(frames)):
            while (left := began + number / rate - time.perf_counter()) > 0:
                self._executor.spin_once(timeout_sec=left)
            if lost():
                return None
            sent.append(self._send(index))
        self._settle(sent[-1])
        if lost():
            return None
        # A frame's status may be here before its last matches.
        self._wait(lambda: min(one.references for one in sent) >= self._keyframes)
        return sent

    def _settle(self, sent: _Sent) -> None:
        """Wait until the node is done with a frame: answered it, or a later one in its place."""
        if not self._wait(lambda: self._answered_ns >= sent.stamp_ns):
            raise ProbeError(f"no answer to a frame within {self._patience:.0f} s")

    # -- messages ------------------------------------------------------------------------------

    def _send(self, index: int) -> _Sent:
        """Publish the frame ``index`` of the sequence with a new stamp."""
        image, camera_info = self._message(index)
        sent = self._newest = _Sent(stamp_ns=self._newest.stamp_ns + STEP_NS)
        self._sent[sent.stamp_ns] = sent
        seconds, nanoseconds = divmod(sent.stamp_ns, 10**9)
        for message in (image, camera_info):
            message.header.stamp = Time(sec=seconds, nanosec=nanoseconds)
        self._camera_info.publish(camera_info)
        sent.published = time.perf_counter()
        self._image.publish(image)
        return sent

    def _message(self, index: int) -> tuple[Image, CameraInfo]:
        if index not in self._messages:
            self._messages[index] = _messages(self.room[index])
        return self._messages[index]

    def _hear_matches(self, matches: Matches) -> None:
        sent = self._sent.get(_nanoseconds(matches.header.stamp))
        if sent is not None:
            sent.matched = time.perf_counter()
            sent.references += matches.kind == Matches.KEYFRAME

    def _hear_status(self, status: MatcherStatus) -> None:
        sent = self._sent.get(_nanoseconds(status.header.stamp))
        if sent is not None:
            sent.status, sent.answered = status, time.perf_counter()
            self._answered_ns = max(self._answered_ns, sent.stamp_ns)

    def _asked(self, kind: Any, name: str, request: Any) -> None:
        answer = self._call(kind, name, request)
        if not answer.success:
            raise ProbeError(f"{name}: {answer.message}")

    def _call(self, kind: Any, name: str, request: Any) -> Any:
        client = self.create_client(kind, name)
        if not client.wait_for_service(self._patience):
            raise ProbeError(f"there is no service {name}")
        future = client.call_async(request)
        self._executor.spin_until_future_complete(future, self._patience)
        self.destroy_client(client)
        if not future.done():
            raise ProbeError(f"{name} does not answer")
        return future.result()

    def _wait(self, condition: Any) -> bool:
        end = time.monotonic() + self._patience
        while not condition():
            if time.monotonic() > end:
                return False
            self._executor.spin_once(timeout_sec=0.05)
        return True


def _there_and_back(count: int) -> Iterator[int]:
    """So many places in the sequence, each next to the one before."""
    lap = [*range(_VIEWS), *range(_VIEWS - 2, 0, -1)]
    return (lap[number % len(lap)] for number in range(count))


def _nanoseconds(stamp: Time) -> int:
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def _messages(item: SequenceItem) -> tuple[Image, CameraInfo]:
    grey = to_grey(item.image)
    height, width = grey.shape
    image = Image(height=height, width=width, encoding="mono8", step=width)
    image.data = array.array("B", grey.tobytes())
    camera_info = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
    assert item.camera is not None
    camera_info.k = np.asarray(item.camera.matrix, np.float64).ravel().tolist()
    for message in (image, camera_info):
        message.header.frame_id = "camera_optical"
    return image, camera_info


def main(args: list[str] | None = None) -> int:
    """Measure; exit code 1 where the node does not answer."""
    given = sys.argv if args is None else ["latency_probe", *args]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--keypoints", type=int, nargs="+", default=[])
    parser.add_argument("--keyframes", type=int, nargs="+", default=[1])
    parser.add_argument("--patience", type=float, default=120.0, help="longest wait [s]")
    options = parser.parse_args(remove_ros_args(given)[1:])
    begin(given, SignalHandlerOptions.ALL)
    probe = None
    try:
        probe = LatencyProbe(options.patience)
        if not probe.wait_for_node():
            raise ProbeError("no node subscribed to image and camera_info")
        for keypoints in options.keypoints:
            for keyframes in options.keyframes:
                row = probe.held_rate(keypoints, keyframes, options.frames)
                print(json.dumps(row), flush=True)
        for index in range(0 if options.keypoints else min(options.frames, len(probe.room))):
            timed = probe.time_frame(index)
            if timed is not None:
                print(json.dumps(timed), flush=True)
    except ProbeError as error:
        print(f"latency_probe: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    finally:
        if probe is not None:
            destroy(probe)
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
