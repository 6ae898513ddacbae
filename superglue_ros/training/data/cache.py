"""Cached features and labels: a front-end runs once per view, not in SuperGlue's training.

A cache is a folder of independent shards, ``*.safetensors``: a run may start on the first ones
while more are being made. A cache names the detector it was made with; features of different
detectors cannot be mixed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from superglue_ros.errors import DataError
from superglue_ros.geometry.ground_truth import PAPER, LabelRule
from superglue_ros.training.checkpoint import write_atomically
from superglue_ros.training.data.view_features import Extract, ViewFeatures
from superglue_ros.training.data.views import ViewSet, label_views

_FORMAT = "superglue_ros_features_1"


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


def make_shard(
    extract: Extract,
    view_sets: Sequence[ViewSet],
    max_keypoints: int,
    rule: LabelRule = PAPER,
    min_matches: int = 10,
) -> Shard:
    """Features and labels of all pairs of ``view_sets``; pairs with fewer matches are dropped.

    ``extract`` gives at most ``max_keypoints`` a view.
    """
    views: list[ViewFeatures] = []
    sizes, pairs, labels = [], [], []
    for view_set in view_sets:
        first = len(views)
        views += extract(view_set.images)
        sizes += [image.shape[::-1] for image in view_set.images]
        points = [view.keypoints.double().cpu().numpy() for view in views[first:]]
        for j in range(len(points)):
            for i in range(j):
                found = label_views(view_set, i, j, (points[i], points[j]), rule)
                if (found.matches0 >= 0).sum() >= min_matches:
                    pairs.append((first + i, first + j))
                    labels.append(found)
    dim = views[0].descriptors.shape[1]
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


def cached_source(folder: str | Path) -> str:
    """The kind of view sets that a cache was made of (``source`` of its recipe); empty: unknown."""
    try:
        recipe = json.loads(cached_config(folder))
    except ValueError:
        return ""
    return str(recipe.get("source", "")) if isinstance(recipe, dict) else ""
