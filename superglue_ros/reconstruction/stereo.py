"""Depth of an image by a second one of known pose: rectification and semi-global matching.

Rectification turns both cameras about their centres (Fusiello, Trucco and Verri, A compact
algorithm for rectification of stereo pairs, 2000): x along the baseline, z as near as possible to
where both look. So any direction of the baseline is one along the rows, and the images, which are
without lens distortion, change by homographies. Matching is Hirschmueller's (Stereo processing by
semiglobal matching and mutual information, 2008) in OpenCV.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.geometry.camera import Camera

Array = NDArray[np.float64]
GreyImage = NDArray[np.uint8]
Depth = NDArray[np.float32]

_WINDOW = 3  # of the matching cost, pixels
_MOST_DISPARITIES = 256
_STEP = 16  # the number of disparities is a multiple of it
_LARGEST_CANVAS = 3.0  # of the rectified image, in areas of the image
_LEAST_COSINE = 0.2  # between a corner's ray and the axis of the rectified camera
_LEAST_TEXTURE = 8.0  # mean absolute response of Sobel's filter along the row, grey values
_TEXTURE_WINDOW = 7
_EDGE = 1.5  # change of disparity between neighbouring pixels beyond which there is an edge


@dataclass(frozen=True, eq=False)
class View:
    """A camera without lens distortion, and its pose ``T_camera_world`` (4, 4)."""

    camera: Camera
    T_camera_world: Array

    @property
    def centre(self) -> Array:
        """The camera's centre (3,) in the world."""
        return -self.T_camera_world[:3, :3].T @ self.T_camera_world[:3, 3]

    def seen(self, points: Array) -> Array:
        """Points (N, 3) of the world in the camera's frame."""
        return points @ self.T_camera_world[:3, :3].T + self.T_camera_world[:3, 3]


@dataclass(frozen=True, eq=False)
class RectifiedPair:
    """How two images become ones whose corresponding points lie in one row.

    ``to_first``, ``to_second`` (3, 3) map pixels of the images to those of the rectified ones, of
    ``size`` (width, height). A point at distance z along the rectified axis has the disparity
    ``scale`` / z - ``least`` pixels, from 0 to ``disparities``. ``slant`` (3,): the rectified axis
    in pixels of the first image, z of its pixel (u, v, 1) being the product with it.
    """

    to_first: Array
    to_second: Array
    size: tuple[int, int]
    scale: float
    least: float
    disparities: int
    slant: Array


def rectify(first: View, second: View, points: Array) -> RectifiedPair | None:
    """The rectified pair, with the disparities of ``points`` (N, 3), which both may see.

    None where the images cannot be rectified: one looks along the baseline.
    """
    baseline = second.centre - first.centre
    length = float(np.linalg.norm(baseline))
    if not length > 0 or not len(points):
        return None
    across = baseline / length
    axes = first.T_camera_world[2, :3] + second.T_camera_world[2, :3]
    down = np.cross(axes, across)
    if np.linalg.norm(down) < 1e-6:
        return None
    down /= np.linalg.norm(down)
    rotation = np.stack([across, down, np.cross(across, down)])  # of the world
    turns = [rotation @ view.T_camera_world[:3, :3].T for view in (first, second)]
    rays = turns[0] @ np.linalg.inv(first.camera.matrix)
    corners = rays @ _corners(first.camera)
    distance = (points - first.centre) @ rotation[2]
    distance = distance[distance > 0]
    if (corners[2] < _LEAST_COSINE * np.linalg.norm(corners, axis=0)).any() or not len(distance):
        return None
    plane = corners[:2] / corners[2]
    area = first.camera.width * first.camera.height
    # The image keeps its area where it is seen from aside, unless disparities would be too many.
    near, far = np.quantile(distance, [0.01, 0.99])
    low, high = 0.9 * length / far, 1.1 * length / near
    focal = np.sqrt(area / cv2.contourArea(plane.T.astype(np.float32)))
    focal = min(float(focal), (_MOST_DISPARITIES - 8) / (high - low))
    least = max(focal * low - 4, 0.0)
    disparities = _STEP * int(np.ceil((focal * high + 4 - least) / _STEP))
    start, end = focal * plane.min(axis=1), focal * plane.max(axis=1)
    if np.prod(end - start) > _LARGEST_CANVAS * area:
        return None
    start[0] -= disparities  # columns without a partner are not matched
    width, height = (int(n) for n in np.ceil(end - start) + 1)
    pixels = np.array([[focal, 0, -start[0]], [0, focal, -start[1]], [0, 0, 1]])
    moved = pixels + np.array([[0, 0, least], [0, 0, 0], [0, 0, 0]])
    return RectifiedPair(
        to_first=pixels @ rays,
        to_second=moved @ turns[1] @ np.linalg.inv(second.camera.matrix),
        size=(width, height),
        scale=focal * length,
        least=least,
        disparities=disparities,
        slant=rays[2],
    )


