"""A real matcher process and a peer that talks to it over real DDS.

Nothing here sleeps to synchronise: every wait is for a condition, with a generous limit.
"""

from __future__ import annotations

import array
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from superglue_ros.live.processes import die_with_parent
from superglue_ros.msg import Features, MatcherStatus, Matches, RelativePose

WIDTH, HEIGHT = 200, 150
START_PATIENCE = 150.0  # seconds, for a process that has to import torch on a busy machine
PATIENCE = 80.0  # seconds, for anything that should come

# SIFT and mutual nearest neighbours: real matching, in milliseconds.
QUICK = {
    "front_end.name": "sift",
    "front_end.max_keypoints": 300,
    "matcher.name": "mutual",
    "geometry.min_matches": 15,
    "inputs.silent_after": 5.0,
    "warm_up": False,
}

# Names of the matcher's private outputs, seen from its namespace.
PRIVATE = {name: f"matcher/{name}" for name in ("features", "status", "matches_image")}


def texture() -> np.ndarray:
    """A blurred random texture larger than an image, so that it can be shifted."""
    noise = np.random.default_rng(7).integers(0, 256, (HEIGHT + 80, WIDTH + 80), np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX)


TEXTURE = texture()


def picture(shift: int = 0) -> np.ndarray:
    """A grey image; a point at x without shift is at x - shift with it."""
    return np.ascontiguousarray(TEXTURE[40 : 40 + HEIGHT, 40 + shift : 40 + shift + WIDTH])


def stamp(seconds: float) -> Time:
    nanoseconds = round(seconds * 1e9)
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def seconds(time_message: Time) -> float:
    return time_message.sec + time_message.nanosec * 1e-9


def image_message(image: np.ndarray, at: float, encoding: str = "mono8") -> Image:
    message = Image(
        height=image.shape[0], width=image.shape[1], encoding=encoding, step=image.strides[0]
    )
    message.header.stamp = stamp(at)
    message.header.frame_id = "camera_optical"
    message.data = array.array("B", image.tobytes())
    return message


def compressed_message(image: np.ndarray, at: float, ending: str = ".png") -> CompressedImage:
    message = CompressedImage(format=ending[1:])
    message.header.stamp = stamp(at)
    message.header.frame_id = "camera_optical"
    message.data = array.array("B", cv2.imencode(ending, image)[1].tobytes())
    return message


def camera_info(at: float, width: int = WIDTH, height: int = HEIGHT) -> CameraInfo:
    message = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
    message.header.stamp = stamp(at)
    message.header.frame_id = "camera_optical"
    message.k = [200.0, 0.0, width / 2, 0.0, 200.0, height / 2, 0.0, 0.0, 1.0]
    message.p = [200.0, 0.0, width / 2, 0.0, 0.0, 200.0, height / 2, 0.0, 0.0, 0.0, 1.0, 0.0]
    return message


def keypoints_message(points: np.ndarray, at: float) -> Features:
    message = Features(width=WIDTH, height=HEIGHT)
    message.header.stamp = stamp(at)
    points = np.asarray(points, np.float32).reshape(-1, 2)
    message.u = array.array("f", points[:, 0].tobytes())
    message.v = array.array("f", points[:, 1].tobytes())
    return message


