"""SuperPoint from pairs of views with exact geometry, without labels: what both views agree on.

Detector: the probabilities of both views, brought together by the geometry, elect the keypoints:
the maxima of their geometric mean, placed at the mean of both views' sub-pixel positions and then
labelled in both, at exactly corresponding places. A label is spread bilinearly over the four pixels
around it, so the centre of mass (:func:`refine_keypoints`) decodes it. Points whose descriptors
find each other are labelled higher: the score learns what can be matched. A reprojection loss pulls
the decoded positions of matched detections together.

Descriptors: cross-entropy of the true partner among all points of the other view that are
detected or elected, in both directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from superglue_ros.networks.superpoint import (
    CELL,
    keypoint_probability,
    non_maximum_suppression,
    sample_descriptors,
)
from superglue_ros.settings import setting
from superglue_ros.training.data.pair_geometry import PairGeometry

_NMS_RADIUS = 4
_BORDER = 5
_RADIUS = 2  # of the window whose centre of mass is the sub-pixel position
_NEAR_PX = 5.0  # descriptors of points nearer than this need not differ
_SAME_PX = 2.5  # detections nearer than this under the geometry are of the same point
_TARGETS = ((1 / 6, 0.97), (0.4, 0.85), (2 / 3, 0.6), (1.0, 0.35))  # share of the ranks, target


@dataclass(frozen=True)
class ConsensusConfig:
    """Settings of the loss."""

    points: int = setting(1500, "Points elected per pair.", low=8)
    described: int = setting(512, "Of them, points whose descriptors are trained.", low=8)
    detections: int = setting(1024, "Detections per view that descriptors tell apart.", low=8)
    temperature: float = setting(0.05, "Of the descriptors' cross-entropy.", low=1e-3)
    detector_weight: float = setting(2.0, "Weight of the detector's loss.", low=0.0)
    reprojection_weight: float = setting(0.15, "Weight of the reprojection loss.", low=0.0)
    doubt: float = setting(
        0.5, "Factor of a label's target where a view does not detect the point, or descriptors do "
        "not find it.", low=0.0, high=1.0,
    )  # fmt: skip


def consensus_loss(
    logits: Tensor,
    descriptors: Tensor,
    geometry: PairGeometry,
    config: ConsensusConfig,
    exact: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of B pairs, and numbers worth reporting (tensors, not read yet).

    ``logits`` (2, B, 65, h, w), ``descriptors`` (2, B, D, h, w) of unit length, float32.
    """
    pairs = logits.shape[1]
    with torch.no_grad():
        probability = keypoint_probability(logits.detach().flatten(0, 1)).unflatten(0, (2, pairs))
        elected = _elect(probability, descriptors.detach(), geometry, config, exact)
    detection = torch.stack([_detector_loss(logits[s], elected, s) for s in (0, 1)]).mean()
    description, hits = _descriptor_loss(descriptors, elected, config, exact)
    reprojection, moved = _reprojection_loss(logits, elected, geometry)
    loss = (
        config.detector_weight * detection + description + config.reprojection_weight * reprojection
    )
    numbers = {
        "detector": detection.detach(), "descriptor": description.detach(),
        "reprojection": moved, "hits": hits,
        "repeated": elected.repeated, "elected": elected.there.float().sum(1).mean(),
    }  # fmt: skip
    return loss, numbers


@dataclass(frozen=True, eq=False)
class _Elected:
    """K points of B pairs by falling rank: ``places`` (2, B, K, 2) [px], ``there`` (B, K);
    ``target`` (B, K); ``mutual`` (2, B, H, W): which pixels the other view sees;
    ``detections`` (2, B, N, 2) whole pixels, and whether they are any, ``detected`` (2, B, N);
    ``repeated``: share of the points that both views detect.
    """

    places: Tensor
    there: Tensor
    target: Tensor
    mutual: Tensor
    detections: Tensor
    detected: Tensor
    repeated: Tensor


def _grid(height: int, width: int, device: torch.device) -> Tensor:
    x = torch.arange(width, device=device, dtype=torch.float32)
    y = torch.arange(height, device=device, dtype=torch.float32)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)


