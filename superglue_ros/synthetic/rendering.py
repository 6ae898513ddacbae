"""Deterministic renderer of textured planes: image, exact depth and pose, no GPU.

Visibility is a z-buffer: the inverse depth of a plane is an affine function of the pixel, so a
plane costs a few array operations on its bounding box. Colours are sampled from a mip
pyramid (trilinear), edges at several points per pixel: aliased textures and jagged edges would
create keypoints that exist in one view only.

Rooms to render are in :mod:`superglue_ros.synthetic.rooms`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import ImageError

ImageArray = NDArray[np.uint8]
Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]

NEAR_M = 0.05
"""Distance of the near plane [m]."""

_ROW = 1024  # samples are passed to cv2.remap in rows: it takes images, not lists


class Texture:
    """A photograph with its mip pyramid, packed into one image for a single look-up.

    ``image`` is (H, W) or (H, W, 3) uint8. Making the pyramid costs more than using it: share one
    texture between planes and scenes.
    """

    def __init__(self, image: ImageArray) -> None:
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
            raise ImageError(
                f"a texture has shape {image.shape} and type {image.dtype}: "
                f"give a non-empty (H, W) or (H, W, 3) uint8 image"
            )
        levels: list[Any] = [image]
        while min(levels[-1].shape[:2]) > 2:
            height, width = levels[-1].shape[:2]
            smooth = cv2.GaussianBlur(levels[-1], (3, 3), 0.5)
            size = ((width + 1) // 2, (height + 1) // 2)
            levels.append(cv2.resize(smooth, size, interpolation=cv2.INTER_AREA))
        self.channels = 1 if image.ndim == 2 else image.shape[2]
        self.widths, self.heights = np.array(
            [lv.shape[1::-1] for lv in levels], np.float32
        ).T.copy()
        self.packed, self.left, self.top = _pack(levels)

    def sample(self, s: Floats, t: Floats, lod: Floats) -> Floats:
        """Colours (N, channels) float32 at ``s``, ``t`` (N,) in [0, 1], N a multiple of 1024.

        ``lod`` (N,) is the base-2 logarithm of texture pixels per sample; (0, 0) is the outer
        corner of the top-left texture pixel.
        """
        s = np.clip(s, 0, 1)
        t = np.clip(t, 0, 1)
        lod = np.clip(lod, 0, len(self.widths) - 1.001)
        fine = lod.astype(np.int32)
        colour = self._bilinear(s, t, fine)
        if lod.any():
            share = lod - fine
            coarse = self._bilinear(s, t, fine + 1)
            coarse -= colour
            coarse *= share[:, None]
            colour += coarse
        return colour

    def _bilinear(self, s: Floats, t: Floats, level: NDArray[np.int32]) -> Floats:
        u = s * self.widths.take(level, mode="clip")
        u += self.left.take(level, mode="clip")
        v = t * self.heights.take(level, mode="clip")
        v += self.top.take(level, mode="clip")
        colours = cv2.remap(self.packed, u.reshape(-1, _ROW), v.reshape(-1, _ROW), cv2.INTER_LINEAR)
        return colours.reshape(len(s), -1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Plane:
    """A textured parallelogram, visible from the side on which its texture is not mirrored.

    ``origin`` (3,) is the world point of the texture's top-left corner; ``edge_u`` and ``edge_v``
    (3,) run along its width and height, in metres. ``gain`` scales the brightness.
    """

    texture: Texture
    origin: Matrix
    edge_u: Matrix
    edge_v: Matrix
    gain: float = 1.0


@dataclass(frozen=True, eq=False)
class Scene:
    """Planes to render; ``bounds`` (2, 3) and ``obstacles`` (B, 2, 3): the lower and upper corners
    of the room and of the boxes in it, in metres, to keep cameras out of them.
    """

    planes: tuple[Plane, ...]
    bounds: Matrix
    obstacles: Matrix


def render(
    scene: Scene,
    matrix: Matrix,
    width: int,
    height: int,
    T_world_camera: Matrix,
    samples: int = 2,
) -> tuple[ImageArray, Floats]:
    """The scene as a pinhole camera sees it.

    ``matrix`` (3, 3) intrinsics in pixels; ``T_world_camera`` (4, 4), optical axes. Pixels on
    edges are the mean of ``samples`` x ``samples`` sub-pixels. Returns the image (height, width) or
    (height, width, 3) uint8, and the depth (height, width) float32: metres along z at the pixel's
    centre, 0 where there is nothing.
    """
    faces = _faces(scene, matrix, T_world_camera, width, height)
    owner, inverse_depth = _visibility(faces, width, height)
    depth = np.divide(1.0, inverse_depth, where=inverse_depth > 0, out=np.zeros_like(inverse_depth))
    channels = max((plane.texture.channels for plane in scene.planes), default=1)
    image = _colours(faces, owner.reshape(-1), *_pixel_grid(width, height), 1.0, channels)
    if samples > 1 and faces.planes:
        pixels, owners, x, y = _split_pixels(faces, owner, samples)
        parts = _colours(
            faces, owners.reshape(-1), x.reshape(-1), y.reshape(-1), 1.0 / samples, channels
        )
        mean = parts.reshape(len(pixels), samples * samples, channels).mean(
            axis=1, dtype=np.float32
        )
        image[pixels] = (mean + np.float32(0.5)).astype(np.uint8)
    image = image.reshape((height, width) if channels == 1 else (height, width, channels))
    return image, depth.astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Faces:
    """The planes before a camera, F of them.

    ``plane_from_pixel`` (F, 3, 3) takes (x, y, 1) to (s, t, 1) / z, where s, t in [0, 1] are the
    place on the plane; ``boxes`` (F, 4) int: left, top, right, bottom pixels, the ends exclusive.
    """

    planes: list[Plane]
    plane_from_pixel: Matrix
    boxes: NDArray[np.int64]


def _faces(scene: Scene, matrix: Matrix, T_world_camera: Matrix, width: int, height: int) -> _Faces:
    R = T_world_camera[:3, :3]
    origins = np.reshape([plane.origin for plane in scene.planes], (-1, 3)) - T_world_camera[:3, 3]
    edges_u = np.reshape([plane.edge_u for plane in scene.planes], (-1, 3))
    edges_v = np.reshape([plane.edge_v for plane in scene.planes], (-1, 3))
    camera_from_plane = np.stack([edges_u @ R, edges_v @ R, origins @ R], axis=2)
    areas = np.linalg.norm(np.cross(edges_u, edges_v), axis=1)
    in_front = np.linalg.det(camera_from_plane) > 1e-6 * areas  # not edge-on, not from behind
    corners = camera_from_plane @ np.array([[0, 1, 1, 0], [0, 0, 1, 1], [1, 1, 1, 1.0]])
    planes, chosen, boxes = [], [], []
    for index in np.flatnonzero(in_front & (corners[:, 2] > NEAR_M).any(axis=1)):
        outline = matrix @ _clip_near(corners[index].T).T
        box = _bounding_box(outline[:2] / outline[2], width, height)
        if box is not None:
            planes.append(scene.planes[index])
            chosen.append(index)
            boxes.append(box)
    inverse = np.linalg.inv(matrix @ camera_from_plane[chosen]).astype(np.float64)
    return _Faces(planes, inverse, np.array(boxes, np.int64).reshape(-1, 4))


def _clip_near(corners: Matrix) -> Matrix:
    """The part of a convex polygon (K, 3) beyond the near plane (Sutherland-Hodgman)."""
    if (corners[:, 2] >= NEAR_M).all():
        return corners
    kept = []
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if a[2] >= NEAR_M:
            kept.append(a)
        if (a[2] >= NEAR_M) != (b[2] >= NEAR_M):
            kept.append(a + (b - a) * (NEAR_M - a[2]) / (b[2] - a[2]))
    return np.array(kept)


def _bounding_box(outline: Matrix, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of the pixels whose centres may lie in the ``outline`` (2, K)."""
    low = np.maximum(np.ceil(outline.min(axis=1) - 1e-3), 0)
    high = np.minimum(np.floor(outline.max(axis=1) + 1e-3) + 1, (width, height))
    if (low >= high).any():
        return None
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _visibility(faces: _Faces, width: int, height: int) -> tuple[NDArray[np.int16], Matrix]:
    """Which face is nearest at each pixel's centre (-1 = none), and its inverse depth."""
    owner = np.full((height, width), -1, np.int16)
    nearest = np.zeros((height, width))
    for index, (left, top, right, bottom) in enumerate(faces.boxes):
        x, y = np.arange(left, right), np.arange(top, bottom)
        s, t, inverse_depth = (
            a * x + (b * y + c)[:, None] for a, b, c in faces.plane_from_pixel[index]
        )
        region = (slice(top, bottom), slice(left, right))
        seen = (inverse_depth > nearest[region]) & _is_inside(s, t, inverse_depth)
        np.copyto(nearest[region], inverse_depth, where=seen)
        np.copyto(owner[region], np.int16(index), where=seen)
    return owner, nearest


