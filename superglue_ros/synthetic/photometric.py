"""Photometric changes of grey images, as by another camera, exposure or time of day.

Shared by training and evaluation. All random numbers come from the generator passed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

GreyImage = NDArray[np.uint8]


@dataclass(frozen=True)
class PhotometricRecipe:
    """Ranges of the changes; each is applied with probability ``probability``, 0 switches it off.

    ``brightness`` in grey levels either way; ``contrast`` (low, high) factor about the mean;
    ``gamma`` (low, high); ``noise`` up to this standard deviation in grey levels; ``blur`` up to
    this standard deviation in pixels; ``motion_blur`` up to this length in pixels; ``shading`` up
    to this part of the brightness taken away by a soft shadow; ``jpeg`` (low, high) quality.
    """

    probability: float = 0.5
    brightness: float = 40.0
    contrast: tuple[float, float] = (0.6, 1.4)
    gamma: tuple[float, float] = (0.7, 1.5)
    noise: float = 8.0
    blur: float = 1.2
    motion_blur: int = 5
    shading: float = 0.5
    jpeg: tuple[int, int] = (40, 95)


def distort(
    image: GreyImage, rng: np.random.Generator, recipe: PhotometricRecipe = PhotometricRecipe()
) -> GreyImage:
    """One random photometric change of a grey image (H, W) uint8, in the order of a camera."""
    grey: NDArray[np.floating] = image.astype(np.float32)
    if _applies(rng, recipe, recipe.shading):
        grey *= shadow(image.shape[:2], rng, recipe.shading)
    if _applies(rng, recipe, recipe.motion_blur):
        length = rng.uniform(1.0, recipe.motion_blur)
        kernel = motion_kernel(length, rng.uniform(0, np.pi))
        grey = np.asarray(
            cv2.filter2D(grey, -1, kernel, borderType=cv2.BORDER_REFLECT_101), np.float32
        )
    if _applies(rng, recipe, recipe.blur):
        sigma = rng.uniform(0.1, max(recipe.blur, 0.1))
        grey = np.asarray(
            cv2.GaussianBlur(grey, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), np.float32
        )
    if _applies(rng, recipe, recipe.gamma != (1.0, 1.0)):
        exponent = np.exp(rng.uniform(*np.log(recipe.gamma)))
        grey = 255.0 * (np.clip(grey, 0, 255) / 255.0) ** np.float32(exponent)
    if _applies(rng, recipe, recipe.contrast != (1.0, 1.0)):
        mean = grey.mean()
        grey = (grey - mean) * np.float32(rng.uniform(*recipe.contrast)) + mean
    if _applies(rng, recipe, recipe.brightness):
        grey = grey + np.float32(rng.uniform(-recipe.brightness, recipe.brightness))
    if _applies(rng, recipe, recipe.noise):
        level = np.float32(rng.uniform(0, recipe.noise))
        grey = grey + level * rng.standard_normal(grey.shape, np.float32)
    out = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    if _applies(rng, recipe, recipe.jpeg != (100, 100)):
        quality = int(rng.integers(recipe.jpeg[0], recipe.jpeg[1] + 1))
        _, code = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, quality])
        out = np.asarray(cv2.imdecode(code, cv2.IMREAD_GRAYSCALE), np.uint8)
    return out


def shadow(
    shape: tuple[int, ...], rng: np.random.Generator, strength: float
) -> NDArray[np.float32]:
    """Brightness factors (H, W) in [1 - strength, 1] of a few soft-edged shadows."""
    height, width = shape
    mask = np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        centre = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
        low, high = max(2, min(shape) // 8), max(3, min(shape) // 2)
        axes = (int(rng.uniform(low, high)), int(rng.uniform(low, high)))
        cv2.ellipse(mask, centre, axes, rng.uniform(0, 180), 0, 360, 1.0, -1)
    soft = cv2.GaussianBlur(mask, (0, 0), max(1.0, min(shape) * rng.uniform(0.02, 0.1)))
    return (1.0 - np.float32(rng.uniform(0, strength)) * soft).astype(np.float32)


def motion_kernel(length: float, angle: float) -> NDArray[np.float32]:
    """Convolution kernel of a straight motion of ``length`` pixels at ``angle`` radians, sum 1."""
    half = max(1, int(np.ceil(length / 2)))
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    for t in np.linspace(-length / 2, length / 2, 8 * half + 1):
        x, y = half + t * np.cos(angle), half + t * np.sin(angle)
        x0, y0 = int(np.floor(x)), int(np.floor(y))
        for column, row in ((x0, y0), (x0 + 1, y0), (x0, y0 + 1), (x0 + 1, y0 + 1)):
            weight = (1 - abs(x - column)) * (1 - abs(y - row))
            if weight > 0 and 0 <= column < 2 * half + 1 and 0 <= row < 2 * half + 1:
                kernel[row, column] += np.float32(weight)
    return kernel / kernel.sum()


def _applies(rng: np.random.Generator, recipe: PhotometricRecipe, strength: float) -> bool:
    return bool(strength) and rng.random() < recipe.probability
