"""Ground-truth matches of many pairs at once, on the device of their keypoints.

The same labels as :func:`superglue_ros.geometry.ground_truth.label_matches` with the paper's rule,
of points projected as in :mod:`superglue_ros.geometry.depth_overlap`, without NumPy pair by pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from superglue_ros.geometry.depth_overlap import OCCLUSION_TOLERANCE
from superglue_ros.geometry.ground_truth import IGNORED, UNMATCHED, LabelThresholds


@dataclass(frozen=True, eq=False)
class Projections:
    """Where keypoints of P images appear in others.

    ``points`` (P, N, 2) pixels, float64; ``hidden``, ``unknown`` (P, N) as in
    :class:`superglue_ros.geometry.ground_truth.Projection`.
    """

    points: Tensor
    hidden: Tensor
    unknown: Tensor


def project_homographies(
    keypoints: Tensor, homographies: Tensor, width: int, height: int
) -> Projections:
    """Keypoints (P, N, 2) under homographies (P, 3, 3) into images of ``width`` x ``height``."""
    mapped = _homogeneous(keypoints.double()) @ homographies.double().transpose(1, 2)
    behind = mapped[..., 2] <= 1e-9
    points = (mapped[..., :2] / mapped[..., 2:]).masked_fill(behind[..., None], torch.nan)
    hidden = behind | ~_inside(points, width, height)
    return Projections(points, hidden, torch.zeros_like(hidden))


def project_depths(
    keypoints: Tensor,
    depths: Tensor,
    first: Tensor,
    second: Tensor,
    matrices: Tensor,
    T_second_first: Tensor,
) -> Projections:
    """Keypoints (P, N, 2) of the views ``first`` (P,) in the views ``second`` (P,).

    ``depths`` (V, H, W) metres along the optical axis, 0 or NaN = missing; ``matrices`` (V, 3, 3);
    ``T_second_first`` (P, 4, 4).
    """
    points = keypoints.double()
    matrices, transforms = matrices.double(), T_second_first.double()
    z0 = _sample(depths, first, points)
    rays = _homogeneous(points) @ matrices.inverse()[first].transpose(1, 2)
    camera = (rays * z0[..., None]) @ transforms[:, :3, :3].transpose(1, 2)
    camera = camera + transforms[:, None, :3, 3]
    behind = camera[..., 2] <= 1e-6
    image = (camera @ matrices[second].transpose(1, 2))[..., :2] / camera[..., 2:]
    image = image.masked_fill(behind[..., None], torch.nan)
    height, width = depths.shape[1:]
    missing = z0.isnan()
    outside = ~missing & (behind | ~_inside(image, width, height))
    z1 = _sample(depths, second, image)
    hidden = outside | (camera[..., 2] > z1 * (1 + OCCLUSION_TOLERANCE))
    before = camera[..., 2] < z1 * (1 - OCCLUSION_TOLERANCE)
    return Projections(image, hidden, ~hidden & (missing | z1.isnan() | before))


def label_pairs(
    keypoints0: Tensor,
    keypoints1: Tensor,
    projection01: Projections,
    projection10: Projections,
    thresholds: LabelThresholds,
) -> tuple[Tensor, Tensor]:
    """Labels (P, M) and (P, N) int64 of keypoints (P, M, 2) and (P, N, 2), by the paper's rule."""
    seen = projection01.points.isfinite().all(dim=2) & ~projection01.hidden & ~projection01.unknown
    there = projection01.points[:, :, None]
    errors = (there - keypoints1.double()[:, None]).square().sum(dim=3).sqrt()
    errors = errors.masked_fill(~seen[..., None], torch.inf)
    smallest0, best1 = errors.min(dim=2)
    smallest1, best0 = errors.min(dim=1)
    labels0 = _without_partner(smallest0, projection01, thresholds)
    labels1 = _without_partner(smallest1, projection10, thresholds)
    rows0 = torch.arange(errors.shape[1], device=errors.device).expand_as(best1)
    rows1 = torch.arange(errors.shape[2], device=errors.device).expand_as(best0)
    matched0 = (best0.gather(1, best1) == rows0) & (smallest0 < thresholds.match)
    matched1 = (best1.gather(1, best0) == rows1) & (smallest1 < thresholds.match)
    return torch.where(matched0, best1, labels0), torch.where(matched1, best0, labels1)


def _without_partner(
    smallest: Tensor, projection: Projections, thresholds: LabelThresholds
) -> Tensor:
    far = -torch.inf if thresholds.unmatched is None else thresholds.unmatched
    alone = projection.hidden | (~projection.unknown & (smallest > far))
    return torch.where(alone, UNMATCHED, IGNORED)


def _homogeneous(points: Tensor) -> Tensor:
    return torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)


def _inside(points: Tensor, width: int, height: int) -> Tensor:
    x, y = points.unbind(dim=-1)
    return (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)


def _sample(depths: Tensor, views: Tensor, points: Tensor) -> Tensor:
    """Depth (P, N) at the nearest pixel of (P, N, 2); NaN outside and where it is missing."""
    height, width = depths.shape[1:]
    valid = _inside(points, width, height)
    pixels = torch.where(valid[..., None], points, 0.0).round().long()
    x, y = pixels[..., 0].clamp(0, width - 1), pixels[..., 1].clamp(0, height - 1)
    values = depths[views[:, None], y, x].double()
    return torch.where(valid & values.isfinite() & (values > 0), values, torch.nan)
