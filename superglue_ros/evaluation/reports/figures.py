"""The paper's curves as PNG files: figures 5, 8, 9, 11 and 12, and bars with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from superglue_ros.drawing.plots import save
from superglue_ros.evaluation.metrics import cumulative_curve, mean_auc

Floats = NDArray[np.float64]


def error_curves(
    path: Path, title: str, errors: Mapping[str, ArrayLike], limit: float, unit: str
) -> None:
    """Cumulative error curves up to ``limit``; the legend gives the area under each.

    ``errors`` (N,), or (N, R) of R repeats: their common curve, and the mean of their areas.
    """
    figure, axis = _figure()
    for label, values in errors.items():
        x, y = cumulative_curve(np.ravel(values))
        inside = x < limit
        x = np.concatenate([x[inside], [limit]])
        y = np.concatenate([y[inside], y[inside][-1:]])
        area = 100 * mean_auc(values, limit)
        axis.plot(x, 100 * y, label=f"{label}, AUC {area:.1f}", linewidth=1.6)
    axis.set_xlim(0, limit)
    axis.set_ylim(0, 100)
    _finish(figure, axis, path, title, f"error threshold [{unit}]", "cases below [%]")


def lines(
    path: Path,
    title: str,
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    xlabel: str,
    ylabel: str,
    marks: Mapping[str, tuple[float, float]] | None = None,
    percent: bool = True,
) -> None:
    """One line per entry (x, y); ``marks`` puts a dot on some, such as the threshold in use."""
    figure, axis = _figure()
    for index, (label, (x, y)) in enumerate(curves.items()):
        axis.plot(x, y, ".-", color=f"C{index}", label=label, linewidth=1.4, markersize=4)
        if marks and label in marks:
            axis.plot(*marks[label], "o", color=f"C{index}", markersize=9, markerfacecolor="none")
    if percent:
        axis.set_ylim(0, 100)
    _finish(figure, axis, path, title, xlabel, ylabel)


def bars(
    path: Path,
    title: str,
    values: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    ylabel: str,
) -> None:
    """A bar per entry with its confidence interval."""
    figure, axis = _figure(height=0.9 + 0.42 * max(3, len(values)))
    names = list(values)[::-1]
    heights = np.array([values[name] for name in names])
    low = np.array([intervals[name][0] for name in names])
    high = np.array([intervals[name][1] for name in names])
    spread = np.nan_to_num(np.abs(np.stack([heights - low, high - heights])))
    axis.barh(names, heights, xerr=spread, capsize=3, color="C0", alpha=0.8)
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(ylabel)
    save(figure, path)


def stacked_times(
    path: Path,
    title: str,
    keypoints: Sequence[int],
    stages: Mapping[str, Sequence[float]],
    quartiles: Sequence[Sequence[float]],
) -> None:
    """Milliseconds per stage, stacked, over the number of keypoints (figure 11).

    ``quartiles`` (K, 2) of the sum are bars at the top.
    """
    figure, axis = _figure()
    positions = np.arange(len(keypoints))
    bottom = np.zeros(len(keypoints))
    for index, (name, values) in enumerate(stages.items()):
        height = np.asarray(values, np.float64)
        axis.bar(positions, height, bottom=bottom, label=name, color=f"C{index}", width=0.6)
        bottom += height
    spread = np.abs(np.asarray(quartiles, np.float64).T - bottom)
    axis.errorbar(positions, bottom, spread, fmt="none", ecolor="0.2", capsize=4)
    axis.set_xticks(positions, [str(k) for k in keypoints])
    _finish(figure, axis, path, title, "keypoints per image", "time [ms]")


def bands(
    path: Path,
    title: str,
    curves: Mapping[str, tuple[Floats, Floats]],
    xlabel: str,
    ylabel: str,
) -> None:
    """Mean and half-width of an interval per index, from 1 (figure 12).

    More than a few entries have their legend beside the axes.
    """
    many = len(curves) > _COLOURS
    figure, axis = _figure(8.4, max(4.2, 0.19 * len(curves))) if many else _figure()
    for index, (label, (mean, half)) in enumerate(curves.items()):
        x = np.arange(1, len(mean) + 1)
        style = ("-", "--", ":", "-.")[index // _COLOURS % 4]
        axis.plot(
            x, mean, style, color=f"C{index}", label=label, linewidth=1.4, marker="o", markersize=4
        )
        axis.fill_between(x, mean - half, mean + half, color=f"C{index}", alpha=0.2, linewidth=0)
    axis.set_ylim(bottom=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(figure, axis, path, title, xlabel, ylabel, beside=many)


_COLOURS = 10  # of matplotlib's cycle


def _figure(width: float = 6.4, height: float = 4.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.grid(alpha=0.3)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def _finish(
    figure: Figure,
    axis: Axes,
    path: Path,
    title: str,
    xlabel: str,
    ylabel: str,
    beside: bool = False,
) -> None:
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.set_title(title, fontsize=10)
    if beside:
        figure.legend(fontsize=7, loc="outside right center")
    elif axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, framealpha=0.7)
    save(figure, path)