def _is_inside(s: NDArray, t: NDArray, inverse_depth: NDArray) -> NDArray[np.bool_]:
    """Whether (s, t) / inverse_depth lies on the plane, and beyond the near plane."""
    tolerance = inverse_depth.dtype.type(1e-6)  # neighbours share an edge: no crack between them
    upper = inverse_depth + tolerance
    inside = s >= -tolerance
    inside &= t >= -tolerance
    inside &= s <= upper
    inside &= t <= upper
    inside &= inverse_depth <= 1.0 / NEAR_M
    return inside


def _split_pixels(
    faces: _Faces, owner: NDArray[np.int16], samples: int
) -> tuple[NDArray[np.int64], NDArray[np.int16], Floats, Floats]:
    """The pixels on edges, as flat indices (M,), and their sub-pixels' faces, x and y, each (M, S).

    Only where a pixel's 3 x 3 surroundings show several faces can its sub-pixels differ from it;
    the candidates there are the pixel's own face and the lowest and highest number around it.
    """
    around = np.ones((3, 3), np.uint8)
    lowest, highest = cv2.erode(owner, around), cv2.dilate(owner, around)
    rows, columns = np.nonzero(lowest != highest)
    step = (np.arange(samples, dtype=np.float32) + 0.5) / samples - 0.5
    x = columns[:, None].astype(np.float32) + np.tile(step, samples)
    y = rows[:, None].astype(np.float32) + np.repeat(step, samples)
    centre = owner[rows, columns]
    best = centre[:, None].repeat(samples * samples, axis=1)
    nearest = np.zeros(best.shape, np.float32)
    coefficients = faces.plane_from_pixel.astype(np.float32)
    for candidate in (centre, lowest[rows, columns], highest[rows, columns]):
        H = coefficients[candidate][..., None]
        s, t, inverse_depth = (H[:, i, 0] * x + H[:, i, 1] * y + H[:, i, 2] for i in range(3))
        seen = _is_inside(s, t, inverse_depth) & (inverse_depth > nearest)
        seen &= candidate[:, None] >= 0
        np.copyto(nearest, inverse_depth, where=seen)
        np.copyto(best, candidate[:, None], where=seen)
    return rows * owner.shape[1] + columns, best, x, y


