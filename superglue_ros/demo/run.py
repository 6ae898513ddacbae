"""The demonstration from end to end.

    sequence -> bag -> player =DDS=> node =DDS=> recorder -> bag -> errors, pictures, summary

Player, node and recorder are separate processes in a separate ROS domain.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from superglue_ros.data.bag_sequences import BagSequence, SequenceTopics, write_bag
from superglue_ros.data.sequences.base import ImageSequence
from superglue_ros.demo.pictures import draw_results
from superglue_ros.demo.report import print_summary
from superglue_ros.demo.results import TOPICS, read_results, summarise
from superglue_ros.live.play_and_record import (
    OUTPUT_BAG,
    LiveOptions,
    play_and_record,
    progress_bar,
)

INPUT_BAG, SUMMARY = "input_bag", "summary.json"


def run_sequence(sequence: ImageSequence, options: LiveOptions, console: Console) -> dict[str, Any]:
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
    return run_bag(BagSequence(path, depth=topics.depth), options, console, sequence.name)


def run_bag(
    sequence: BagSequence, options: LiveOptions, console: Console, name: str = ""
) -> dict[str, Any]:
    """Play a bag to the node, record its output, compare and draw; returns the summary."""
    options.output.mkdir(parents=True, exist_ok=True)
    _remove_old_pictures(options.output)
    started = time.monotonic()
    play_and_record(sequence, options, console, TOPICS)
    seconds = time.monotonic() - started
    results = read_results(options.output / OUTPUT_BAG, sequence.trajectory, sequence.camera)
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


def _remove_old_pictures(folder: Path) -> None:
    for pattern in ("matches_*.png", "epipolar_error_*.png", "errors_over_time.png"):
        for path in folder.glob(pattern):
            path.unlink()
