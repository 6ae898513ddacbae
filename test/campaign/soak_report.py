"""The report of a long run: JSON, a plot, and a table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure
from rich.console import Console

if TYPE_CHECKING:
    from signal_sweep import Signalled
    from soak import Run

mpl.use("Agg")


def write_report(
    folder: Path, run: Run, growth: Mapping[str, float], signals: Sequence[Signalled]
) -> int:
    """Write ``soak.json`` and ``soak.png``; returns the exit code."""
    struck = Counter(name for _, name in run.faults)
    found = {
        "frames": run.number,
        "seconds": round(run.samples[-1].seconds, 1),
        "counters": dict(run.totals),
        "lost_with_the_node": run.lost_with_the_node,
        "lives": run.life,
        "faults": dict(struck),
        "full_disk": run.disk.name,
        "last_life": {name: round(value, 4) for name, value in growth.items()},
        "signals": {
            "sent": len(signals),
            "starting": sum(s.phase == "starting" for s in signals),
            "at work": sum(s.phase == "at work" for s in signals),
            "exit code 0": sum(s.good for s in signals),
        },
        "violations": run.violations,
        "samples": [asdict(sample) for sample in run.samples],
    }
    (folder / "soak.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    plot(run).savefig(folder / "soak.png", dpi=80)
    console = Console()
    console.print({k: v for k, v in found.items() if k not in ("samples", "violations")})
    for violation in run.violations:
        console.print(f"[red]violation[/] {violation}", markup=True, highlight=False)
    console.print(f"{len(run.violations)} violations; report in {folder}/soak.json, soak.png")
    return 1 if run.violations else 0


def plot(run: Run) -> Figure:
    """Memory, threads and handles over the frames, with the faults."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    frames = [sample.frames for sample in run.samples]
    axes[0].plot(frames, [s.memory_mib for s in run.samples], lw=1.2, color="C0")
    axes[0].set_ylim(0, 1.15 * max(s.memory_mib for s in run.samples))
    axes[0].set_ylabel("resident memory [MiB]")
    axes[1].plot(frames, [s.threads for s in run.samples], lw=1.2, color="C1", label="threads")
    axes[1].plot(frames, [s.handles for s in run.samples], lw=1.2, color="C2", label="handles")
    axes[1].set_ylim(0, 1.15 * max(max(s.threads, s.handles) for s in run.samples))
    axes[1].set_xlabel("frames")
    axes[1].legend(loc="lower right")
    for number, name in run.faults:
        killed = name == "node_is_killed"
        for axis in axes:
            axis.axvline(number, color="red" if killed else "grey", lw=0.8 if killed else 0.3)
    axes[0].set_title("red: the node is killed; grey: other faults", fontsize="small")
    return figure