def _colours(
    faces: _Faces, owner: NDArray[np.int16], x: Floats, y: Floats, spacing: float, channels: int
) -> ImageArray:
    """Colours (N, channels) of N samples, given their faces, pixels and mutual distance [px]."""
    colours = np.zeros((len(owner), channels), np.uint8)
    by_face = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner + 1, minlength=len(faces.planes) + 1))
    for index, plane in enumerate(faces.planes):
        chosen = by_face[ends[index] : ends[index + 1]]
        if not len(chosen):
            continue
        chosen = np.pad(chosen, (0, -len(chosen) % _ROW), mode="edge")
        H = faces.plane_from_pixel[index].astype(np.float32)
        s, t, depth = H[:, :1] * x.take(chosen) + H[:, 1:2] * y.take(chosen) + H[:, 2:]
        np.reciprocal(depth, out=depth)
        s *= depth
        t *= depth
        colour = _sample_plane(plane.texture, H, s, t, depth, spacing)
        colour *= np.float32(plane.gain)
        colour += np.float32(0.5)
        colours[chosen] = np.minimum(colour, 255, out=colour).astype(np.uint8)
    return colours


def _sample_plane(
    texture: Texture, H: Floats, s: Floats, t: Floats, depth: Floats, spacing: float
) -> Floats:
    """Colours of a plane at s, t, averaged over the footprint of a sample.

    The footprint is elongated where the plane is seen obliquely. Two taps along its longer side
    blur the texture half as much as one tap of that length.
    """
    # Derivatives of s, t by the pixel: d(S / W) = (dS - s dW) / W, with 1 / W the depth.
    size = np.array([texture.widths[0], texture.heights[0]], np.float32)
    scaled = depth * np.float32(spacing)
    ds = (H[0, :2, None] - H[2, :2, None] * s) * scaled
    dt = (H[1, :2, None] - H[2, :2, None] * t) * scaled
    area = (ds * size[0]) ** 2 + (dt * size[1]) ** 2  # (2, N) squared texture pixels
    if area.max() <= 1.0:
        return texture.sample(s, t, np.zeros_like(s))
    along_y = area[1] > area[0]
    longer = np.maximum(area[0], area[1])
    shorter = np.minimum(area[0], area[1])
    lod = np.maximum(shorter, longer * np.float32(0.25))
    lod = np.float32(0.5) * np.log2(lod + np.float32(1e-12))
    ds = np.where(along_y, ds[1], ds[0]) * np.float32(0.25)
    dt = np.where(along_y, dt[1], dt[0]) * np.float32(0.25)
    colour = texture.sample(s - ds, t - dt, lod)
    colour += texture.sample(s + ds, t + dt, lod)
    colour *= np.float32(0.5)
    return colour