class Peer:
    """A camera driver and a back-end in one: publishes inputs, collects outputs, calls services."""

    def __init__(self, namespace: str = "", topics: dict[str, str] | None = None) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self.node = rclpy.create_node(
            "peer", namespace=namespace, context=self._context, start_parameter_services=False
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._topics = {**PRIVATE, **(topics or {})}
        self._changed = threading.Condition()
        self.received: dict[str, list[Any]] = {}
        self._publishers: dict[str, Any] = {}
        self._clients: dict[str, Any] = {}
        for topic, kind in {
            "matches": Matches,
            "relative_pose": RelativePose,
            "features": Features,
            "status": MatcherStatus,
            "/diagnostics": DiagnosticArray,
        }.items():
            self.subscribe(topic, kind)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(rclpy.executors.ExternalShutdownException):
            self._executor.spin()

    def close(self) -> None:
        self._context.try_shutdown()
        self._thread.join(10)
        self.node.destroy_node()

    def _name(self, topic: str) -> str:
        return self._topics.get(topic, topic)

    def subscribe(self, topic: str, kind: type) -> Any:
        self.received.setdefault(topic, [])
        qos = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
        return self.node.create_subscription(
            kind, self._name(topic), lambda message: self._store(topic, message), qos
        )

    def _store(self, topic: str, message: Any) -> None:
        with self._changed:
            self.received[topic].append(message)
            self._changed.notify_all()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait(self, condition: Callable[[], Any], what: str, limit: float = PATIENCE) -> Any:
        """Wait for ``condition``, looked at whenever a message comes and ten times a second."""
        end = time.monotonic() + limit
        with self._changed:
            while not (found := condition()):
                assert time.monotonic() < end, f"waited {limit:.0f} s in vain for {what}"
                self._changed.wait(0.1)
        return found

    def publisher(self, topic: str, kind: type, qos: Any = None, ready: bool = True) -> Any:
        """The publisher of a topic; waits until the node subscribes."""
        if topic not in self._publishers:
            self._publishers[topic] = self.node.create_publisher(
                kind, self._name(topic), qos or QoSProfile(depth=1000)
            )
        publisher = self._publishers[topic]
        if ready:
            self.wait(publisher.get_subscription_count, f"a subscription to {topic}")
        return publisher

    def drop_publisher(self, topic: str) -> None:
        self.node.destroy_publisher(self._publishers.pop(topic))

    def send(self, at: float, shift: int = 0, **others: Any) -> None:
        """Publish one frame: an image with its camera_info, and ``others`` by topic.

        ``image`` and ``camera_info`` in ``others`` take the place of the usual ones, None = none.
        """
        messages = {
            "camera_info": camera_info(at),
            **others,
            "image": others.get("image", image_message(picture(shift), at)),
        }
        for topic, message in messages.items():
            if message is not None:
                name = "image/compressed" if isinstance(message, CompressedImage) else topic
                self.publisher(name, type(message)).publish(message)

    def outputs(self, topic: str, at: float) -> list[Any]:
        """Messages of an output about the frame of that stamp."""
        return [m for m in self.received[topic] if abs(seconds(m.header.stamp) - at) < 1e-6]

    def output(self, topic: str, at: float) -> Any:
        """The first message of an output about the frame of that stamp, waited for."""
        return self.wait(lambda: self.outputs(topic, at), f"{topic} of {at}")[0]

    def call(self, service: str, kind: Any, request: Any, limit: float = PATIENCE) -> Any:
        """Call a service of the node and wait for the answer."""
        if service not in self._clients:
            self._clients[service] = self.node.create_client(kind, self._name(service))
        client = self._clients[service]
        assert client.wait_for_service(START_PATIENCE), f"no service {service}"
        future = client.call_async(request)
        future.add_done_callback(lambda _: self._notify())
        self.wait(future.done, f"an answer of {service}", limit)
        return future.result()


class Matcher:
    """A matcher process, told what to do through its services.

    ``within`` is a command that starts another one; ``peer`` stays when the process ends.
    """

    def __init__(
        self,
        log: Path,
        parameters: dict[str, Any],
        *,
        arguments: tuple[str, ...] = (),
        namespace: str = "",
        topics: dict[str, str] | None = None,
        program: tuple[str, ...] = ("-m", "superglue_ros.ros.start"),
        within: tuple[str, ...] = (),
        peer: Peer | None = None,
    ) -> None:
        self._log = log
        self.name = f"{namespace}/matcher"
        command = [*within, sys.executable, *program, "--ros-args"]
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ["-p", f"{name}:={text}"]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},  # small images, and other tests run
                preexec_fn=partial(die_with_parent, os.getpid()),
            )
        self.peer = peer or Peer(namespace, topics)
        self.clock = 100.0  # stamps of the frames that tests send

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_for_log(self, text: str, since: int = 0) -> str:
        """Wait until ``text`` is logged (after ``since`` characters); returns its line."""
        self.peer.wait(
            lambda: text in self.log[since:], f"{text!r} in the log:\n{self.log[since:]}"
        )
        return next(line for line in self.log[since:].splitlines() if text in line)

    def state(self) -> str:
        return self.peer.call(
            f"{self.name}/get_state", GetState, GetState.Request()
        ).current_state.label

    def transition(self, number: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=number))
        return self.peer.call(f"{self.name}/change_state", ChangeState, request).success

    def configure(self) -> bool:
        return self.transition(Transition.TRANSITION_CONFIGURE)

    def activate(self) -> bool:
        return self.transition(Transition.TRANSITION_ACTIVATE)

    def deactivate(self) -> bool:
        return self.transition(Transition.TRANSITION_DEACTIVATE)

    def cleanup(self) -> bool:
        return self.transition(Transition.TRANSITION_CLEANUP)

    def set(self, **values: Any) -> list[Any]:
        """Set parameters (dots written as two underscores); returns the results."""
        named = {name.replace("__", "."): value for name, value in values.items()}
        return self.set_parameters(named)

    def set_parameters(self, values: dict[str, Any]) -> list[Any]:
        request = SetParameters.Request(
            parameters=[Parameter(n, value=v).to_parameter_msg() for n, v in values.items()]
        )
        return self.peer.call(f"{self.name}/set_parameters", SetParameters, request).results

    def get(self, name: str) -> Any:
        request = GetParameters.Request(names=[name])
        return self.peer.call(f"{self.name}/get_parameters", GetParameters, request).values[0]

    def describe(self, name: str) -> Any:
        request = DescribeParameters.Request(names=[name])
        service = f"{self.name}/describe_parameters"
        return self.peer.call(service, DescribeParameters, request).descriptors[0]

    def tick(self) -> float:
        """The stamp of the next frame."""
        self.clock = round(self.clock + 0.1, 3)
        return self.clock

    def prime(self, **others: Callable[[float], Any]) -> float:
        """Send the unshifted image until all outputs have come: both sides know each other then.

        Returns the stamp of the last frame that all came for. The first frame of all becomes the
        keyframe.
        """
        topics = ("matches", "relative_pose", "features", "status")
        sent: list[float] = []

        def answered() -> float | None:
            return next((at for at in reversed(sent) if whole(at)), None)

        def whole(at: float) -> bool:
            return all(self.peer.outputs(topic, at) for topic in topics)

        end = time.monotonic() + PATIENCE
        while answered() is None:
            assert time.monotonic() < end, f"the node is not matching:\n{self.log}"
            sent.append(self.tick())
            self.peer.send(sent[-1], **{topic: make(sent[-1]) for topic, make in others.items()})
            with contextlib.suppress(AssertionError):
                self.peer.wait(answered, "all outputs", 0.5)
        # On a slow machine several were sent before the first answer: none is left in work.
        with contextlib.suppress(AssertionError):
            self.peer.wait(lambda: whole(sent[-1]), "the last frame's outputs", 5.0)
        found = answered()
        assert found is not None
        return found

    def stop(self) -> int:
        """Interrupt as Ctrl-C does, which reaches a launched node twice; return the exit code."""
        self.process.send_signal(signal.SIGINT)
        time.sleep(0.05)
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.kill()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.peer.close()
