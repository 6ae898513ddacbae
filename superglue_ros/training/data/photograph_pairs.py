"""Pairs of views of photographs under random homographies, made on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from superglue_ros.settings import setting
from superglue_ros.training.data.pair_geometry import Homographies


@dataclass(frozen=True)
class HomographyRanges:
    """Of each view against the photograph."""

    rotation_deg: float = setting(18.0, "Largest rotation in the image either way.", low=0.0)
    perspective: float = setting(
        0.25, "Largest change of depth across the view either way.", low=0.0, high=0.8
    )
    scale: float = setting(1.6, "Largest ratio of the views' scales.", low=1.0)
    turned: float = setting(0.08, "Share of pairs turned by any angle.", low=0.0, high=1.0)
    crop_low: float = setting(
        0.25, "Smallest view, as a part of the largest that fits.", low=0.01, high=1.0
    )
    crop_high: float = setting(0.9, "Largest view, likewise.", low=0.01, high=1.0)


class PhotographPairs:
    """Grey photographs (H, W) uint8 as pyramids on the device."""

    def __init__(self, images: Sequence[Tensor], device: torch.device) -> None:
        self._pyramids: list[list[Tensor]] = []
        for image in images:
            level = image.to(device).float()[None, None] / 255
            pyramid = [level.half()]
            while min(level.shape[2:]) > 400:
                level = F.avg_pool2d(level, 2)
                pyramid.append(level.half())
            self._pyramids.append(pyramid)

    def draw(
        self, pairs: int, width: int, height: int, generator: torch.Generator,
        ranges: HomographyRanges = HomographyRanges(),
    ) -> tuple[Tensor, Homographies]:  # fmt: skip
        """Images (2, ``pairs``, H, W) in [0, 1] before photometric changes, and their geometry."""
        device = self._pyramids[0][0].device
        numbers = torch.rand(pairs, 18, generator=generator, device=device).cpu().double()
        images, matrices = [], []
        for u in numbers:
            pyramid = self._pyramids[int(u[0] * len(self._pyramids)) % len(self._pyramids)]
            room = torch.tensor([pyramid[0].shape[3], pyramid[0].shape[2]], dtype=torch.float64)
            fit = float(min(room[0] / width, room[1] / height))
            # Pixels of the photograph for a pixel of the view.
            pitch = fit * float(ranges.crop_low + (ranges.crop_high - ranges.crop_low) * u[1])
            limit = 180.0 if float(u[2]) < ranges.turned else ranges.rotation_deg
            centre = room * (0.3 + 0.4 * u[3:5])
            photo_from_view = [
                _view(v, centre, pitch, math.radians(limit), width, height, ranges)
                for v in (u[5:11], u[11:17])
            ]
            for matrix in photo_from_view:
                # From the level of the pyramid that is sampled at one to two pixels.
                step = float(matrix[:2, :2].det().abs().sqrt())
                level = min(max(int(math.log2(max(step, 1e-3))), 0), len(pyramid) - 1)
                images.append(_warp(pyramid[level], matrix.float(), 2**level, width, height))
            matrices.append(torch.linalg.inv(photo_from_view[1]) @ photo_from_view[0])
        stacked = torch.stack(images).unflatten(0, (pairs, 2)).transpose(0, 1)
        second_from_first = torch.stack(matrices).float().to(device)
        return stacked, Homographies(second_from_first, (width, height))


def _view(
    u: Tensor, centre: Tensor, pitch: float, limit: float, width: int, height: int,
    ranges: HomographyRanges,
) -> Tensor:  # fmt: skip
    """A random view: (3, 3) from its pixels to the photograph's; ``u`` six numbers in [0, 1)."""
    angle = limit * float(2 * u[0] - 1)
    scale = pitch * ranges.scale ** float(u[1] - 0.5)
    size = torch.tensor([width, height], dtype=torch.float64)
    to_centre, back = (torch.eye(3, dtype=torch.float64) for _ in range(2))
    to_centre[:2, 2] = -(size - 1) / 2
    back[:2, 2] = centre + (u[4:6] - 0.5) * 0.35 * size * scale
    middle = torch.eye(3, dtype=torch.float64)
    middle[0, :2] = torch.tensor([math.cos(angle), -math.sin(angle)]) * scale
    middle[1, :2] = torch.tensor([math.sin(angle), math.cos(angle)]) * scale
    middle[2, :2] = ranges.perspective * (2 * u[2:4] - 1) / width
    return back @ middle @ to_centre


def _warp(photo: Tensor, matrix: Tensor, factor: int, width: int, height: int) -> Tensor:
    """A view (H, W) float32: the mean of 2 x 2 samples for each pixel; mirrored outside."""
    device = photo.device
    x = (torch.arange(2 * width, device=device) - 0.5) / 2
    y = (torch.arange(2 * height, device=device) - 0.5) / 2
    pixels = F.pad(torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1), (0, 1), value=1.0)
    mapped = pixels @ matrix.to(device).T
    there = mapped[..., :2] / mapped[..., 2:].clamp(min=1e-3)
    size = torch.tensor([photo.shape[3], photo.shape[2]], device=device) * factor
    grid = (there + 0.5) / size * 2 - 1
    sampled = F.grid_sample(
        photo.float(), grid[None], mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return F.avg_pool2d(sampled, 2)[0, 0]
