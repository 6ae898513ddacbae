"""Looks at the node once a second: warnings, diagnostics, and the end where it cannot go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header

from superglue_ros.ros.diagnostics import (
    Counter,
    Counts,
    Health,
    diagnostic_status,
    failure,
    input_status,
)
from superglue_ros.ros.input_health import InputHealth, judge_input
from superglue_ros.ros.inputs import CameraInputs
from superglue_ros.ros.intake import Worker
from superglue_ros.ros.node_config import NodeConfig
from superglue_ros.ros.parameters import Settings
from superglue_ros.ros.processing import FrameProcessor
from superglue_ros.ros.window import Window

_WATCH_SECONDS = 1.0


@dataclass(frozen=True, eq=False)
class Parts:
    """What there is of the node at a moment: most of it only while it is configured."""

    state: str
    problem: str
    configuring_seconds: float
    settings: Settings | None
    processor: FrameProcessor | None
    worker: Worker[Any, Any] | None
    inputs: Sequence[CameraInputs]


class Watch:
    """Publishes ``/diagnostics`` of ``node``, in every state of the life cycle.

    A thread of its own, which looks on while the executor loads networks, and whatever the clock of
    ROS does.

    ``parts`` gives what is to be looked at. ``on_failure`` is called with the reason where the node
    cannot go on by itself and ``watchdog.exit_on_failure`` asks for its end.
    """

    def __init__(
        self,
        node: LifecycleNode,
        counter: Counter,
        parts: Callable[[], Parts],
        on_failure: Callable[[str], None],
    ) -> None:
        self._node = node
        self._counter = counter
        self._parts = parts
        self._on_failure = on_failure
        self.start()
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def start(self) -> None:
        """The counts start from zero."""
        self._counts = Window(Counts(), time.monotonic())
        self._warned_of_queue = False

    def stop(self) -> None:
        """Look no more; to be called before the node is destroyed."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_WATCH_SECONDS):
            try:
                self._look()
            except Exception as error:  # or an operator would see nothing from then on
                self._node.get_logger().error(f"the watch failed: {error!r}")

    def _look(self) -> None:
        parts = self._parts()
        settings = parts.settings.node if parts.settings is not None else NodeConfig()
        window, silent_after = settings.watchdog.window, settings.inputs.silent_after
        inputs: list[InputHealth] = []
        for camera in parts.inputs:
            found = camera.look(window)
            for text in camera.warnings(found, silent_after):
                self._node.get_logger().warning(text)
            inputs += found
        health = self._health(parts, settings, inputs)
        self._warn_of_long_queue(health, settings.intake.warn_at)
        self._publish(health, settings, inputs, parts.settings.core.robot if parts.settings else "")
        reason = failure(health)
        if reason and settings.watchdog.exit_on_failure:
            self._on_failure(reason)

    def _health(self, parts: Parts, settings: NodeConfig, inputs: Sequence[InputHealth]) -> Health:
        counts, processor, worker = self._counter.snapshot(), parts.processor, parts.worker
        before, seconds = self._counts.look(counts, time.monotonic(), settings.watchdog.window)
        silent = (i.state for i in inputs if i.state.silent_s > settings.inputs.silent_after)
        return Health(
            state=parts.state,
            problem=parts.problem,
            configuring_seconds=parts.configuring_seconds,
            configure_within=settings.watchdog.configure_within,
            counts=counts,
            recent=counts.since(before),
            window=seconds,
            unsynchronised=sum(camera.unsynchronised for camera in parts.inputs),
            missing=sum(camera.missing for camera in parts.inputs),
            waiting=worker.waiting if worker is not None else 0,
            keyframes=processor.keyframes if processor is not None else 0,
            last_refusal=processor.last_refusal if processor is not None else "",
            seconds_per_frame=processor.last_seconds.total if processor is not None else 0.0,
            device=processor.device if processor is not None else "",
            silent=tuple(state.topic for state in silent),
            lossless=settings.intake.mode == "lossless",
            waiting_mib=worker.waiting_bytes / 2**20 if worker is not None else 0.0,
            busy_seconds=worker.busy_seconds if worker is not None else 0.0,
            hung_after=settings.watchdog.hung_after,
            failures=processor.failures if processor is not None else 0,
            unplaced=processor.unplaced if processor is not None else "",
        )

    def _publish(
        self, health: Health, settings: NodeConfig, inputs: Sequence[InputHealth], robot: str
    ) -> None:
        name = self._node.get_fully_qualified_name()
        verdicts = [
            judge_input(
                one,
                silent_after=settings.inputs.silent_after,
                min_rate=settings.inputs.min_rate,
                window=settings.watchdog.window,
            )
            for one in inputs
        ]
        self._publisher.publish(
            DiagnosticArray(
                header=Header(stamp=self._node.get_clock().now().to_msg()),
                status=[
                    diagnostic_status(health, name, robot),
                    *(
                        input_status(one, verdict, name, robot)
                        for one, verdict in zip(inputs, verdicts, strict=True)
                    ),
                ],
            )
        )

    def _warn_of_long_queue(self, health: Health, warn_at: int) -> None:
        if health.waiting >= warn_at and not self._warned_of_queue:
            self._warned_of_queue = True
            self._node.get_logger().warning(
                f"{health.waiting} images wait to be matched and keep memory: play the bag more "
                f"slowly, or set intake.mode to latest"
            )
