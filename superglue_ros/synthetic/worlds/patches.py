"""Curved patches: grids of quadratic Bezier surfaces as triangles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STEPS = 6
"""Segments along each side of a 3 x 3 patch."""

Floats = NDArray[np.float32]
Triangles = NDArray[np.int32]


def tessellate(control: Floats, steps: int = STEPS) -> tuple[Floats, Triangles]:
    """Points (N, C) and triangles (T, 3) of the surface with control points (H, W, C).

    H and W are odd and at least 3: every 3 x 3 of them, from every second row and column, make one
    biquadratic patch, and neighbours share a row of points. All C values go along (positions,
    texture coordinates, colours). Anything else gives an empty surface.
    """
    height, width, channels = control.shape
    if min(height, width) < 3 or height % 2 == 0 or width % 2 == 0:
        return np.zeros((0, channels), np.float32), np.zeros((0, 3), np.int32)
    rows, columns = _weights(height, steps), _weights(width, steps)
    points = np.einsum("ia,jb,abc->ijc", rows, columns, control.astype(np.float64))
    return points.reshape(-1, channels).astype(np.float32), _grid(len(rows), len(columns))


def _weights(count: int, steps: int) -> NDArray[np.float64]:
    """Weights (N, count) of the control points of a line for the points along it."""
    t = np.linspace(0, 1, steps + 1)
    one = np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], axis=1)
    pieces = (count - 1) // 2
    weights = np.zeros((pieces * steps + 1, count))
    for piece in range(pieces):
        weights[piece * steps : (piece + 1) * steps + 1, 2 * piece : 2 * piece + 3] = one
    return weights


def _grid(rows: int, columns: int) -> Triangles:
    index = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    a, b = index[:-1, :-1].ravel(), index[:-1, 1:].ravel()
    c, d = index[1:, :-1].ravel(), index[1:, 1:].ravel()
    return np.concatenate([np.stack([a, c, b], axis=1), np.stack([b, c, d], axis=1)])
