"""Play a bag to a separate node and record its output, over real DDS.

    bag -> player =DDS=> node =DDS=> recorder -> bag

Player, node and recorder are separate processes in a separate ROS domain. Used by the demonstration
and ``evaluate bag --live``; the benchmark uses its processes.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from superglue_ros.data.bag_sequences import COMPRESSED, BagSequence
from superglue_ros.data.bags import BagReader
from superglue_ros.errors import ConfigError
from superglue_ros.live.processes import Child, Children, ProcessError

OUTPUT_BAG = "output_bag"

_IN_FLIGHT = 2  # frames ahead of the node: it never waits, and no queue builds up
_PATIENCE_SECONDS = 180.0  # for a start-up on a slow machine, or for one frame


@dataclass(frozen=True)
class LiveOptions:
    """How to run: output folder, pace, node parameters (dotted names to YAML values)."""

    output: Path
    rate: float = 1.0
    use_depth: bool = False
    domain_id: int | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)


def play_and_record(
    sequence: BagSequence,
    options: LiveOptions,
    console: Console,
    recorded: Sequence[str],
) -> None:
    """Play a bag to a separate node and record its output into ``OUTPUT_BAG``.

    Needs a ROS environment; raises :class:`ConfigError` or :class:`ProcessError`.
    """
    _require_ros()
    domain = options.domain_id if options.domain_id is not None else 1 + secrets.randbelow(100)
    env = {**os.environ, "ROS_DOMAIN_ID": str(domain)}
    topics = sequence.topics
    played = [t for t in (topics.image, topics.camera_info, topics.depth) if t]
    if not options.use_depth and topics.depth:
        played.remove(topics.depth)
    with Children(options.output, env) as children:
        # Start all at once: the player waits for the inputs of node and recorder.
        player = children.start(
            "player",
            "superglue_ros.ros.tools.bag_player",
            str(sequence.path),
            *("--topics", *played, "--frames", topics.image, "--wait-for", *played, *recorded),
            f"--max-in-flight={_IN_FLIGHT}",
            f"--rate={options.rate}",
            f"--patience={_PATIENCE_SECONDS}",
        )
        recorder = children.start(
            "recorder",
            "superglue_ros.ros.tools.bag_recorder",
            str(options.output / OUTPUT_BAG),
            *recorded,
            "--overwrite",
            f"--patience={_PATIENCE_SECONDS}",
            *("--ros-args", "-p", "use_sim_time:=true"),
        )
        node = children.start(
            "matcher", "superglue_ros.ros.start", *_node_arguments(sequence, options)
        )
        with progress_bar(console) as progress:
            task = progress.add_task(f"matching in ROS domain {domain}", total=len(sequence))
            while player.exit_code is None:
                node.check_running()
                recorder.check_running()
                _check_started(node)
                line = player.line(timeout=0.2)
                if line is not None and line.startswith("{"):
                    progress.update(task, completed=json.loads(line)["answered"])
            player.check()
            progress.update(task, completed=len(sequence))
        for child in (node, recorder):
            child.stop(_PATIENCE_SECONDS)
            child.check()


def _node_arguments(sequence: BagSequence, options: LiveOptions) -> list[str]:
    topics = sequence.topics
    with BagReader(sequence.path) as bag:
        compressed = bag.topics[topics.image].type == COMPRESSED
        infos = bag.topics[topics.camera_info].count if topics.camera_info else 0
    # Drivers that publish their calibration rarely, and bags without any, still give matches.
    calibration = "synchronised" if infos == len(sequence) else ("latest" if infos else "none")
    parameters = {
        "autostart": "true",
        "use_sim_time": "true",
        "intake.mode": "lossless",
        "image_transport": "compressed" if compressed else "raw",
        "inputs.camera_info": calibration,
        "inputs.silent_after": "600.0",  # the player waits for the node, not the other way round
        "inputs.depth": "true" if options.use_depth and topics.depth else "false",
        **options.parameters,
    }
    names = {
        "image/compressed" if compressed else "image": topics.image,
        "camera_info": topics.camera_info,
        "depth": topics.depth,
    }
    arguments = ["--ros-args"]
    for key, value in parameters.items():
        arguments += ["-p", f"{key}:={value}"]
    for own, given in names.items():
        if given:
            arguments += ["-r", f"{own}:={given}"]
    return arguments


def _check_started(node: Child) -> None:
    """Raise if the node could not be configured: it then keeps running, to be corrected by hand."""
    errors = [line for line in node.log_lines() if "cannot be" in line]
    if errors:
        raise ProcessError(f"the node did not start: {errors[0]}\n{node.log} tells more")


def _require_ros() -> None:
    if find_spec("rclpy") is None or find_spec("superglue_ros.msg") is None:
        raise ConfigError(
            "the demonstration needs ROS 2 and this package's messages: run `make demo`, which "
            "sets both up, or source the ROS distribution and install/setup.bash; `--no-ros` runs "
            "the pipeline alone"
        )


def progress_bar(console: Console) -> Progress:
    """A progress bar on ``console``."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console)
