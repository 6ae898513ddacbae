"""Latency of the node, from publishing an image to receiving its matches."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from superglue_ros.live.processes import Children

_PATIENCE_SECONDS = 120


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


def measure_node(output: Path, frames: int, keypoints: int = 512) -> NodeRow | None:
    """Run the node and a probe as separate processes; None without a ROS environment.

    Raises :class:`~superglue_ros.live.processes.ProcessError` where one of them fails.
    """
    if find_spec("rclpy") is None or find_spec("superglue_ros.msg") is None:
        return None
    output.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "ROS_DOMAIN_ID": str(10 + secrets.randbelow(200))}
    with Children(output, env) as children:
        parameters = ["autostart:=true", f"front_end.max_keypoints:={keypoints}"]
        options = [word for parameter in parameters for word in ("-p", parameter)]
        node = children.start("matcher", "superglue_ros.ros.start", "--ros-args", *options)
        probe = children.start(
            "probe", "superglue_ros.ros.tools.latency_probe", f"--frames={frames}"
        )
        timed = []
        while probe.exit_code is None:
            node.check_running()
            timed.append(probe.line(timeout=0.2))
        probe.check()
        timed += [probe.line(timeout=0.1) for _ in range(frames)]
    rows = [json.loads(line) for line in timed if line is not None and line.startswith("{")]
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
