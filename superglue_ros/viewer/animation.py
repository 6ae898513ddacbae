"""A recording as a moving picture: matches above, the map from above and curves below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from superglue_ros.drawing.matches import Picture, draw_matches, write_text
from superglue_ros.drawing.plots import widest_axes
from superglue_ros.errors import DataError
from superglue_ros.types import MatchKind
from superglue_ros.viewer.steps import Step

_BACKGROUND, _GRID, _TEXT = (24, 24, 24), (60, 60, 60), (220, 220, 220)  # BGR
_LANDMARK, _PATH, _CAMERA = (120, 120, 120), (255, 200, 80), (60, 200, 255)
_COLOURS = ((80, 220, 80), (80, 160, 240))
_MARGIN = 12  # pixels
_SHOWN_LANDMARKS = 4000


@dataclass(frozen=True, eq=False)
class _Moment:
    """What a frame adds: its picture, the map as seen from above, and numbers."""

    picture: Picture
    path: NDArray[np.float64]
    landmarks: NDArray[np.float64]
    count: int  # of all landmarks
    inliers: int


class Animation:
    """Collects steps, and writes them as an animated WebP, GIF or PNG.

    ``width`` is the picture's in pixels. Frames without matches are left out.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._moments: list[_Moment] = []
        self._images: dict[int, Picture] = {}

    def add(self, step: Step) -> None:
        """One more frame."""
        self._images[step.item.stamp_ns] = step.item.image
        pairs = [pair for pair in step.pairs if pair.matches.kind is MatchKind.KEYFRAME]
        if not pairs:
            return
        matches = pairs[0].matches
        reference = self._images.get(matches.reference.stamp_ns)
        if reference is None:
            return
        picture = draw_matches(reference, step.item.image, matches)
        height = round(picture.shape[0] * self._width / picture.shape[1])
        small = cv2.resize(picture, (self._width, height), interpolation=cv2.INTER_AREA)
        self._moments.append(
            _Moment(
                picture=np.asarray(small, np.uint8),
                path=step.poses[:, :3, 3],
                landmarks=step.landmarks[-_SHOWN_LANDMARKS:],
                count=len(step.landmarks),
                inliers=int(matches.inlier.sum()),
            )
        )

    def write(self, path: Path, milliseconds: int, quality: int) -> int:
        """Write the file, a picture for every ``milliseconds``; returns the number of pictures.

        ``quality`` 1 to 100, of a WebP. Raises :class:`DataError`.
        """
        if not self._moments:
            raise DataError("there is nothing to animate: no frame has matches with a keyframe")
        frames = [Image.fromarray(one[:, :, ::-1]) for one in self._pictures()]
        try:
            frames[0].save(
                path,
                save_all=True,
                append_images=frames[1:],
                duration=milliseconds,
                loop=0,
                quality=quality,
                method=6,
            )
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be written: {error}") from error
        return len(frames)

    def _pictures(self) -> list[Picture]:
        moments = self._moments
        half = self._width // 2
        height = round(0.5 * half)
        view = _FromAbove([one.path for one in moments], (half, height))
        inliers = np.array([one.inliers for one in moments], float)
        landmarks = np.array([one.count for one in moments], float)
        rest = self._width - half
        found = []
        for count, moment in enumerate(moments, start=1):
            curves = np.vstack(
                [
                    _curve("inliers", inliers, count, (rest, height // 2), _COLOURS[0]),
                    _curve(
                        "landmarks", landmarks, count, (rest, height - height // 2), _COLOURS[1]
                    ),
                ]
            )
            below = np.hstack([view.draw(moment), curves])
            found.append(np.vstack([moment.picture, below]))
        return found


class _FromAbove:
    """Trajectory and landmarks along the axis in which the trajectory extends least."""

    def __init__(self, paths: Sequence[NDArray[np.float64]], size: tuple[int, int]) -> None:
        self._width, self._height = size
        everything = np.concatenate([np.zeros((1, 3)), *paths])
        low, high = everything.min(axis=0), everything.max(axis=0)
        across, up = widest_axes(np.stack([low, high]))
        if (high - low)[up] > (high - low)[across]:
            across, up = up, across
        self._axes = [across, up]
        extent = np.maximum((high - low)[self._axes], 1e-6)
        room = np.array([self._width - 2 * _MARGIN, self._height - 4 * _MARGIN])
        self._scale = float((room / extent).min())
        self._middle = 0.5 * (low + high)[self._axes]

    def draw(self, moment: _Moment) -> Picture:
        panel = np.full((self._height, self._width, 3), _BACKGROUND, np.uint8)
        points = self._pixels(moment.landmarks)
        inside = ((points >= 0) & (points < [self._width, self._height])).all(axis=1)
        columns, rows = points[inside].T
        panel[rows, columns] = _LANDMARK
        path = self._pixels(moment.path)
        if len(path):
            cv2.polylines(panel, [path.reshape(-1, 1, 2)], False, _PATH, 2, cv2.LINE_AA)
            centre = (int(path[-1, 0]), int(path[-1, 1]))
            cv2.circle(panel, centre, 5, _CAMERA, -1, cv2.LINE_AA)
        write_text(panel, ["trajectory and landmarks, from above"])
        return panel

    def _pixels(self, positions: NDArray[np.float64]) -> NDArray[np.int32]:
        off = (positions[:, self._axes] - self._middle) * self._scale
        centre = [self._width / 2, self._height / 2]
        return np.asarray(np.rint(off * [1, -1] + centre), np.int32)


def _curve(
    title: str,
    values: NDArray[np.float64],
    count: int,
    size: tuple[int, int],
    colour: tuple[int, int, int],
) -> Picture:
    """The first ``count`` of all values, on the scale of all."""
    width, height = size
    panel = np.full((height, width, 3), _BACKGROUND, np.uint8)
    panel[-1:, :] = _GRID
    panel[:, :1] = _GRID
    top = max(1.0, float(np.percentile(values, 98)))
    x = _MARGIN + np.arange(count) * (width - 2 * _MARGIN) / max(1, len(values) - 1)
    y = (height - 3) - np.minimum(values[:count], top) / top * (height - 30)
    line = np.rint(np.stack([x, y], axis=1)).astype(np.int32)
    cv2.polylines(panel, [line.reshape(-1, 1, 2)], False, colour, 1, cv2.LINE_AA)
    write_text(panel, [f"{title}: {values[count - 1]:.0f}"])
    return panel
