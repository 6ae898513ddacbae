"""Where sub-pixel places of one view appear in another: differentiable, for batches of pairs.

For training that moves keypoints; labels of matches are made by
:mod:`superglue_ros.training.data.device_labels`. Exact geometry: homographies of photographs, or
rendered depth with poses. The reciprocal of depth is linear in the image on a plane, so it is what
is interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

_CONTINUOUS = 1.06  # largest ratio of the reciprocal depths around a pixel on one surface
_HIDDEN = 0.02  # relative difference of depth from which a point is hidden


class PairGeometry(Protocol):
    """B pairs of views of (H, W) pixels; ``side`` 0 maps from the first to the second view."""

    def warp(self, points: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Points (B, N, 2) [px] in the other view (B, N, 2), and whether it sees them (B, N)."""
        ...


@dataclass(frozen=True, eq=False)
class Homographies:
    """``second_from_first`` (B, 3, 3) of views of ``size`` (width, height)."""

    second_from_first: Tensor
    size: tuple[int, int]

    def warp(self, points: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """See :class:`PairGeometry`."""
        h = self.second_from_first
        h = h if side == 0 else torch.linalg.inv(h)
        mapped = F.pad(points, (0, 1), value=1.0) @ h.mT
        depth = mapped[..., 2:]
        there = mapped[..., :2] / depth.clamp(min=1e-6)
        return there, (depth[..., 0] > 1e-6) & _inside(there, self.size)


@dataclass(frozen=True, eq=False)
class PosedDepth:
    """Rendered pairs.

    ``inverse_depth`` (2, B, H, W) [1/m], 0 where there is none; ``matrices`` (2, B, 3, 3);
    ``second_from_first`` (B, 4, 4) takes points of the first camera to the second.
    """

    inverse_depth: Tensor
    matrices: Tensor
    second_from_first: Tensor

    def warp(self, points: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """See :class:`PairGeometry`."""
        transform = self.second_from_first
        transform = transform if side == 0 else torch.linalg.inv(transform)
        here, continuous = _sample(self.inverse_depth[side], points)
        k_here, k_there = self.matrices[side], self.matrices[1 - side]
        rays = F.pad(points, (0, 1), value=1.0) @ torch.linalg.inv(k_here).mT
        # Points divided by their depth: rotation of the ray plus translation times 1 / depth.
        moved = rays @ transform[:, :3, :3].mT + here[..., None] * transform[:, None, :3, 3]
        ahead = moved[..., 2] > 1e-4
        projected = moved @ k_there.mT
        there = projected[..., :2] / projected[..., 2:].clamp(min=1e-4)
        expected = here / moved[..., 2].clamp(min=1e-4)  # 1 / depth in the other camera
        seen, flat = _sample(self.inverse_depth[1 - side], there)
        height, width = self.inverse_depth.shape[-2:]
        agrees = (seen - expected).abs() < _HIDDEN * expected
        known = continuous & (here > 0)
        inside = _inside(there, (width, height))
        return there, known & ahead & inside & flat & agrees


def _inside(points: Tensor, size: tuple[int, int]) -> Tensor:
    limit = points.new_tensor([size[0] - 1.0, size[1] - 1.0])
    return ((points >= 0) & (points <= limit)).all(dim=-1)


def _sample(maps: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Bilinear values of (B, H, W) at (B, N, 2), and whether the four pixels are of one surface."""
    height, width = maps.shape[-2:]
    x = points[..., 0].nan_to_num(0.0).clamp(0, width - 1.001)
    y = points[..., 1].nan_to_num(0.0).clamp(0, height - 1.001)
    column, row = x.floor().long(), y.floor().long()
    fx, fy = x - column, y - row
    flat = maps.flatten(1)
    index = row * width + column
    corners = torch.stack([flat.gather(1, index + o) for o in (0, 1, width, width + 1)])
    weights = torch.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy])
    low, high = corners.amin(dim=0), corners.amax(dim=0)
    return (corners * weights).sum(dim=0), (low > 0) & (high < _CONTINUOUS * low)
