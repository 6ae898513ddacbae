"""Shards of cached features from views that are tensors on the training device.

For producers that render or warp on a GPU, and detectors that change: features and labels of a
whole batch of view sets in a few launches, where ``cache.make_shard`` works pair by pair on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.errors import DataError
from superglue_ros.geometry.ground_truth import HOMOGRAPHY, LabelThresholds
from superglue_ros.networks.superpoint import non_maximum_suppression, sample_descriptors
from superglue_ros.training.data.cache import Shard
from superglue_ros.training.data.device_labels import (
    label_pairs,
    project_depths,
    project_homographies,
)
from superglue_ros.training.data.view_features import NMS_RADIUS, SCORE_THRESHOLD

Labels = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

_IMAGES_AT_ONCE = 40
_PAIRS_AT_ONCE = 64  # 64 float64 matrices of 1024 x 1024 distances, with both coordinates: 1.6 GB


@torch.no_grad()
def posed_shard(
    engine: SuperPointEngine,
    images: Tensor,
    depths: Tensor,
    matrices: Tensor,
    T_world_camera: Tensor,
    keypoints: int,
    thresholds: LabelThresholds = HOMOGRAPHY,
    min_matches: int = 16,
) -> Shard:
    """A shard of S sets of V views with exact depth: all pairs of a set that share enough.

    ``images`` (S, V, H, W) uint8 grey, ``depths`` (S, V, H, W) metres, 0 or NaN = missing,
    ``matrices`` (S, V, 3, 3), ``T_world_camera`` (S, V, 4, 4), all on the engine's device. Every
    view gets exactly ``keypoints``, filled up with random ones of score 0. Raises
    :class:`DataError` where the shapes disagree.
    """
    if depths.shape != images.shape or matrices.shape[:2] != images.shape[:2]:
        raise DataError(
            f"images {tuple(images.shape)}, depths {tuple(depths.shape)} and matrices "
            f"{tuple(matrices.shape)} must be of the same sets, views and size"
        )
    depths, matrices = depths.flatten(0, 1), matrices.flatten(0, 1)
    poses = T_world_camera.flatten(0, 1).double()
    inverse = poses.inverse()

    def label(points: Tensor, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        T_j_i, T_i_j = inverse[j] @ poses[i], inverse[i] @ poses[j]
        there = project_depths(points[i], depths, i, j, matrices, T_j_i)
        back = project_depths(points[j], depths, j, i, matrices, T_i_j)
        return label_pairs(points[i], points[j], there, back, thresholds)

    return _shard(engine, images, keypoints, label, min_matches)


@torch.no_grad()
def homography_shard(
    engine: SuperPointEngine,
    images: Tensor,
    from_first: Tensor,
    keypoints: int,
    min_matches: int = 16,
) -> Shard:
    """A shard of S sets of V views of a plane; ``from_first`` (S, V, 3, 3) maps view 0's pixels.

    ``images`` (S, V, H, W) uint8 grey; else as :func:`posed_shard`.
    """
    if from_first.shape[:2] != images.shape[:2]:
        raise DataError(
            f"images {tuple(images.shape)} and from_first {tuple(from_first.shape)} must be of the "
            f"same sets and views"
        )
    maps = from_first.flatten(0, 1).double()
    inverse = maps.inverse()
    height, width = images.shape[2:]

    def label(points: Tensor, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        there = project_homographies(points[i], maps[j] @ inverse[i], width, height)
        back = project_homographies(points[j], maps[i] @ inverse[j], width, height)
        return label_pairs(points[i], points[j], there, back, HOMOGRAPHY)

    return _shard(engine, images, keypoints, label, min_matches)


@torch.no_grad()
def describe_images(
    engine: SuperPointEngine, images: Tensor, keypoints: int, border: int = 4
) -> tuple[Tensor, Tensor, Tensor]:
    """Exactly K ``keypoints`` of images (B, H, W) uint8, by falling score, without waiting.

    Returns positions (B, K, 2) px, scores (B, K) and unit descriptors (B, K, D), float32; where an
    image has fewer, random keypoints of score 0 fill the set (paper, section 4).
    """
    found = [_describe(engine, part, keypoints, border) for part in images.split(_IMAGES_AT_ONCE)]
    positions, scores, descriptors = zip(*found, strict=True)
    return torch.cat(positions), torch.cat(scores), torch.cat(descriptors)


def _describe(
    engine: SuperPointEngine, images: Tensor, count: int, border: int
) -> tuple[Tensor, Tensor, Tensor]:
    probability, maps = engine.maps(images.unsqueeze(1).float().div(255))
    heat = non_maximum_suppression(probability, NMS_RADIUS)
    inner = heat[:, border : heat.shape[1] - border, border : heat.shape[2] - border]
    width, height = inner.shape[2], inner.shape[1]
    scores, index = inner.flatten(1).topk(count, dim=1)
    detected = scores > SCORE_THRESHOLD
    index = torch.where(detected, index, torch.randint_like(index, width * height))
    x, y = index % width, torch.div(index, width, rounding_mode="floor")
    positions = torch.stack([x, y], dim=2).float() + border
    descriptors = sample_descriptors(positions, maps, engine.config.exact_sampling)
    return positions, torch.where(detected, scores, 0.0), descriptors


def _shard(
    engine: SuperPointEngine, images: Tensor, keypoints: int, label: Labels, min_matches: int
) -> Shard:
    sets, views, height, width = images.shape
    positions, scores, descriptors = describe_images(engine, images.flatten(0, 1), keypoints)
    i, j = torch.triu_indices(views, views, offset=1, device=images.device)
    base = views * torch.arange(sets, device=images.device)[:, None]
    first, second = (base + i).flatten(), (base + j).flatten()
    found = [
        label(positions, a, b)
        for a, b in zip(first.split(_PAIRS_AT_ONCE), second.split(_PAIRS_AT_ONCE), strict=True)
    ]
    matches0, matches1 = (torch.cat([one[side] for one in found]) for side in (0, 1))
    kept = (matches0 >= 0).sum(dim=1) >= min_matches
    size = torch.tensor([float(width), float(height)])
    return Shard(
        keypoints=positions.cpu(),
        scores=scores.float().cpu(),
        descriptors=descriptors.half().cpu(),
        counts=torch.full((sets * views,), keypoints, dtype=torch.int32),
        sizes=size.expand(sets * views, 2).contiguous(),
        pairs=torch.stack([first, second], dim=1)[kept].int().cpu(),
        matches0=matches0[kept].short().cpu(),
        matches1=matches1[kept].short().cpu(),
    )
