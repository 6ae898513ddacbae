"""Small images, caches and corpora, made from noise of many scales."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from superglue_ros.geometry.ground_truth import HOMOGRAPHY, label_matches, project_homography
from superglue_ros.training.data.cache import Shard, write_shard
from superglue_ros.training.data.corpus import Source, collect


def textured(seed: int, width: int, height: int) -> np.ndarray:
    """A grey image with structure at every scale."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width), np.float32)
    for cells in (4, 9, 20, 45, 100):
        coarse = rng.normal(size=(cells, cells)).astype(np.float32)
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    low, high = np.percentile(image, [1, 99])
    return np.clip((image - low) / (high - low) * 255, 0, 255).astype(np.uint8)


def synthetic_shard(
    seed: int, pairs: int = 6, points: int = 24, dim: int = 16, varied: bool = False
) -> Shard:
    """Pairs of views of random points under a shift, with descriptors that nearly tell them."""
    rng = np.random.default_rng(seed)
    views = 2 * pairs
    keypoints = torch.zeros(views, points, 2)
    scores = torch.zeros(views, points)
    descriptors = torch.zeros(views, points, dim, dtype=torch.float16)
    counts = torch.zeros(views, dtype=torch.int32)
    matches = [torch.full((pairs, points), -2, dtype=torch.int16) for _ in range(2)]
    for p in range(pairs):
        n = int(rng.integers(points // 2, points + 1)) if varied else points
        first = rng.uniform(5, 90, (n, 2))
        order = rng.permutation(n)
        second = first[order] + [4.0, -2.0]
        lost = rng.random(n) < 0.25
        second[lost] = rng.uniform(5, 90, (int(lost.sum()), 2))
        shift = np.array([[1, 0, 4.0], [0, 1, -2.0], [0, 0, 1]])
        labels = label_matches(
            first,
            second,
            project_homography(first, shift, 100, 100),
            project_homography(second, np.linalg.inv(shift), 100, 100),
            HOMOGRAPHY,
        )
        words = rng.normal(size=(n, dim))
        for side, (xy, d) in enumerate(((first, words), (second, words[order]))):
            v = 2 * p + side
            noisy = d + 0.4 * rng.normal(size=d.shape)
            keypoints[v, :n] = torch.from_numpy(xy)
            scores[v, :n] = torch.from_numpy(np.sort(rng.random(n))[::-1].copy())
            unit = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
            descriptors[v, :n] = torch.from_numpy(unit)
            counts[v] = n
            found = (labels.matches0, labels.matches1)[side]
            matches[side][p, :n] = torch.from_numpy(found).short()
    return Shard(
        keypoints=keypoints,
        scores=scores,
        descriptors=descriptors,
        counts=counts,
        sizes=torch.full((views, 2), 100.0),
        pairs=torch.arange(views, dtype=torch.int32).reshape(-1, 2),
        matches0=matches[0],
        matches1=matches[1],
    )


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    for i in range(2):
        path = folder / f"shard_{i:05d}.safetensors"
        write_shard(synthetic_shard(i), path, "test-kind", '"recipe"')
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs, all of which train, whatever their hash."""
    folder = tmp_path_factory.mktemp("photographs")
    for seed in range(3):
        cv2.imwrite(str(folder / f"{seed}.png"), textured(seed, 640, 520))
    collect([Source("ours", folder, "CC0", "training-photographs")], folder / "corpus")
    return folder / "corpus"
