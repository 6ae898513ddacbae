"""The node from outside: latency of a frame, and the camera rate that it holds."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from superglue_ros.live.processes import Children

RATE_KEYPOINTS = (512, 1024)
RATE_KEYFRAMES = (1, 4)


@dataclass(frozen=True)
class NodeRow:
    """Medians in seconds; ``overhead`` is a frame's latency less its processing."""

    frames: int
    width: int
    height: int
    keypoints: int
    latency: float
    processing: float
    overhead: float
    overhead_p90: float


@dataclass(frozen=True)
class NodeSettings:
    """How the node is started: as its parameters of these names."""

    weights: str
    precision: str
    overlap: str


RATE_SETTINGS = (
    *(
        NodeSettings(weights, precision, "never")
        for weights in ("small", "wide")
        for precision in ("float32", "bfloat16")
    ),
    NodeSettings("small", "bfloat16", "always"),
)


@dataclass(frozen=True)
class RateRow:
    """The images per second that the node holds without dropping one, and its latency at that rate.

    ``rate`` [Hz], None where none that was tried is held; ``median`` and ``p95`` seconds over
    ``frames``; ``precision`` is the one in effect.
    """

    weights: str
    precision: str
    overlap: str
    keypoints: int
    keyframes: int
    rate: float | None
    median: float = float("nan")
    p95: float = float("nan")
    frames: int = 0


def measure_node(output: Path, frames: int, keypoints: int = 512) -> NodeRow | None:
    """Run the node and a probe as separate processes; None without a ROS environment.

    Raises :class:`~superglue_ros.live.processes.ProcessError` where one of them fails.
    """
    rows = list(_probed(output, {"front_end.max_keypoints": keypoints}, f"--frames={frames}"))
    if not rows:
        return None
    latency = np.array([row["latency"] for row in rows])
    processing = np.array([row["processing"] for row in rows])
    return NodeRow(
        frames=len(rows),
        width=640,
        height=480,
        keypoints=keypoints,
        latency=float(np.median(latency)),
        processing=float(np.median(processing)),
        overhead=float(np.median(latency - processing)),
        overhead_p90=float(np.quantile(latency - processing, 0.9)),
    )


def held_rates(
    output: Path,
    settings: Sequence[NodeSettings] = RATE_SETTINGS,
    keypoints: Sequence[int] = RATE_KEYPOINTS,
    keyframes: Sequence[int] = RATE_KEYFRAMES,
    frames: int = 20,
) -> Iterator[RateRow]:
    """The rates with each of the settings, one process of the node for each; see the probe.

    None without a ROS environment. Raises as :func:`measure_node`.
    """
    sizes = ["--keypoints", *map(str, keypoints), "--keyframes", *map(str, keyframes)]
    for one in settings:
        parameters = {
            "matcher.weights": one.weights,
            "precision": one.precision,
            "overlap": one.overlap,
            # Images that are lost on the way say nothing about the node.
            "qos_overrides./image.subscription.reliability": "reliable",
            "qos_overrides./camera_info.subscription.reliability": "reliable",
        }
        for row in _probed(output, parameters, f"--frames={frames}", *sizes):
            yield RateRow(**{**asdict(one), **row})


def _probed(output: Path, parameters: dict[str, Any], *arguments: str) -> Iterator[dict[str, Any]]:
    """What the probe says of a node with these parameters, line by line as it comes."""
    if find_spec("rclpy") is None or find_spec("superglue_ros.msg") is None:
        return
    output.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "ROS_DOMAIN_ID": str(10 + secrets.randbelow(200))}
    with Children(output, env) as children:
        given = {"autostart": "true", **parameters}
        options = [word for k, v in given.items() for word in ("-p", f"{k}:={v}")]
        node = children.start("matcher", "superglue_ros.ros.start", "--ros-args", *options)
        probe = children.start("probe", "superglue_ros.ros.tools.latency_probe", *arguments)
        while (line := probe.line(timeout=0.2)) is not None or probe.exit_code is None:
            node.check_running()
            if line is not None and line.startswith("{"):
                yield json.loads(line)
        probe.check()
