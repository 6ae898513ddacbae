"""SuperPoint's objective: detect labelled points in every view, with distinctive descriptors.

Detector: cross-entropy over the 64 pixels of a cell and "no keypoint" (SuperPoint paper, eq. 1-3),
with a soft target: the higher the teacher ranks a point, the closer its target is to 1, so the
scores learn the teacher's ranking, by which the best keypoints are selected. With ``edge_ratio``,
points along edges, which are not repeatable, get lower targets. Descriptors:
cross-entropy of the true partner among all points of the batch, in both directions (InfoNCE),
instead of the paper's hinge loss over all pairs of cells; the points are labelled, or detected by
the network.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.errors import ConfigError
from superglue_ros.geometry.ground_truth import HOMOGRAPHY, label_matches, project_homography
from superglue_ros.networks.superpoint import (
    CELL,
    SuperPoint,
    SuperPointConfig,
    keypoint_probability,
    non_maximum_suppression,
    sample_descriptors,
)
from superglue_ros.networks.weights import load_superpoint
from superglue_ros.synthetic.homographies import HomographyRecipe, sample_pair
from superglue_ros.synthetic.photometric import PhotometricRecipe, distort
from superglue_ros.training.data.cornerness import cornerness
from superglue_ros.training.data.corpus import read_grey, read_manifest
from superglue_ros.training.data.detector_labels import read_labels
from superglue_ros.training.data.loading import to_device
from superglue_ros.training.data.view_features import (
    NMS_RADIUS,
    SCORE_THRESHOLD,
    superpoint_features,
)
from superglue_ros.training.data.views import homography_views
from superglue_ros.training.distributed import training_device
from superglue_ros.training.objectives.single_stage import SingleStage
from superglue_ros.training.precision import autocast, channels_last, resolve_dtype
from superglue_ros.training.recipes import SuperPointRecipe

_NO_KEYPOINT = CELL * CELL
_EXCLUDED_PX = 4.0  # descriptors of points nearer than this need not differ
_TARGET_BY_RANK = ([0, 300, 700, 1200], [0.97, 0.8, 0.45, 0.15])  # rank with the teacher, target
_VALIDATION_PAIRS = 16
_VALIDATION_KEYPOINTS = 512


@dataclass(frozen=True, eq=False)
class _View:
    """One view and its targets.

    Per cell (h, w): ``cells``, the pixel of its point, and ``target``, the probability of one; and
    all ``points`` (N, 2).
    """

    image: NDArray[np.uint8]
    cells: NDArray[np.int64]
    target: NDArray[np.float32]
    points: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two views of a crop, and the homography (3, 3) from pixels of the first to the second."""

    views: tuple[_View, _View]
    second_from_first: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SuperPointBatch:
    """P pairs of views, the two views of a pair adjacent.

    ``images`` (2P, H, W) uint8; ``cells`` and ``target`` (2P, h, w), see :func:`detector_loss`;
    ``second_from_first`` (P, 3, 3); where labelled points are described, ``points0`` and
    ``points1`` (K, 2) pixels in the first and second view of pair ``owner`` (K,).
    """

    images: Tensor
    cells: Tensor
    target: Tensor
    second_from_first: Tensor
    points0: Tensor | None
    points1: Tensor | None
    owner: Tensor


