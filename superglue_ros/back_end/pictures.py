"""Plots of SLAM runs: trajectories from above, and the position error over the frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from superglue_ros.back_end.accuracy import Accuracy
from superglue_ros.drawing.plots import save, widest_axes

_TRUTH = "0.25"


def plot_trajectories(path: Path, title: str, runs: Mapping[str, Accuracy]) -> None:
    """Left: aligned and true trajectories from above; right: their errors per frame.

    From above means along the axis in which the true trajectory extends least.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    above, errors = figure.subplots(1, 2)
    longest = max(runs.values(), key=lambda run: len(run.indices))
    axes = widest_axes(longest.truth[:, :3, 3])
    truth = longest.truth[:, axes, 3]
    above.plot(*truth.T, color=_TRUTH, linewidth=2.5, alpha=0.5, label="ground truth")
    above.plot(*truth[0], "o", color=_TRUTH, markersize=6)
    for i, (name, run) in enumerate(runs.items()):
        colour = f"C{i}"
        above.plot(*run.aligned[:, axes, 3].T, color=colour, linewidth=1.2, label=name)
        off = np.linalg.norm(run.aligned[:, :3, 3] - run.truth[:, :3, 3], axis=1)
        label = f"{name}, ATE {run.ate_m * 100:.1f} cm"
        errors.plot(run.indices, off * 100, color=colour, linewidth=1.2, label=label)
    names = "xyz"
    above.set(xlabel=f"{names[axes[0]]} [m]", ylabel=f"{names[axes[1]]} [m]", aspect="equal")
    above.legend(fontsize=8)
    errors.set(xlabel="frame", ylabel="position error [cm]", ylim=(0, None))
    errors.legend(fontsize=8)
    for axis in (above, errors):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    save(figure, path)
