"""Progress of a run: a live line, a CSV log, and plotted curves."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class RunLog:
    """Rows of numbers per step in a CSV file; a resumed run continues at its checkpoint."""

    def __init__(self, path: Path, first_step: int) -> None:
        self.path = path
        rows = [row for row in read_log(path) if float(row["step"]) <= first_step]
        self._columns = list(rows[0]) if rows else []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write(rows)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one row; new columns are added to all."""
        fresh = [key for key in row if key not in self._columns]
        if fresh:
            rows = read_log(self.path)
            self._columns += fresh
            self._write(rows)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _write(self, rows: list[dict[str, str]]) -> None:
        with self.path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)


def read_log(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV log, empty where there is none."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw_curves(log: Path, picture: Path) -> None:
    """Every column of a CSV log over the steps, smoothed, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_log(log)
    names = [n for n in (rows[0] if rows else {}) if n not in ("step", "stage", "seconds")]
    if not names:
        return
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.8 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, name in zip(figure.subplots(lines, columns, squeeze=False).flat, names, strict=False):
        points = [(float(r["step"]), float(r[name])) for r in rows if r.get(name)]
        steps, values = [p[0] for p in points], [p[1] for p in points]
        axis.plot(steps, values, color="0.8", linewidth=0.8)
        axis.plot(steps, _smooth(values), color="C0", linewidth=1.4)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)


class LiveProgress:
    """A live bar on a terminal, plain lines elsewhere: loss, precision, recall, time left."""

    def __init__(self, total: int, first_step: int) -> None:
        self._total, self._first = total, first_step
        self._start = time.monotonic()
        self._last = (self._start, 0)
        self._console = Console(file=sys.stderr)
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.fields[stage]}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"), TimeElapsedColumn(), TimeRemainingColumn(),
                console=self._console,
            )  # fmt: skip
            self._task = self._bar.add_task(
                "", total=total, completed=first_step, stage="", numbers=""
            )

    def __enter__(self) -> LiveProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def show(self, done: int, step: int, stage: str, numbers: Mapping[str, float]) -> None:
        """Report that ``done`` of the total, and ``step`` steps, are done."""
        text = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        if self._bar:
            self._bar.update(self._task, completed=done, stage=stage, numbers=text)
        else:
            now = time.monotonic()
            pace = (now - self._last[0]) / max(step - self._last[1], 1)
            share = (now - self._start) / max(done - self._first, 1)
            left = time.strftime("%H:%M:%S", time.gmtime(share * (self._total - done)))
            self._last = (now, step)
            self._console.print(
                f"{stage} {done}/{self._total}  {text}  {pace:.3f} s/step  {left} left",
                highlight=False, soft_wrap=True,
            )  # fmt: skip

    def say(self, text: str) -> None:
        """Print a separate line."""
        (self._bar.console if self._bar else self._console).print(text, highlight=False)


def _smooth(values: list[float]) -> list[float]:
    weight = max(0.0, 1 - 20 / max(len(values), 20))
    out: list[float] = []
    for value in values:
        out.append(value if not out else weight * out[-1] + (1 - weight) * value)
    return out
