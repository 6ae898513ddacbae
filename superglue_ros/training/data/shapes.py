"""Synthetic shapes with known corners (MagicPoint, SuperPoint paper section 4): labels at no cost.

Corners of drawn shapes are unambiguous keypoints; a detector trained on them is the start of
homographic adaptation on photographs.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Points = NDArray[np.float64]


def draw_shapes(rng: np.random.Generator, width: int, height: int) -> tuple[Image, Points]:
    """A grey image (height, width) with one kind of shape, and its corners (N, 2) inside it."""
    image = _background(rng, width, height)
    draw = _SHAPES[int(rng.integers(len(_SHAPES)))]
    points = np.asarray(draw(image, rng), np.float64).reshape(-1, 2)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.5)), np.uint8)
    inside = (points >= 0).all(axis=1) & (points <= [width - 1, height - 1]).all(axis=1)
    return image, points[inside]


def _background(rng: np.random.Generator, width: int, height: int) -> Image:
    coarse = rng.uniform(0, 255, (int(rng.integers(2, 6)), int(rng.integers(2, 6))))
    base = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    level = rng.uniform(40, 215)
    return np.clip(level + 0.3 * (base - base.mean()), 0, 255).astype(np.uint8)


def _colour(rng: np.random.Generator, image: Image) -> int:
    """A grey level with enough contrast to the background."""
    mean = float(image.mean())
    while True:
        level = int(rng.integers(0, 256))
        if abs(level - mean) > 40:
            return level


def _polygon(image: Image, rng: np.random.Generator) -> Points:
    height, width = image.shape
    count = int(rng.integers(3, 7))
    centre = rng.uniform((0.3 * width, 0.3 * height), (0.7 * width, 0.7 * height))
    radius = rng.uniform(0.2, 0.45) * min(width, height)
    angles = (np.arange(count) + rng.uniform(-0.25, 0.25, count)) * (2 * np.pi / count)
    radii = radius * rng.uniform(0.6, 1.0, count)
    corners = np.rint(centre + radii[:, None] * np.c_[np.cos(angles), np.sin(angles)])
    cv2.fillPoly(image, [corners.astype(np.int32)], _colour(rng, image))
    return corners


def _lines(image: Image, rng: np.random.Generator) -> Points:
    height, width = image.shape
    ends: list[Points] = []
    for _ in range(int(rng.integers(2, 8))):
        a, b = rng.integers((0, 0), (width, height), (2, 2))
        if all(not _cross(a, b, *other) for other in ends):
            thickness = int(rng.integers(1, 5))
            cv2.line(image, a.tolist(), b.tolist(), _colour(rng, image), thickness)
            ends.append(np.array([a, b], np.float64))
    return np.concatenate(ends)


def _checkerboard(image: Image, rng: np.random.Generator) -> Points:
    height, width = image.shape
    rows, columns = (int(n) for n in rng.integers(3, 8, 2))
    board = rng.integers(0, 256, (rows, columns)).astype(np.uint8)
    board[np.add.outer(np.arange(rows), np.arange(columns)) % 2 == 0] //= 3
    return _warp_board(image, board, rng, width, height)


def _stripes(image: Image, rng: np.random.Generator) -> Points:
    height, width = image.shape
    columns = int(rng.integers(4, 10))
    board = rng.integers(0, 256, (1, columns)).astype(np.uint8)
    board[:, ::2] //= 3
    return _warp_board(image, board, rng, width, height)


def _cube(image: Image, rng: np.random.Generator) -> Points:
    height, width = image.shape
    size = rng.uniform(0.15, 0.3, 3) * min(width, height)
    angle = rng.uniform(0.3, 1.2)
    right = np.array([np.cos(angle), 0.5 * np.sin(angle)]) * size[0]
    left = np.array([-np.sin(angle), 0.5 * np.cos(angle)]) * size[1]
    down = np.array([0.0, size[2]])
    top = rng.uniform((0.35 * width, 0.2 * height), (0.65 * width, 0.45 * height))
    faces = [
        [top, top + right, top + right + left, top + left],
        [top + left, top + right + left, top + right + left + down, top + left + down],
        [top + right, top + right + left, top + right + left + down, top + right + down],
    ]
    for face in faces:
        corners = np.rint(face).astype(np.int32)
        cv2.fillPoly(image, [corners], _colour(rng, image))
    return np.unique(np.rint(np.concatenate(faces)), axis=0)


def _ellipses(image: Image, rng: np.random.Generator) -> Points:
    """Shapes without corners: no keypoints to detect."""
    height, width = image.shape
    for _ in range(int(rng.integers(1, 6))):
        centre = rng.integers((0, 0), (width, height)).tolist()
        axes = rng.integers(8, max(9, min(width, height) // 4), 2).tolist()
        turn = float(rng.uniform(0, 180))
        cv2.ellipse(image, centre, axes, turn, 0, 360, _colour(rng, image), -1)
    return np.empty((0, 2))


_SHAPES: tuple[Callable[[Image, np.random.Generator], Points], ...] = (
    _polygon, _lines, _checkerboard, _stripes, _cube, _ellipses,
)  # fmt: skip


def _warp_board(
    image: Image, board: Image, rng: np.random.Generator, width: int, height: int
) -> Points:
    """Draw a board of cells in perspective; returns the points where its cells meet."""
    rows, columns = board.shape
    cells = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], np.float32)
    frame = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * 0.7 + 0.15
    target = (frame + rng.uniform(-0.12, 0.12, (4, 2))) * [width, height]
    to_image = cv2.getPerspectiveTransform(cells, target.astype(np.float32))
    for row in range(rows):
        for column in range(columns):
            corners = np.array([[[0, 0], [1, 0], [1, 1], [0, 1]]]) + np.array([column, row])
            quad = cv2.perspectiveTransform(corners.astype(np.float32), to_image)
            cv2.fillPoly(image, [np.rint(quad[0]).astype(np.int32)], int(board[row, column]))
    x, y = np.meshgrid(np.arange(columns + 1), np.arange(rows + 1))
    grid = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    return np.asarray(cv2.perspectiveTransform(grid[None], to_image)[0], np.float64)


def _cross(a: Points, b: Points, c: Points, d: Points) -> bool:
    """Whether the segments ab and cd share a point."""

    def side(p: Points, q: Points, r: Points) -> float:
        return float((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

    return side(a, b, c) * side(a, b, d) <= 0 and side(c, d, a) * side(c, d, b) <= 0