def _at(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of (B, H, W) at pixels (B, N, 2), zero outside."""
    height, width = maps.shape[1:]
    scale = points.new_tensor([2.0 / width, 2.0 / height])
    grid = (points + 0.5) * scale - 1
    return F.grid_sample(maps[:, None], grid[:, None], align_corners=False)[:, 0, 0]


def centre_of_mass(probability: Tensor, pixels: Tensor) -> Tensor:
    """Sub-pixel positions (B, N, 2) of whole ``pixels``, differentiable in ``probability``."""
    width = probability.shape[2]
    offsets = torch.arange(-_RADIUS, _RADIUS + 1, device=pixels.device)
    dy, dx = torch.meshgrid(offsets, offsets, indexing="ij")
    dx, dy = dx.flatten(), dy.flatten()
    height = probability.shape[1]
    x = pixels[..., 0].long().clamp(_RADIUS, width - 1 - _RADIUS)
    y = pixels[..., 1].long().clamp(_RADIUS, height - 1 - _RADIUS)
    index = (y[..., None] + dy) * width + x[..., None] + dx
    mass = probability.flatten(1).gather(1, index.flatten(1)).unflatten(1, index.shape[1:])
    mass = mass + 1e-6
    total = mass.sum(dim=-1)
    shift = torch.stack([(mass * dx).sum(-1) / total, (mass * dy).sum(-1) / total], dim=-1)
    return pixels + shift


def detect(probability: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best pixels (B, N, 2), their values (B, N) and whether they are maxima."""
    heat = non_maximum_suppression(probability, _NMS_RADIUS)
    inner = torch.zeros_like(heat)
    inner[:, _BORDER:-_BORDER, _BORDER:-_BORDER] = heat[:, _BORDER:-_BORDER, _BORDER:-_BORDER]
    value, index = inner.flatten(1).topk(count)
    width = heat.shape[2]
    pixels = torch.stack([index % width, index // width], dim=2).float()
    return pixels, value, value > 5e-4


def _elect(
    probability: Tensor,
    descriptors: Tensor,
    geometry: PairGeometry,
    config: ConsensusConfig,
    exact: bool,
) -> _Elected:
    height, width = probability.shape[2:]
    pairs = probability.shape[1]
    grid = _grid(height, width, probability.device).expand(pairs, -1, -1)
    there, seen_by_second = geometry.warp(grid, 0)
    _, seen_by_first = geometry.warp(grid, 1)
    mutual = torch.stack([seen_by_second, seen_by_first]).unflatten(2, (height, width))
    # A detection may lie a pixel aside in the other view: take the maximum around.
    around = F.max_pool2d(probability[1], 3, 1, 1)
    other = torch.where(seen_by_second, _at(around, there), 0.0).unflatten(1, (height, width))
    joint = (probability[0] * other).sqrt()
    pixels, value, maximum = detect(joint, config.points)
    first = centre_of_mass(joint, pixels)
    there, visible = geometry.warp(first, 0)
    # The second view's own opinion: its maximum near the place, brought back.
    detections, detected = [], []
    for side in (0, 1):
        found, _, is_one = detect(probability[side], config.detections)
        detections.append(found)
        detected.append(is_one)
    exact_positions = [centre_of_mass(probability[s], detections[s]) for s in (0, 1)]
    opinions, weights = [first], [torch.ones_like(first[..., :1])]
    near0, has0 = _nearest(first, exact_positions[0], detected[0])
    near1, has1 = _nearest(there, exact_positions[1], detected[1])
    back, valid = geometry.warp(near1, 1)
    has1 = has1 & valid
    opinions += [near0, back]
    weights += [3.0 * has0[..., None], 3.0 * has1[..., None]]
    total = torch.stack(weights).sum(0)
    mean = torch.stack([o * w for o, w in zip(opinions, weights, strict=True)]).sum(0) / total
    second, seen_there = geometry.warp(mean, 0)
    places = torch.stack([mean, second])
    inside = _inside(places, width, height)
    there_all = maximum & visible & seen_there & inside[0] & inside[1]
    # Which of them the descriptors find.
    d0, d1 = (sample_descriptors(places[s], descriptors[s], exact) for s in (0, 1))
    similarity = d0 @ d1.mT
    distance = torch.cdist(places[1], places[1])
    wrong = similarity.masked_fill((distance < _NEAR_PX) | ~there_all[:, None, :], -1.0)
    own = similarity.diagonal(dim1=1, dim2=2)
    distance0 = torch.cdist(places[0], places[0])
    wrong_back = similarity.mT.masked_fill((distance0 < _NEAR_PX) | ~there_all[:, None, :], -1.0)
    hit = (own > wrong.amax(2)) & (own > wrong_back.amax(2))
    rank_value = torch.where(hit, value, value * config.doubt) * there_all
    order = rank_value.argsort(dim=1, descending=True)
    take = order[..., None].expand(-1, -1, 2)
    places = torch.stack([places[s].gather(1, take) for s in (0, 1)])
    there_all = there_all.gather(1, order)
    # Weak points rise step by step, and only those that both views detect and descriptors find.
    doubt = config.doubt ** (2.0 - hit.float() - (has0 & has1).float())
    belief = (doubt * (2.5 * value.sqrt()).clamp(max=1.0)).gather(1, order)
    both = (has0 & has1).gather(1, order)
    rank = torch.arange(config.points, device=order.device)
    target = torch.zeros(config.points, device=order.device)
    low = 0.0
    for limit, chance in _TARGETS:
        target[(rank >= low * config.points) & (rank < limit * config.points)] = chance
        low = limit
    repeated = (both & there_all).sum() / there_all.sum().clamp(min=1)
    return _Elected(
        places=places,
        there=there_all,
        target=target * belief * there_all,
        mutual=mutual,
        detections=torch.stack(detections),
        detected=torch.stack(detected),
        repeated=repeated,
    )


def _nearest(points: Tensor, candidates: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The candidate nearest to each point, and whether it is near enough to be the same."""
    distance = torch.cdist(points, candidates).masked_fill(~valid[:, None, :], torch.inf)
    best, index = distance.min(dim=2)
    return candidates.gather(1, index[..., None].expand(-1, -1, 2)), best < _SAME_PX


def _inside(places: Tensor, width: int, height: int) -> Tensor:
    limit = places.new_tensor([width - 1.0 - _BORDER, height - 1.0 - _BORDER])
    return ((places >= _BORDER) & (places <= limit)).all(dim=-1)


def _detector_loss(logits: Tensor, elected: _Elected, side: int) -> Tensor:
    """Cross-entropy with the spread labels over the cells that the other view sees."""
    pairs, _, h, w = logits.shape
    height, width = h * CELL, w * CELL
    places, target = elected.places[side], elected.target
    corner = places.floor()
    fraction = places - corner
    label = torch.zeros(pairs, height * width, device=logits.device)
    for ox in (0, 1):
        for oy in (0, 1):
            weight = (fraction[..., 0] if ox else 1 - fraction[..., 0]) * (
                fraction[..., 1] if oy else 1 - fraction[..., 1]
            )
            x = (corner[..., 0].long() + ox).clamp(0, width - 1)
            y = (corner[..., 1].long() + oy).clamp(0, height - 1)
            label.scatter_add_(1, y * width + x, weight * target)
    cells = F.pixel_unshuffle(label.view(pairs, 1, height, width), CELL)
    total = cells.sum(dim=1, keepdim=True)
    cells = cells / total.clamp(min=0.97) * 0.97
    cells = torch.cat([cells, 1 - cells.sum(dim=1, keepdim=True)], dim=1)
    mask = F.avg_pool2d(elected.mutual[side].float()[:, None], CELL)[:, 0] > 0.7
    edge = torch.zeros_like(mask)
    edge[:, 1:-1, 1:-1] = True
    mask = mask & edge
    entropy = -(cells * logits.log_softmax(dim=1)).sum(dim=1)
    return (entropy * mask).sum() / mask.sum().clamp(min=1)


def _descriptor_loss(
    descriptors: Tensor,
    elected: _Elected,
    config: ConsensusConfig,
    exact: bool,
) -> tuple[Tensor, Tensor]:
    pairs, points = elected.there.shape
    # Random ones of the elected, the better ones more often.
    key = torch.rand(pairs, points, device=descriptors.device) * torch.linspace(
        1.0, 0.3, points, device=descriptors.device
    )
    chosen = key.masked_fill(~elected.there, -1.0).topk(config.described, dim=1).indices
    valid = elected.there.gather(1, chosen)
    take = chosen[..., None].expand(-1, -1, 2)
    terms, hits = [], []
    places = [elected.places[s].gather(1, take) for s in (0, 1)]
    # Detections are not where exact geometry says: half a pixel of noise.
    noisy = [p + 0.5 * torch.randn_like(p) for p in places]
    mine = [sample_descriptors(noisy[s], descriptors[s], exact) for s in (0, 1)]
    for side in (0, 1):
        other = 1 - side
        others = sample_descriptors(elected.detections[other], descriptors[other], exact)
        positive = (mine[side] * mine[other]).sum(-1, keepdim=True)
        among = mine[side] @ mine[other].mT
        near = torch.cdist(places[other], places[other]) < _NEAR_PX
        among = among.masked_fill(near | ~valid[:, None, :], -1e4)
        rest = mine[side] @ others.mT
        near = torch.cdist(places[other], elected.detections[other]) < _NEAR_PX
        rest = rest.masked_fill(near | ~elected.detected[other][:, None, :], -1e4)
        all_ = torch.cat([positive, among, rest], dim=2) / config.temperature
        nll = all_.logsumexp(dim=2) - all_[..., 0]
        count = valid.sum().clamp(min=1)
        terms.append((nll * valid).sum() / count)
        hits.append(((all_[..., 1:].amax(2) < all_[..., 0]) & valid).sum() / count)
    return torch.stack(terms).mean(), torch.stack(hits).mean()


def _reprojection_loss(
    logits: Tensor, elected: _Elected, geometry: PairGeometry
) -> tuple[Tensor, Tensor]:
    """Mean distance [px] between decoded positions of detections of the same point."""
    probability = [keypoint_probability(logits[s]) for s in (0, 1)]
    decoded = [centre_of_mass(probability[s], elected.detections[s]) for s in (0, 1)]
    there, visible = geometry.warp(decoded[0], 0)
    with torch.no_grad():
        distance = torch.cdist(there, decoded[1])
        distance = distance.masked_fill(~elected.detected[1][:, None, :], torch.inf)
        best, index = distance.min(dim=2)
        back = distance.argmin(dim=1)
        mutual = back.gather(1, index) == torch.arange(index.shape[1], device=index.device)
        same = mutual & (best < _SAME_PX) & visible & elected.detected[0]
    gap = (there - decoded[1].gather(1, index[..., None].expand(-1, -1, 2))).square().sum(-1)
    gap = (gap + 1e-4).sqrt() * same
    count = same.sum().clamp(min=1)
    return gap.sum() / count, gap.sum().detach() / count
