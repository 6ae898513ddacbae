"""Cached features and labels: SuperPoint runs once per view, not in SuperGlue's training.

A cache is a folder of independent shards, ``*.safetensors``: a run may start on the first ones
while more are being made. A cache names the detector it was made with; features of different
detectors cannot be mixed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.errors import DataError
from superglue_ros.geometry.ground_truth import PAPER, LabelRule
from superglue_ros.networks.superpoint import (
    detect_keypoints,
    sample_descriptors,
)
from superglue_ros.training.checkpoint import write_atomically
from superglue_ros.training.data.views import ViewSet, label_views

NMS_RADIUS = 4  # the paper's
_FORMAT = "superglue_ros_features_1"
SCORE_THRESHOLD = 5e-4  # low: the number of keypoints is the limit, as in the paper


@dataclass(frozen=True, eq=False)
class ViewFeatures:
    """Features of one view: ``keypoints`` (N, 2) px, ``scores`` (N,), ``descriptors`` (N, D)."""

    keypoints: Tensor
    scores: Tensor
    descriptors: Tensor


@dataclass(frozen=True, eq=False)
class Shard:
    """V views and P pairs of them, padded to N keypoints.

    ``keypoints`` (V, N, 2) float32 px, ``scores`` (V, N) float32, ``descriptors`` (V, N, D)
    float16, ``counts`` (V,), ``sizes`` (V, 2) width and height, ``pairs`` (P, 2) views,
    ``matches0``, ``matches1`` (P, N) int16 labels, -2 in the padding.
    """

    keypoints: Tensor
    scores: Tensor
    descriptors: Tensor
    counts: Tensor
    sizes: Tensor
    pairs: Tensor
    matches0: Tensor
    matches1: Tensor


@torch.inference_mode()
def extract(
    engine: SuperPointEngine,
    images: Sequence[NDArray[np.uint8]],
    max_keypoints: int,
    rng: np.random.Generator | None = None,
    border: int = 4,
    nms_radius: int = NMS_RADIUS,
) -> list[ViewFeatures]:
    """Features of grey images of one size. With ``rng``, random keypoints fill up every set.

    The paper adds random keypoints for efficient batches and robustness (section 4); they have
    score 0 and the descriptor at their position.
    """
    batch = torch.from_numpy(np.stack(images)).unsqueeze(1).float().div(255)
    probability, descriptors = engine.maps(batch)
    detected = detect_keypoints(probability, max_keypoints, SCORE_THRESHOLD, nms_radius, border)
    features = []
    for i, (keypoints, scores) in enumerate(detected):
        missing = max_keypoints - len(keypoints)
        if rng is not None and missing > 0:
            limits = np.array([batch.shape[3], batch.shape[2]]) - border
            extra = torch.from_numpy(rng.integers(border, limits, (missing, 2))).to(keypoints)
            keypoints = torch.cat([keypoints, extra])
            scores = torch.cat([scores, scores.new_zeros(missing)])
        sampled = sample_descriptors(
            keypoints[None], descriptors[i : i + 1], engine.config.exact_sampling
        )
        features.append(ViewFeatures(keypoints, scores, sampled[0]))
    return features


def make_shard(
    engine: SuperPointEngine,
    view_sets: Sequence[ViewSet],
    max_keypoints: int,
    rng: np.random.Generator | None,
    rule: LabelRule = PAPER,
    min_matches: int = 10,
) -> Shard:
    """Features and labels of all pairs of ``view_sets``; pairs with fewer matches are dropped."""
    views: list[ViewFeatures] = []
    sizes, pairs, labels = [], [], []
    for view_set in view_sets:
        first = len(views)
        views += extract(engine, view_set.images, max_keypoints, rng)
        sizes += [image.shape[::-1] for image in view_set.images]
        points = [view.keypoints.double().cpu().numpy() for view in views[first:]]
        for j in range(len(points)):
            for i in range(j):
                found = label_views(view_set, i, j, (points[i], points[j]), rule)
                if (found.matches0 >= 0).sum() >= min_matches:
                    pairs.append((first + i, first + j))
                    labels.append(found)
    dim = engine.config.descriptor_dim
    count = len(views)
    shard = Shard(
        keypoints=torch.zeros(count, max_keypoints, 2),
        scores=torch.zeros(count, max_keypoints),
        descriptors=torch.zeros(count, max_keypoints, dim, dtype=torch.float16),
        counts=torch.tensor([len(view.scores) for view in views], dtype=torch.int32),
        sizes=torch.tensor(sizes, dtype=torch.float32).reshape(-1, 2),
        pairs=torch.tensor(pairs, dtype=torch.int32).reshape(-1, 2),
        matches0=torch.full((len(pairs), max_keypoints), -2, dtype=torch.int16),
        matches1=torch.full((len(pairs), max_keypoints), -2, dtype=torch.int16),
    )
    for v, view in enumerate(views):
        n = len(view.scores)
        shard.keypoints[v, :n] = view.keypoints
        shard.scores[v, :n] = view.scores
        shard.descriptors[v, :n] = view.descriptors.half()
    for p, found in enumerate(labels):
        shard.matches0[p, : len(found.matches0)] = torch.from_numpy(found.matches0).short()
        shard.matches1[p, : len(found.matches1)] = torch.from_numpy(found.matches1).short()
    return shard


def write_shard(shard: Shard, path: Path, detector: str, config: str) -> None:
    """Save a shard atomically. ``detector`` is the descriptor kind, ``config`` the recipe."""
    metadata = {"format": _FORMAT, "detector": detector, "config": config}
    tensors = {key: value.contiguous() for key, value in vars(shard).items()}
    write_atomically(path, save(tensors, metadata))


def read_cache(folder: str | Path, limit: int | None = None) -> tuple[list[Shard], str]:
    """All shards of a cache, or the first ``limit``, and the kind of their descriptors.

    Raises :class:`DataError` where there are none, or where they are of different detectors.
    """
    files = sorted(Path(folder).glob("*.safetensors"))[:limit]
    if not files:
        raise DataError(f"{folder} has no cached features: make them with 'train cache'")
    shards, kinds = [], set()
    for path in files:
        try:
            with safetensors.safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise DataError(f"{path} is no shard of cached features: make it again")
                shards.append(Shard(**{key: file.get_tensor(key) for key in file.keys()}))  # noqa: SIM118
                kinds.add(metadata["detector"])
        except (safetensors.SafetensorError, OSError, TypeError, KeyError) as error:
            raise DataError(f"{path} cannot be read ({error}): make the cache again") from error
    if len(kinds) > 1:
        raise DataError(
            f"{folder} mixes features of {', '.join(sorted(kinds))}: make one cache per detector"
        )
    return shards, kinds.pop()


def cached_config(folder: str | Path) -> str:
    """The recipe a cache was made with (JSON), empty where there is no cache yet."""
    for path in sorted(Path(folder).glob("*.safetensors")):
        with safetensors.safe_open(str(path), framework="pt") as file:
            return str(json.loads((file.metadata() or {}).get("config", '""')))
    return ""
