"""The demonstration from end to end.

    sequence -> bag -> player =DDS=> node =DDS=> recorder -> bag -> errors, pictures, summary

Player, node and recorder are separate processes in a separate ROS domain. Without ROS the pipeline
itself reads the bag; what follows is the same.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from superglue_ros.config import Config
from superglue_ros.data.bag_sequences import BagSequence, SequenceTopics, write_bag
from superglue_ros.data.sequences.base import ImageSequence
from superglue_ros.demo.pictures import draw_results
from superglue_ros.demo.report import print_summary
from superglue_ros.demo.results import TOPICS, Results, pipeline_results, read_results, summarise
from superglue_ros.live.play_and_record import (
    OUTPUT_BAG,
    LiveOptions,
    play_and_record,
    progress_bar,
)
from superglue_ros.settings import build, override

INPUT_BAG, SUMMARY = "input_bag", "summary.json"


def run_sequence(
    sequence: ImageSequence, options: LiveOptions, console: Console, ros: bool = True
) -> dict[str, Any]:
    """Write a sequence as a bag and run it; returns the summary."""
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / INPUT_BAG
    topics = SequenceTopics(depth=SequenceTopics.depth if options.use_depth else "")
    with progress_bar(console) as progress:
        task = progress.add_task(f"writing {path}", total=len(sequence))
        write_bag(
            sequence,
            path,
            topics,
            overwrite=True,
            progress=lambda count: progress.update(task, completed=count),
        )
    bag = BagSequence(path, depth=topics.depth, grey=True)
    return run_bag(bag, options, console, sequence.name, ros)


def run_bag(
    sequence: BagSequence,
    options: LiveOptions,
    console: Console,
    name: str = "",
    ros: bool = True,
) -> dict[str, Any]:
    """Play a bag to the node, record its output, compare and draw; returns the summary.

    Without ``ros`` the pipeline matches the bag in this process. ``sequence`` must give grey
    images.
    """
    options.output.mkdir(parents=True, exist_ok=True)
    _remove_old_pictures(options.output)
    started = time.monotonic()
    if ros:
        play_and_record(sequence, options, console, TOPICS)
        results = read_results(options.output / OUTPUT_BAG, sequence.trajectory, sequence.camera)
    else:
        results = _without_ros(sequence, options, console)
    seconds = time.monotonic() - started
    summary = {
        "sequence": name or sequence.name,
        **summarise(results),
        "seconds": round(seconds, 1),
    }
    (options.output / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n")
    with console.status("drawing pictures"):
        pictures = draw_results(results, sequence, options.output, summary["sequence"])
    print_summary(console, summary, pictures, options.output / SUMMARY)
    return summary


def _without_ros(sequence: BagSequence, options: LiveOptions, console: Console) -> Results:
    config = build(Config, override({}, [f"{k}={v}" for k, v in options.parameters.items()]))
    with progress_bar(console) as progress:
        task = progress.add_task("matching without ROS", total=len(sequence))
        return pipeline_results(
            sequence,
            config,
            options.use_depth,
            lambda count: progress.update(task, completed=count),
        )


def _remove_old_pictures(folder: Path) -> None:
    for pattern in ("matches_*.png", "epipolar_error_*.png", "errors_over_time.png"):
        for path in folder.glob(pattern):
            path.unlink()
