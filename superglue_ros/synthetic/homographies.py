"""Image pairs with a known homography, from full-size images (paper, section 5.1 and appendix E).

Both views are warped out of the same large image and lie inside it, so no border artefacts appear.
Training and evaluation share this recipe. All random numbers come from the generator passed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import ConfigError, DataError, ImageError

GreyImage = NDArray[np.uint8]
Matrix = NDArray[np.floating]


@dataclass(frozen=True)
class HomographyRecipe:
    """Ranges of the random homography between two views of ``width`` x ``height`` pixels.

    ``perspective`` moves each corner by up to this part of the image side; ``rotation_deg`` either
    way, but any angle for the part ``turned`` of the homographies; ``scale`` (low, high) is drawn
    uniformly in its logarithm; ``translation`` in parts of the image side; views that share less
    than ``min_overlap`` of their area are drawn again; ``min_crop`` is the smallest part of the
    largest possible crop that is used. Raises
    :class:`ConfigError` on values that no homography can have.
    """

    width: int = 640
    height: int = 480
    perspective: float = 0.15
    rotation_deg: float = 25.0
    turned: float = 0.0
    scale: tuple[float, float] = (0.7, 1.4)
    translation: float = 0.2
    min_overlap: float = 0.35
    min_crop: float = 0.7

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high < np.inf:
            raise ConfigError(
                f"scale must be two positive numbers, low before high, not {low} {high}"
            )
        for name in ("perspective", "rotation_deg", "translation", "min_overlap"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ConfigError(f"{name} must be at least 0, not {getattr(self, name)}")
        if not 0 < self.min_crop <= 1:
            raise ConfigError(f"min_crop must be above 0 and at most 1, not {self.min_crop}")
        if not 0 <= self.turned <= 1:
            raise ConfigError(f"turned must be a part from 0 to 1, not {self.turned}")
        if min(self.width, self.height) < 1:
            raise ConfigError(f"a view of {self.width}x{self.height} has no pixels")


@dataclass(frozen=True, eq=False)
class HomographyPair:
    """Two grey views (height, width) uint8 and the homography from pixels of 0 to pixels of 1."""

    image0: GreyImage
    image1: GreyImage
    homography: Matrix


def sample_pair(
    image: GreyImage, rng: np.random.Generator, recipe: HomographyRecipe = HomographyRecipe()
) -> HomographyPair:
    """Two views of one large grey image; raises :class:`ImageError` on any but (H, W) uint8."""
    if image.ndim != 2 or image.dtype != np.uint8 or min(image.shape) < 32:
        raise ImageError(
            f"image has shape {image.shape} and type {image.dtype}: homographies need a grey "
            f"uint8 image of at least 32x32 pixels"
        )
    homography = sample_homography(rng, recipe)
    source_from_0 = _place(image.shape, np.linalg.inv(homography), rng, recipe)
    source_from_1 = source_from_0 @ np.linalg.inv(homography)
    size = (recipe.width, recipe.height)
    return HomographyPair(
        warp(image, source_from_0, size), warp(image, source_from_1, size), homography
    )


def sample_homography(
    rng: np.random.Generator, recipe: HomographyRecipe = HomographyRecipe()
) -> Matrix:
    """A random homography (3, 3), pixels of view 0 to pixels of view 1, last element 1.

    Raises :class:`DataError` where the recipe's overlap can't be reached.
    """
    size = np.array([recipe.width, recipe.height], float)
    centre = (size - 1) / 2
    for _ in range(1000):
        corners = _corners(recipe)
        # No draw where nothing is turned: pairs of a seed stay what they were.
        turned = recipe.turned > 0 and rng.random() < recipe.turned
        limit = 180.0 if turned else recipe.rotation_deg
        angle = np.radians(rng.uniform(-limit, limit))
        zoom = np.exp(rng.uniform(*np.log(recipe.scale)))
        shift = rng.uniform(-recipe.translation, recipe.translation, 2) * size
        jitter = rng.uniform(-recipe.perspective, recipe.perspective, (4, 2)) * size
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        moved = (corners + jitter - centre) * zoom @ rotation.T + centre + shift
        homography = cv2.getPerspectiveTransform(
            corners.astype(np.float32), moved.astype(np.float32)
        ).astype(np.float64)
        quad = moved.astype(np.float32)
        if not cv2.isContourConvex(quad.reshape(-1, 1, 2)):
            continue
        if overlap(quad, recipe) >= recipe.min_overlap:
            return homography / homography[2, 2]
    raise DataError(
        f"no homography reaches an overlap of {recipe.min_overlap}: widen min_overlap, or narrow "
        f"translation, scale or perspective"
    )


def overlap(quad: NDArray[np.float32], recipe: HomographyRecipe) -> float:
    """Area shared by convex ``quad`` (4, 2) and the view, over the larger of the two."""
    frame = _corners(recipe).astype(np.float32)
    shared, _ = cv2.intersectConvexConvex(np.ascontiguousarray(quad), frame)
    return float(shared / max(cv2.contourArea(quad), cv2.contourArea(frame)))


def warp(image: GreyImage, source_from_view: Matrix, size: tuple[int, int]) -> GreyImage:
    """A view of ``size`` (width, height) where view pixel p shows source pixel H p.

    Large images are first shrunk to about the view's resolution, which keeps aliasing out.
    """
    width, height = size
    corners = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], np.float32)
    quad = cv2.perspectiveTransform(corners, source_from_view)
    shrink = float(np.sqrt(max(cv2.contourArea(quad), 1e-9) / (width * height)))
    if shrink > 1.2:
        h, w = image.shape
        small = (max(1, round(w / shrink)), max(1, round(h / shrink)))
        image = np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), np.uint8)
        sx, sy = small[0] / w, small[1] / h
        to_small = np.array([[sx, 0, sx / 2 - 0.5], [0, sy, sy / 2 - 0.5], [0, 0, 1]])
        source_from_view = to_small @ source_from_view
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    view = cv2.warpPerspective(
        image, source_from_view, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(view, np.uint8)


def _corners(recipe: HomographyRecipe) -> Matrix:
    w, h = recipe.width - 1.0, recipe.height - 1.0
    return np.array([[0, 0], [w, 0], [w, h], [0, h]])


def _place(
    shape: tuple[int, ...], view0_from_1: Matrix, rng: np.random.Generator, recipe: HomographyRecipe
) -> Matrix:
    """The similarity from view 0 to source pixels for which both views lie inside the source."""
    corners = _corners(recipe)
    seen = cv2.perspectiveTransform(corners[None], view0_from_1)[0]
    both = np.concatenate([corners, seen])
    low, high = both.min(axis=0), both.max(axis=0)
    room = np.array([shape[1] - 1.0, shape[0] - 1.0])
    largest = float((room / (high - low)).min())
    scale = largest * rng.uniform(recipe.min_crop, 1.0)
    offset = rng.uniform(0.0, 1.0, 2) * (room - scale * (high - low)) - scale * low
    return np.array([[scale, 0, offset[0]], [0, scale, offset[1]], [0, 0, 1.0]])