class SuperPointObjective(SingleStage):
    """SuperPoint on pairs of views of labelled crops."""

    name = "superpoint"

    def __init__(self, recipe: SuperPointRecipe) -> None:
        if recipe.width % CELL or recipe.height % CELL:
            raise ConfigError(f"width and height must be multiples of {CELL}")
        self.recipe = recipe
        torch.manual_seed(recipe.loop.seed)
        self.device = training_device(recipe.loop.device)
        self.network = channels_last(start_network(recipe.start, recipe.network).to(self.device))
        blocks = list(self.network.backbone.children())
        count = recipe.frozen_blocks if recipe.train_descriptors else len(blocks)
        self.network.train()
        kept = blocks[:count] + ([] if recipe.train_descriptors else [self.network.descriptor])
        for module in kept:
            module.requires_grad_(False).eval()
        self._labels = read_labels(recipe.labels)
        self._homography = HomographyRecipe(
            **{**asdict(recipe.homography), "width": recipe.width, "height": recipe.height}
        )
        self._dtype = resolve_dtype(recipe.loop.precision, self.device)
        self._validation = _validation_pairs(recipe) if recipe.validation_corpus else []

    def write_weights(self, network: nn.Module, folder: Path) -> None:
        """Nothing: new descriptors have no name before ``train export`` gives them one."""

    def draw(self, step: int, rng: np.random.Generator) -> SuperPointBatch:
        """Pairs of views of random crops."""
        pairs = [self._pair(rng) for _ in range(self.recipe.pairs)]
        views = [view for pair in pairs for view in pair.views]
        by_label = self.recipe.train_descriptors and self.recipe.described == "labels"
        shared = [self._shared(pair, rng) for pair in pairs] if by_label else []
        points = [torch.cat([one[side] for one in shared]) for side in (0, 1)] if shared else None
        homographies = np.stack([pair.second_from_first for pair in pairs])
        return SuperPointBatch(
            images=torch.from_numpy(np.stack([view.image for view in views])),
            cells=torch.from_numpy(np.stack([view.cells for view in views])),
            target=torch.from_numpy(np.stack([view.target for view in views])),
            second_from_first=torch.from_numpy(homographies).float(),
            points0=points[0] if points else None,
            points1=points[1] if points else None,
            owner=torch.tensor([k for k, (first, _) in enumerate(shared) for _ in first]),
        )

    def loss(self, batch: SuperPointBatch) -> tuple[Tensor, dict[str, float]]:
        """Loss of one batch of pairs of views."""
        batch = to_device(batch, self.device)
        logits, descriptors = self._forward(batch.images)
        detection = detector_loss(logits, batch.cells, batch.target)
        shown = {"detector": float(detection.detach())}
        loss = self.recipe.detector_weight * detection
        if descriptors is not None:
            description, numbers = self._describe(logits.detach(), descriptors, batch)
            loss = loss + description
            shown |= numbers
        return loss, shown

    def validate(self, network: Any) -> dict[str, float]:
        """Precision and recall of mutual nearest neighbours on homographies of test photographs."""
        engine = SuperPointEngine(network, self.device, self._dtype)
        found = [_evaluate(engine, pair) for pair in self._validation]
        if not found:
            return {}
        precision, recall = np.mean(found, axis=0) * 100
        return {"validation P": float(precision), "validation R": float(recall)}

    def _forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits and, if trained, unit-length descriptors of grey images (B, H, W) uint8."""
        x = images.unsqueeze(1).float().div(255)
        x = x.contiguous(memory_format=torch.channels_last)
        with autocast(x.device, self._dtype):
            features = self.network.backbone(x)
            logits = self.network.detector(features)
            trained = self.recipe.train_descriptors
            descriptors = self.network.describe(x, features).float() if trained else None
        return logits.float(), descriptors

    def _describe(
        self, logits: Tensor, descriptors: Tensor, batch: SuperPointBatch
    ) -> tuple[Tensor, dict[str, float]]:
        exact, temperature = self.network.config.exact_sampling, self.recipe.temperature
        if batch.points0 is None or batch.points1 is None:
            points, valid = detect(logits, self.recipe.points)
            found = sample_descriptors(points, descriptors, exact)
            errors, true = match_detections(points, valid, batch.second_from_first)
            loss, hits = detection_loss(found[0::2], found[1::2], errors, true, temperature)
            repeated = 200 * float(true.sum() / valid.sum().clamp(min=1))
            return loss, {
                "descriptor": float(loss.detach()), "hits": hits, "repeated": repeated
            }  # fmt: skip
        first, second = (
            torch.cat(
                [
                    sample_descriptors(
                        seen[batch.owner == k][None],
                        descriptors[2 * k + side : 2 * k + side + 1],
                        exact,
                    )[0]
                    for k in range(len(batch.second_from_first))
                ]
            )
            for side, seen in enumerate((batch.points0, batch.points1))
        )
        loss, hits = descriptor_loss(
            first, second, batch.points0, batch.points1, batch.owner, temperature
        )
        return loss, {"descriptor": float(loss.detach()), "hits": hits}

    def _shared(self, pair: _Pair, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Random points visible in both views, away from their borders, with detection noise."""
        limits = np.array([self.recipe.width, self.recipe.height])
        inside = [((v.points > 3) & (v.points < limits - 4)).all(axis=1) for v in pair.views]
        both = np.flatnonzero(inside[0] & inside[1])
        chosen = rng.permutation(both)[: self.recipe.points]
        noisy = [
            np.rint(view.points[chosen] + rng.normal(0, self.recipe.jitter, (len(chosen), 2)))
            for view in pair.views
        ]
        first, second = (torch.from_numpy(np.clip(p, 0, limits - 1)).float() for p in noisy)
        return first, second

    def _pair(self, rng: np.random.Generator) -> _Pair:
        index = int(rng.integers(len(self._labels.crops)))
        crop = self._labels.crops[index].numpy()
        points = self._labels.points[index, : int(self._labels.counts[index])].double().numpy()
        views = homography_views(crop, rng, 2, self._homography, self.recipe.photometric)
        first, second = (
            _targets(
                image,
                from_first @ np.linalg.inv(views.source_from_first),
                points,
                self.recipe.edge_ratio,
            )
            for image, from_first in zip(views.images, views.from_first, strict=True)
        )
        return _Pair((first, second), views.from_first[1])