def depth_by_second(pair: RectifiedPair, first: GreyImage, second: GreyImage) -> Depth:
    """Depth (H, W) of the first image along its optical axis, in the unit of the poses; 0: unknown.

    Unknown where left and right disagree, without texture along the row, and beside edges.
    """
    left, right = (
        _warped(image, matrix, pair.size)
        for image, matrix in ((first, pair.to_first), (second, pair.to_second))
    )
    disparity = _disparity(left, right, pair.disparities)
    known = (disparity >= 0) & (_texture(left) >= _LEAST_TEXTURE) & ~_edges(disparity)
    height, width = first.shape
    back = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    values = cv2.warpPerspective(disparity, pair.to_first, (width, height), flags=back)
    whole = cv2.warpPerspective(
        known.astype(np.float32), pair.to_first, (width, height), flags=back
    )
    v, u = np.mgrid[:height, :width]
    slant = pair.slant[0] * u + pair.slant[1] * v + pair.slant[2]
    total = np.asarray(values, np.float64) + pair.least
    valid = (np.asarray(whole) > 0.999) & (total > 0)
    return np.where(valid, pair.scale / (np.where(valid, total, 1.0) * slant), 0).astype(np.float32)


def _warped(image: GreyImage, matrix: Array, size: tuple[int, int]) -> GreyImage:
    """The image without an edge at its borders, which would be texture."""
    border = cv2.BORDER_REPLICATE
    flags = cv2.INTER_CUBIC
    warped = cv2.warpPerspective(image, matrix, size, flags=flags, borderMode=border)
    return np.asarray(warped, np.uint8)


def _disparity(left: GreyImage, right: GreyImage, count: int) -> NDArray[np.float32]:
    """Disparities in pixels; negative: unknown."""
    matcher = cv2.StereoSGBM.create(
        minDisparity=0,
        numDisparities=count,
        blockSize=_WINDOW,
        P1=8 * _WINDOW**2,
        P2=32 * _WINDOW**2,
        disp12MaxDiff=1,
        preFilterCap=31,
        uniquenessRatio=10,
        speckleWindowSize=100,
        speckleRange=1,
        mode=cv2.STEREO_SGBM_MODE_SGBM,
    )
    return np.asarray(matcher.compute(left, right), np.float32) / np.float32(16)


def _texture(image: GreyImage) -> NDArray[np.float32]:
    """How much the image changes along the row about each pixel: without, nothing is matched."""
    change = np.abs(cv2.Sobel(image, cv2.CV_32F, 1, 0))
    return np.asarray(cv2.blur(change, (_TEXTURE_WINDOW, _TEXTURE_WINDOW)), np.float32)


def _edges(disparity: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels next to a jump, or to an unknown disparity."""
    kernel = np.ones((3, 3), np.uint8)
    high, low = cv2.dilate(disparity, kernel), cv2.erode(disparity, kernel)
    return np.asarray((high - low > _EDGE) | (low < 0), bool)


def _corners(camera: Camera) -> Array:
    """The corners of the image, one after another, as columns (3, 4) of homogeneous pixels."""
    right, bottom = camera.width - 0.5, camera.height - 0.5
    return np.array([[-0.5, right, right, -0.5], [-0.5, -0.5, bottom, bottom], [1, 1, 1, 1.0]])
