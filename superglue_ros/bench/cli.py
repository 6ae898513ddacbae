"""``superglue-ros bench`` and ``superglue-ros export``."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from superglue_ros.bench import measure
from superglue_ros.bench.device import device_agreement, precision_rows, stage_rows
from superglue_ros.bench.floor import Rates, measure_rates
from superglue_ros.bench.inputs import FLOAT32, full_superglue, room_features, room_images
from superglue_ros.bench.node import RATE_KEYPOINTS, RateRow, held_rates, measure_node
from superglue_ros.bench.options import COUNTS as OPTION_COUNTS
from superglue_ros.bench.options import OptionRow, measure_count
from superglue_ros.bench.options import write as write_options
from superglue_ros.bench.peers import available
from superglue_ros.bench.report import (
    MemoryRow,
    Results,
    rate_table,
    tables,
    write,
    write_rates,
)
from superglue_ros.config import MatcherConfig
from superglue_ros.engines.backends import superglue_engine, superpoint_engine
from superglue_ros.engines.export import export_superglue, export_superpoint
from superglue_ros.engines.precision import Arithmetic
from superglue_ros.errors import ConfigError
from superglue_ros.networks.device import resolve_device
from superglue_ros.networks.weights import load_superglue, load_superpoint

KEYPOINTS = (256, 512, 1024, 2048, 4096)
WINDOWS = (1, 2, 4, 8)


def add_subcommands(subparsers: argparse._SubParsersAction) -> None:
    """Add ``bench`` and ``export``."""
    bench = subparsers.add_parser("bench", help="time and memory against public implementations")
    bench.add_argument("--output", type=Path, default=Path("bench_output"))
    bench.add_argument(
        "--document", type=Path, help="Markdown file whose tables to replace (docs/performance.md)"
    )
    bench.add_argument(
        "--device", default="cpu", help="cpu, or cuda: the networks and their peers on a GPU"
    )
    bench.add_argument("--keypoints", type=int, nargs="+", default=list(KEYPOINTS))
    bench.add_argument("--window-keypoints", type=int, default=1024)
    bench.add_argument("--rounds", type=int, default=5, help="paired rounds up to 1024 keypoints")
    bench.add_argument("--frames", type=int, default=20, help="frames of node and agreement, <= 60")
    bench.add_argument("--threads", type=int, help="torch threads (default: torch's own)")
    bench.add_argument(
        "--peer-limit", type=int, default=2048, help="most keypoints that peers are timed with"
    )
    bench.add_argument("--onnx", type=Path, help="folder of `superglue-ros export`, timed too")
    bench.add_argument("--skip-node", action="store_true")
    bench.add_argument(
        "--rates",
        action="store_true",
        help="only: the camera rate that the node holds, with either matcher and precision",
    )
    bench.add_argument(
        "--all-tables", action="store_true", help="those of a GPU on a CPU too, to try them"
    )
    bench.add_argument(
        "--options",
        action="store_true",
        help="only: the network with options that save time, beside the dense one (options.md)",
    )
    bench.add_argument(
        "--cpu-time",
        action="store_true",
        help="with --options: one thread by the processor's clock, where others use the machine",
    )
    bench.add_argument(
        "--weights", type=Path, nargs="+", default=[], help="with --options: further networks"
    )
    bench.set_defaults(run=run_bench)

    export = subparsers.add_parser("export", help="write the networks as ONNX")
    export.add_argument("--output", type=Path, required=True, help="folder of the .onnx files")
    export.add_argument("--superpoint", default="", help="weights (default: the package's own)")
    export.add_argument("--superglue", default="small", help="weights: small, wide or a file")
    export.add_argument("--iterations", type=int, default=100, help="of Sinkhorn, in the graph")
    export.set_defaults(run=run_export)


def run_export(args: argparse.Namespace) -> int:
    """Write both graphs and compare them with torch."""
    if args.iterations < 2:
        raise ConfigError("--iterations must be at least 2")
    console = Console(stderr=True)
    point, glue = load_superpoint(args.superpoint), load_superglue(args.superglue)
    paths = [args.output / "superpoint.onnx", args.output / "superglue.onnx"]
    with console.status("exporting SuperPoint"):
        export_superpoint(point.network, point.kind, paths[0])
    with console.status("exporting SuperGlue"):
        export_superglue(glue.network, glue.descriptor_kind, paths[1], args.iterations)
    matcher = replace(MatcherConfig(), sinkhorn_iterations=args.iterations)
    config = replace(FLOAT32, backend="onnx", onnx_folder=str(args.output), matcher=matcher)
    with console.status("comparing with torch"):
        superpoint_engine(point, config, torch.device("cpu"))
        superglue_engine(glue, config, torch.device("cpu"))
    for path in paths:
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, the same results as torch")
    return 0


def run_bench(args: argparse.Namespace) -> int:
    """Run the measurements in turn; results so far are always on disk."""
    if args.rounds < 1 or min(args.keypoints) < 1 or not 2 <= args.frames <= 60:
        raise ConfigError("--rounds and --keypoints must be positive, --frames from 2 to 60")
    if args.threads:
        torch.set_num_threads(args.threads)
    console = Console(stderr=True)
    if args.options:
        return _bench_options(args, console)
    if args.rates:
        return _bench_rates(args, console)
    device = resolve_device(args.device)
    rates = measure_rates(device)
    # A page that is not there yet is written as the measurements go.
    page = None if args.document is None or args.document.exists() else args.document
    images = room_images(max(args.frames, max(WINDOWS) + 1))
    results = Results(
        machine=machine_name(device),
        versions=_versions(),
        threads=torch.get_num_threads(),
        rates=rates,
    )
    for title, measured in _steps(args, images, rates, device):
        with console.status(title):
            results = replace(results, **measured(results))
        write(results, args.output, page)
        console.print(f"[green]done[/green] {title}")
    write(results, args.output, args.document)
    Console().print(tables(results), markup=False, highlight=False, soft_wrap=True)
    return 0


def _bench_options(args: argparse.Namespace, console: Console) -> int:
    rows: list[OptionRow] = []
    clock = time.process_time if args.cpu_time else time.perf_counter
    if args.cpu_time:
        torch.set_num_threads(1)
    counts = OPTION_COUNTS if args.keypoints == list(KEYPOINTS) else args.keypoints
    for count in counts:
        with console.status(f"pairs of {count} keypoints"):
            rounds = max(1, args.rounds * 1024 // max(count, 1024))
            rows += measure_count(count, rounds, args.weights, clock)
        write_options(rows, args.output)
    print((args.output / "options.md").read_text(encoding="utf-8"), end="")
    return 0


def _bench_rates(args: argparse.Namespace, console: Console) -> int:
    rows: list[RateRow] = []
    machine = f"{machine_name()}; {torch.get_num_threads()} threads; {_versions()}"
    counts = RATE_KEYPOINTS if args.keypoints == list(KEYPOINTS) else args.keypoints
    with console.status("the rates that the node holds") as status:
        for row in held_rates(args.output / "node", keypoints=counts, frames=args.frames):
            rows.append(row)
            write_rates(machine, rows, args.output, None)
            status.update(f"after {row.weights}, {row.precision}, {row.keypoints} keypoints")
    if not rows:
        raise ConfigError(
            "--rates needs a ROS environment: scripts/run superglue-ros bench --rates"
        )
    write_rates(machine, rows, args.output, args.document)
    print(rate_table(rows), end="")
    return 0


def _versions() -> str:
    return f"Python {platform.python_version()}, torch {torch.__version__}"


def _steps(
    args: argparse.Namespace,
    images: list[NDArray[np.uint8]],
    rates: Rates,
    device: torch.device,
) -> Iterator[tuple[str, Callable[[Results], dict[str, Any]]]]:
    """Title of each measurement, and the function that returns its fields of the results."""

    def pair(count: int, so_far: Results) -> dict[str, Any]:
        rounds = args.rounds if count <= 1024 else max(1, args.rounds * 1024 // count // 2)
        row = measure.pair_row(images, count, rates, rounds, count <= args.peer_limit, device)
        return {"pairs": [*so_far.pairs, row]}

    def memory(count: int, so_far: Results) -> dict[str, Any]:
        peer = available("transformers") and count <= args.peer_limit
        row = MemoryRow(
            count,
            measure.peak_memory_mib(count, "none"),
            measure.peak_memory_mib(count, "ours"),
            measure.peak_memory_mib(count, "transformers") if peer else None,
        )
        return {"memory": [*so_far.memory, row]}

    def agreement(_: Results) -> dict[str, Any]:
        glue = load_superglue()
        frames = room_features(images[: args.frames], 512)
        rows = measure.agreement_rows(glue.network, glue.descriptor_kind, frames, device)
        full = full_superglue(frames[0].descriptor_dim)
        rows += measure.agreement_rows(full, frames[0].detector, frames[:4], device)
        return {"agreement": rows}

    rounds, keypoints = max(2, args.rounds // 2), args.window_keypoints
    for count in args.keypoints:
        yield f"pairs of {count} keypoints", partial(pair, count)
    yield (
        "windows of keyframes",
        lambda _: {"windows": measure.window_rows(images, keypoints, WINDOWS, rounds, device)},
    )
    yield (
        "extraction",
        lambda _: {"extraction": measure.extract_rows(images[0], keypoints, args.rounds, device)},
    )
    if device.type != "cpu" or args.all_tables:
        exact = Arithmetic()
        yield (
            "steps of a frame",
            lambda _: {"stages": stage_rows(images[0], keypoints, device, exact)},
        )
        yield (
            "other precisions",
            lambda _: {"lower": precision_rows(images, keypoints, device, rounds)},
        )
        frames = images[: min(args.frames, 6)]
        yield (
            "agreement with the CPU",
            lambda _: {"on_device": device_agreement(frames, min(keypoints, 512), device)},
        )
    if not args.skip_node:
        folder = args.output / "node"
        yield "the node", lambda _: {"node": measure_node(folder, args.frames)}
    if device.type == "cpu":
        for count in args.keypoints:
            if count >= 1024:
                yield f"memory of {count} keypoints", partial(memory, count)
    yield "agreement with the plain network", agreement
    if device.type == "cpu":
        yield "precisions", lambda _: {"precisions": measure.precision_outcomes()}
    if args.onnx is not None:
        yield (
            "ONNX Runtime",
            lambda _: {"onnx": measure.onnx_seconds(args.onnx, images, keypoints, rounds)},
        )


def machine_name(device: torch.device = measure.CPU) -> str:
    """Name of the GPU and of the processor, from the system."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, beside {machine_name()}"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