def detect(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` best keypoints of every view, as at inference.

    ``logits`` (B, 65, h, w). Returns pixels (B, count, 2) and, (B, count), whether there is one.
    """
    heat = non_maximum_suppression(keypoint_probability(logits), NMS_RADIUS)
    inner = torch.zeros_like(heat)
    border = slice(NMS_RADIUS, -NMS_RADIUS)
    inner[:, border, border] = heat[:, border, border]
    scores, index = inner.flatten(1).topk(count)
    width = heat.shape[2]
    return torch.stack([index % width, index // width], dim=2).float(), scores > SCORE_THRESHOLD


def match_detections(
    points: Tensor, valid: Tensor, second_from_first: Tensor
) -> tuple[Tensor, Tensor]:
    """Ground-truth correspondences of the detections of two views.

    ``points`` (2P, N, 2) and ``valid`` (2P, N), the views of a pair adjacent; ``second_from_first``
    (P, 3, 3). Returns reprojection errors (P, N, N) [px], infinite where there is no keypoint, and
    the true pairs (P, N, N): nearest of each other, and under 3 px.
    """
    first, second = points[0::2], points[1::2]
    there = torch.cat([first, torch.ones_like(first[..., :1])], dim=2) @ second_from_first.mT
    projected = there[..., :2] / there[..., 2:].clamp(min=1e-6)
    errors = torch.cdist(projected, second)
    both = valid[0::2].unsqueeze(2) & valid[1::2].unsqueeze(1)
    errors = errors.masked_fill(~both, torch.inf)
    nearest = (errors == errors.amin(2, keepdim=True)) & (errors == errors.amin(1, keepdim=True))
    return errors, nearest & (errors < HOMOGRAPHY.match)


def detection_loss(
    a: Tensor, b: Tensor, errors: Tensor, true: Tensor, temperature: float
) -> tuple[Tensor, float]:
    """Cross-entropy of the partner among the detections of all views, in both directions.

    ``a``, ``b`` (P, N, D) descriptors, ``errors`` and ``true`` of :func:`match_detections`. Trains
    the situation of nearest-neighbour matching: keypoints at detected positions, and candidates
    that include keypoints without partner. Detections near the partner need not differ from it.
    Also returns how often the partner is the nearest of its view, in per cent.
    """
    pair, i, j = true.nonzero(as_tuple=True)
    if len(pair) == 0:
        return (a.sum() + b.sum()) * 0, 0.0
    count = a.shape[1]
    terms, hits = [], []
    for anchors, others, error, row, column in (
        (a, b, errors, i, j),
        (b, a, errors.mT, j, i),
    ):
        similarity = anchors[pair, row] @ others.flatten(0, 1).T / temperature
        # The candidates of the same pair of views: all but the partner that lie near it.
        own = error[pair, row]
        near = (own < _EXCLUDED_PX) & (torch.arange(count, device=own.device) != column[:, None])
        views = similarity.unflatten(1, (-1, count))
        rows = torch.arange(len(pair), device=own.device)
        views[rows, pair] = views[rows, pair].masked_fill(near, -1e4)
        hits.append((views[rows, pair].argmax(dim=1) == column).float().mean())
        terms.append(F.cross_entropy(views.flatten(1), pair * count + column))
    return torch.stack(terms).mean(), 100 * float(torch.stack(hits).mean())


def detector_loss(logits: Tensor, cells: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with soft targets, a mean over the cells.

    ``logits`` (B, 65, h, w); ``cells`` (B, h, w) pixel of the point in its cell, any where there is
    none; ``target`` (B, h, w) probability of a keypoint, 0 where there is none.
    """
    log_probability = logits.log_softmax(dim=1)
    point = log_probability.gather(1, cells.unsqueeze(1)).squeeze(1)
    return -(target * point + (1 - target) * log_probability[:, _NO_KEYPOINT]).mean()


def descriptor_loss(
    a: Tensor, b: Tensor, points_a: Tensor, points_b: Tensor, owner: Tensor, temperature: float
) -> tuple[Tensor, float]:
    """Cross-entropy of the partner among all points of the batch, in both directions.

    ``a``, ``b`` (K, D) descriptors of K true pairs at ``points_a``, ``points_b`` (K, 2); ``owner``
    (K,) names the pair of views. Also returns how often the partner is the nearest of its view, in
    per cent.
    """
    if len(a) == 0:
        return a.sum() * 0, 0.0
    similarity = a @ b.T / temperature
    same = owner[:, None] == owner[None]
    other = ~torch.eye(len(a), dtype=torch.bool, device=a.device)
    near_a = same & other & (torch.cdist(points_a, points_a) < _EXCLUDED_PX)
    near_b = same & other & (torch.cdist(points_b, points_b) < _EXCLUDED_PX)
    partner = torch.arange(len(a), device=a.device)
    forward = F.cross_entropy(similarity.masked_fill(near_b, -1e4), partner)
    backward = F.cross_entropy(similarity.T.masked_fill(near_a, -1e4), partner)
    nearest = similarity.detach().masked_fill(~same, -1e4).argmax(dim=1)
    return (forward + backward) / 2, 100 * float((nearest == partner).float().mean())


def _targets(
    image: NDArray[np.uint8],
    view_from_crop: NDArray[np.float64],
    points: NDArray[np.float64],
    edge_ratio: float,
) -> _View:
    height, width = image.shape
    seen = project_homography(points[:, :2], view_from_crop, width, height).points
    pixels = np.rint(np.nan_to_num(seen, nan=-1)).astype(int)
    visible = (pixels >= 0).all(axis=1) & (pixels < [width, height]).all(axis=1)
    worst_first = np.flatnonzero(visible)[::-1]  # the best of a cell is written last
    x, y = pixels[worst_first].T
    cells = np.full((height // CELL, width // CELL), _NO_KEYPOINT, np.int64)
    target = np.zeros(cells.shape, np.float32)
    cells[y // CELL, x // CELL] = (y % CELL) * CELL + x % CELL
    value = np.interp(worst_first, *_TARGET_BY_RANK)
    if edge_ratio > 0:
        value = value * np.minimum(cornerness(image)[y, x] / edge_ratio, 1.0)
    target[y // CELL, x // CELL] = value
    return _View(image, cells, target, np.nan_to_num(seen, nan=-1e6))


def start_network(start: str, config: SuperPointConfig) -> SuperPoint:
    """The network that training starts from: ``random``, a weights file, empty the package's.

    Raises :class:`ConfigError` where the file is of another architecture; but it may get
    ``context``, which has no weights of its own.
    """
    if start == "random":
        return SuperPoint(config)
    network = load_superpoint(start).network
    if network.config not in (config, replace(config, context=0.0)):
        raise ConfigError(f"{start} is a {network.config}, the recipe says {config}")
    network.config = config
    return network.requires_grad_(True)


def _validation_pairs(recipe: SuperPointRecipe) -> list[Any]:
    images = read_manifest(recipe.validation_corpus, "test")
    images = images[:: max(1, len(images) // _VALIDATION_PAIRS)]  # the largest come first
    pairs = []
    for i in range(_VALIDATION_PAIRS):
        rng = np.random.default_rng([7, i])
        pair = sample_pair(read_grey(images[i % len(images)].path), rng, HomographyRecipe())
        changed = distort(pair.image1, rng, PhotometricRecipe())
        pairs.append((pair.image0, changed, np.asarray(pair.homography, np.float64)))
    return pairs


def _evaluate(engine: SuperPointEngine, pair: Any) -> tuple[float, float]:
    image0, image1, homography = pair
    one, two = superpoint_features(engine, [image0, image1], _VALIDATION_KEYPOINTS)
    height, width = image0.shape
    points = [view.keypoints.double().cpu().numpy() for view in (one, two)]
    truth = label_matches(
        points[0],
        points[1],
        project_homography(points[0], homography, width, height),
        project_homography(points[1], np.linalg.inv(homography), width, height),
        HOMOGRAPHY,
    )
    similarity = one.descriptors @ two.descriptors.T
    forward, back = similarity.argmax(dim=1).cpu(), similarity.argmax(dim=0).cpu()
    rows = np.flatnonzero((back[forward] == torch.arange(len(forward))).numpy())
    if len(rows) == 0:
        return 0.0, 0.0
    partner = forward.numpy()[rows]
    projected = project_homography(points[0][rows], homography, width, height).points
    right = np.linalg.norm(projected - points[1][partner], axis=1) < HOMOGRAPHY.match
    found = (truth.matches0[rows] == partner).sum()
    return float(right.mean()), float(found / max((truth.matches0 >= 0).sum(), 1))
