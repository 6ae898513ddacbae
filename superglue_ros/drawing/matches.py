"""Matches drawn on pairs of images. OpenCV only, fast enough for the node's ``matches_image``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import DataError
from superglue_ros.types import Matches

Picture = NDArray[np.uint8]

_GAP = 8  # pixels between the two images
OUTLIER = (150, 110, 150)  # BGR
_SUBPIXEL_BITS = 4
_BAR = (120, 10)  # size of the colour bar, pixels


def draw_matches(
    image_ref: Picture,
    image_query: Picture,
    matches: Matches,
    errors_px: NDArray[np.float64] | None = None,
    max_error_px: float = 5.0,
    caption: Sequence[str] = (),
) -> Picture:
    """Reference left, query right, a line per match: BGR (max(H0, H1), W0 + gap + W1, 3) uint8.

    Green is good and red is bad: by confidence (1 to 0), or, with ``errors_px`` (K,), by epipolar
    or reprojection error (0 to ``max_error_px``). Matches that the two-view geometry rejected are
    thin and violet, where there is a geometry. ``image_ref``, ``image_query``: (H, W) grey or
    (H, W, 3) BGR uint8. ``caption``: lines of text for the top left, by default the counts.
    """
    if errors_px is None:
        goodness = matches.scores.astype(np.float64)
        legend = ("confidence", "0", "1")
    else:
        goodness = 1.0 - np.nan_to_num(errors_px, nan=np.inf) / max_error_px
        legend = ("error [px]", f"{max_error_px:g}", "0")
    inliers = int(matches.inlier.sum())
    thin = ~matches.inlier if inliers and errors_px is None else np.zeros(len(matches), bool)
    picture = draw_correspondences(
        image_ref, image_query, matches.points_ref, matches.points_query, goodness, thin
    )
    if not caption:
        caption = [f"{len(matches)} matches, {inliers} inliers"]
        caption += [f"frames {matches.reference.id} and {matches.query.id}"]
    write_text(picture, caption)
    _draw_bar(picture, *legend)
    return picture


def draw_correspondences(
    image0: Picture,
    image1: Picture,
    points0: NDArray,
    points1: NDArray,
    goodness: NDArray,
    thin: NDArray[np.bool_] | None = None,
) -> Picture:
    """Two images side by side with lines between ``points0`` and ``points1`` (K, 2) pixels.

    ``goodness`` (K,), clipped to [0, 1], goes from red to green; the best lines lie on top. Lines
    that are ``thin`` (K,) are violet and lie below.
    """
    picture, offset = side_by_side(image0, image1)
    if not len(points0):
        return picture
    if thin is None:
        thin = np.zeros(len(points0), bool)
    colours = red_to_green(goodness)
    starts = _fixed_point(points0)
    ends = _fixed_point(np.asarray(points1).reshape(-1, 2) + np.array([offset, 0.0]))
    lines = picture.copy()
    for k in np.lexsort((goodness, ~thin)):
        start, end = tuple(starts[k].tolist()), tuple(ends[k].tolist())
        colour = OUTLIER if thin[k] else tuple(colours[k].tolist())
        cv2.line(lines, start, end, colour, 1, cv2.LINE_AA, _SUBPIXEL_BITS)
        radius = 2 << _SUBPIXEL_BITS
        if not thin[k]:
            for point in (start, end):
                cv2.circle(lines, point, radius, colour, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
    return np.asarray(cv2.addWeighted(lines, 0.75, picture, 0.25, 0), np.uint8)


def side_by_side(image0: Picture, image1: Picture) -> tuple[Picture, int]:
    """Both images in BGR, and the column at which the second one begins."""
    left, right = _bgr(image0), _bgr(image1)
    offset = left.shape[1] + _GAP
    height = max(left.shape[0], right.shape[0])
    picture = np.full((height, offset + right.shape[1], 3), 32, np.uint8)
    picture[: left.shape[0], : left.shape[1]] = left
    picture[: right.shape[0], offset:] = right
    return picture, offset


def draw_keypoints(image: Picture, points: NDArray, scores: NDArray | None = None) -> Picture:
    """The image in BGR with a ring per keypoint (N, 2), from red to green by score in [0, 1]."""
    picture = _bgr(image).copy()
    colours = red_to_green(np.ones(len(points)) if scores is None else scores)
    for centre, colour in zip(_fixed_point(points).tolist(), colours.tolist(), strict=True):
        cv2.circle(picture, centre, 3 << _SUBPIXEL_BITS, colour, 1, cv2.LINE_AA, _SUBPIXEL_BITS)
    return picture


def red_to_green(goodness: NDArray) -> NDArray[np.uint8]:
    """BGR colours (K, 3) of values (K,): 0 red, 0.5 yellow, 1 green; clipped, NaN is red."""
    share = np.clip(np.nan_to_num(np.asarray(goodness, np.float64), nan=0.0), 0, 1)
    red, green = np.minimum(1, 2 * (1 - share)), np.minimum(1, 2 * share)
    return np.rint(np.stack([0 * share, 230 * green, 255 * red], axis=-1)).astype(np.uint8)


def write_picture(path: Path, picture: Picture) -> None:
    """Write a picture as PNG (or what the ending says); raises :class:`DataError`."""
    if not cv2.imwrite(str(path), picture):
        raise DataError(f"{path} cannot be written: does its folder exist?")


def write_text(picture: Picture, lines: Sequence[str]) -> None:
    """Write lines into the top left corner, in place, white with a dark shadow."""
    for number, line in enumerate(lines, start=1):
        _put(picture, line, (8, 18 * number))


def _put(picture: Picture, text: str, origin: tuple[int, int], scale: float = 0.5) -> None:
    x, y = origin
    for place, colour in (((x + 1, y + 1), (0, 0, 0)), ((x, y), (255, 255, 255))):
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)


def _draw_bar(picture: Picture, title: str, low: str, high: str) -> None:
    """Legend in the bottom left corner; left out where the picture is too small for it."""
    width, height = _BAR
    top, left = picture.shape[0] - 24, 8
    if top < 60 or picture.shape[1] < 2 * width:
        return
    picture[top : top + height, left : left + width] = red_to_green(np.linspace(0, 1, width))
    _put(picture, title, (left, top - 6), 0.4)
    _put(picture, low, (left, top + height + 10), 0.35)
    _put(picture, high, (left + width - 8 * len(high), top + height + 10), 0.35)


def _bgr(image: Picture) -> Picture:
    if image.ndim == 3:
        return image
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)


def _fixed_point(points: NDArray) -> NDArray[np.int32]:
    """OpenCV draws with fixed-point sub-pixel coordinates."""
    scaled = np.asarray(points, np.float64).reshape(-1, 2) * (1 << _SUBPIXEL_BITS)
    return np.rint(scaled).astype(np.int32)