@lru_cache(maxsize=4)
def _pixel_grid(width: int, height: int) -> tuple[Floats, Floats]:
    """The coordinates x and y of all pixels, each (height * width,)."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return x.reshape(-1), y.reshape(-1)


def _pack(levels: list[ImageArray]) -> tuple[ImageArray, Floats, Floats]:
    """All levels in one image: the first on the left, the others stacked on its right.

    Each has a border of its own edge pixels, so interpolation never reaches a neighbour. Returns
    the image and the offsets (L,), (L,) that turn s * width into a column, t * height into a row.
    """
    border = 2
    padded = [
        cv2.copyMakeBorder(lv, border, border, border, border, cv2.BORDER_REPLICATE)
        for lv in levels
    ]
    height = max(padded[0].shape[0], sum(p.shape[0] for p in padded[1:]))
    width = padded[0].shape[1] + max((p.shape[1] for p in padded[1:]), default=0)
    packed = np.zeros((height, width, *levels[0].shape[2:]), np.uint8)
    left = np.full(len(levels), padded[0].shape[1], np.float32)
    left[0] = 0
    top = np.cumsum([0, 0] + [p.shape[0] for p in padded[1:]])[: len(levels)].astype(np.float32)
    for part, x, y in zip(padded, left.astype(int), top.astype(int), strict=True):
        packed[y : y + part.shape[0], x : x + part.shape[1]] = part
    return packed, left + np.float32(border - 0.5), top + np.float32(border - 0.5)
