"""Curves of a run as PNG files (matplotlib without a display)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray


def new_figure(rows: int, width: float = 9.0, row_height: float = 2.2) -> tuple[Figure, list[Axes]]:
    """A figure of ``rows`` plots over one another with a common x axis, sizes in inches."""
    figure = Figure(figsize=(width, row_height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; the bytes depend on its contents only."""
    figure.savefig(path, dpi=110, metadata={"Software": None})


def widest_axes(positions: NDArray) -> list[int]:
    """The two axes, in their order, along which positions (N, 3) extend most."""
    return sorted(np.argsort(np.ptp(positions, axis=0))[1:].tolist())


def plot_over_time(
    path: Path,
    title: str,
    curves: Mapping[str, Mapping[str, tuple[NDArray, NDArray]]],
) -> None:
    """One plot per entry of ``curves``: axis label to (curve label to (seconds (N,), values (N,))).

    NaN and infinite values are gaps; a dotted line marks the median of what is finite, and the
    legend gives it. Curves without finite values are left out.
    """
    figure, axes = new_figure(len(curves))
    for axis, (label, lines) in zip(axes, curves.items(), strict=True):
        for index, (name, (seconds, values)) in enumerate(lines.items()):
            finite = np.where(np.isfinite(values), values, np.nan)
            if np.isnan(finite).all():
                continue
            median = float(np.nanmedian(finite))
            style: dict[str, Any] = {"color": f"C{index}", "linewidth": 1}
            axis.axhline(median, linestyle=":", **style)
            axis.plot(
                seconds, finite, ".-", markersize=4, label=f"{name}, median {median:.3g}", **style
            )
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        if axis.lines:
            # Above the plot, where it hides no curve.
            axis.legend(
                fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False
            )
    axes[-1].set_xlabel("time [s]")
    figure.suptitle(title)
    save(figure, path)
