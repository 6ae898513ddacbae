"""Depth of all images of a model: many stereo pairs an image, of which only what agrees is kept.

After MegaDepth (Li and Snavely, CVPR 2018): what learns from depth needs it to be right more than
it needs all of it. Each image is matched with several neighbours (:mod:`stereo`). A pixel's depth
is the median of its neighbours' depths where at least two of these agree, and is kept if the depth
that another image has at the same place says so too. All that counts is relative: a model has no
unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from superglue_ros.evaluation.progress import track
from superglue_ros.geometry.depth_overlap import project_depth, sample_depth
from superglue_ros.reconstruction.placed import PlacedImage, PlacedImages, neighbours
from superglue_ros.reconstruction.stereo import Depth, RectifiedPair, depth_by_second

_NEIGHBOURS = 6
_AGREEING = 2
_TOLERANCE = 0.015  # relative difference of depths that agree
_THREADS = 8


@dataclass(frozen=True, eq=False)
class DepthMaps:
    """``depths`` (H, W) of every image along its optical axis, 0 = unknown, in the model's unit.

    ``neighbours``: by which images each was made. ``share``: pixels with depth of all.
    ``carried_px``: the median distance of the model's observations from where depth and pose carry
    the same points' observations of a neighbour to; NaN without any.
    """

    depths: Sequence[Depth]
    neighbours: Sequence[Iterable[int]]
    share: float
    carried_px: float


def make_depth(placed: PlacedImages) -> DepthMaps:
    """Depth of all images; raises :class:`DataError` where an image's file is missing."""
    chosen = neighbours(placed.images, _NEIGHBOURS)

    def fused(place: int) -> Depth:
        return _fused(placed, place, chosen[place])

    with ThreadPoolExecutor(min(torch.get_num_threads(), _THREADS)) as pool:
        alone = list(track(pool.map(fused, range(len(placed))), len(placed), "depth"))
    images = placed.images
    depths = [_confirmed(place, chosen[place], images, alone) for place in range(len(placed))]
    pixels = sum(depth.size for depth in depths)
    return DepthMaps(
        depths=depths,
        neighbours=chosen,
        share=sum(int((depth > 0).sum()) for depth in depths) / pixels,
        carried_px=_carried_px(images, depths, chosen),
    )


def agreeing(depths: NDArray[np.float32], tolerance: float, least: int) -> Depth:
    """One depth (H, W) of several (M, H, W), 0 = unknown: their median.

    Unknown unless at least ``least`` are within ``tolerance`` of it, relative.
    """
    known = depths > 0
    ordered = np.sort(np.where(known, depths, np.inf), axis=0)
    count = known.sum(axis=0)
    middle = np.stack([np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(depths) - 1)])
    median = np.take_along_axis(ordered, middle, axis=0).mean(axis=0)
    with np.errstate(invalid="ignore"):
        near = known & (np.abs(depths - median) <= tolerance * median)
    return np.where(near.sum(axis=0) >= least, median, 0).astype(np.float32)


def _fused(placed: PlacedImages, place: int, others: Mapping[int, RectifiedPair]) -> Depth:
    """The depth that an image's neighbours agree on."""
    grey = placed.grey(place)
    if len(others) < _AGREEING:
        return np.zeros(grey.shape, np.float32)
    found = [depth_by_second(pair, grey, placed.grey(other)) for other, pair in others.items()]
    return agreeing(np.stack(found), _TOLERANCE, _AGREEING)


def _confirmed(
    place: int, others: Iterable[int], images: Sequence[PlacedImage], depths: Sequence[Depth]
) -> Depth:
    """An image's depth where a neighbour's own is the same."""
    depth = depths[place]
    v, u = np.nonzero(depth)
    view = images[place].view
    rays = np.c_[view.camera.rays(np.c_[u, v]), np.ones(len(u))]
    points = rays * depth[v, u, None].astype(np.float64)
    world = (points - view.T_camera_world[:3, 3]) @ view.T_camera_world[:3, :3]
    same = np.zeros(len(u), bool)
    for other in others:
        there = images[other].view
        seen = there.seen(world)
        stored = sample_depth(depths[other], np.nan_to_num(there.camera.project(seen), nan=-1e6))
        same |= np.abs(stored - seen[:, 2]) <= _TOLERANCE * seen[:, 2]
    kept = np.zeros_like(depth)
    kept[v[same], u[same]] = depth[v[same], u[same]]
    return kept


def _carried_px(
    images: Sequence[PlacedImage], depths: Sequence[Depth], chosen: Sequence[Iterable[int]]
) -> float:
    """See :class:`DepthMaps`."""
    distances = [np.zeros(0)]
    for place, others in enumerate(chosen):
        first = images[place]
        for other in others:
            second = images[other]
            _, i, j = np.intersect1d(
                first.point_ids, second.point_ids, assume_unique=True, return_indices=True
            )
            carried = project_depth(
                first.pixels[i],
                depths[place],
                depths[other],
                first.view.camera.matrix,
                second.view.camera.matrix,
                second.view.T_camera_world @ np.linalg.inv(first.view.T_camera_world),
            )
            seen = ~carried.hidden & ~carried.unknown
            distances.append(np.linalg.norm(carried.points - second.pixels[j], axis=1)[seen])
    every = np.concatenate(distances)
    return float(np.median(every)) if len(every) else float("nan")
