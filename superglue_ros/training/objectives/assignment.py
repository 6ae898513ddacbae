"""From the features of pairs to the assignment, differentiably, and the losses of its heads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from superglue_ros.networks.sinkhorn import training_sinkhorn
from superglue_ros.networks.superglue import SuperGlue
from superglue_ros.training.objectives.loss import LossConfig
from superglue_ros.training.precision import autocast


@dataclass(frozen=True, eq=False)
class Side:
    """One image of P pairs, as :meth:`SuperGlue.encode` takes it; ``mask`` None = no padding."""

    keypoints: Tensor
    scores: Tensor
    descriptors: Tensor
    size: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Assigned:
    """The log assignment (P, M+1, N+1), and what the heads of the network say.

    ``iterations`` (P,): the learned number, in parts of the largest; ``doubt`` (P, M, N): log odds
    that a match is wrong. None where the network has no such head.
    """

    log_assignment: Tensor
    iterations: Tensor | None = None
    doubt: Tensor | None = None


def assign(
    network: SuperGlue, first: Side, second: Side, iterations: int, dtype: torch.dtype
) -> Assigned:
    """Assign the keypoints of P pairs with at most ``iterations`` of Sinkhorn's.

    ``dtype`` is that of the layers; scores and optimal transport are float32. Clusters and the
    pruning of attention are for inference, and not used here.
    """
    m, n = first.scores.shape[1], second.scores.shape[1]
    mask0, mask1 = first.mask, second.mask
    if mask0 is not None or mask1 is not None or m != n:
        mask0, mask1 = _full(mask0, first.scores), _full(mask1, second.scores)
    with autocast(first.scores.device, dtype):
        x0, x1 = (
            network.encode(side.keypoints, side.scores, side.descriptors, side.size, side.mask)
            for side in (first, second)
        )
        xy0, xy1 = (network.positions(side.keypoints, side.size) for side in (first, second))
        f0, f1 = network.propagate(x0, x1, mask0, mask1, xy0, xy1).float().chunk(2)
    # The score matrix needs float32: bfloat16 has a resolution of 0.1 at scores of 20.
    f0, f1 = f0[:, :m], f1[:, :n]
    scores = f0 @ f1.transpose(1, 2) / network.temperature
    count: int | Tensor = iterations
    part: Tensor | None = None
    doubt: Tensor | None = None
    root = network.temperature**0.5
    if network.stop is not None:
        predicted: Tensor = network.stop(f0 / root, f1 / root, first.mask, second.mask, iterations)
        count, part = predicted, predicted / network.stop.maximum
    if network.doubt is not None:
        # The head learns beside the matcher, which it does not change.
        doubt = network.doubt((f0 / root).detach(), (f1 / root).detach())
    found = training_sinkhorn(scores, network.dustbin, count, first.mask, second.mask)
    return Assigned(found, part, doubt)


def head_losses(config: LossConfig, assigned: Assigned, matches0: Tensor) -> Tensor | None:
    """The weighted losses (P,) of the network's heads; None where it has none.

    Of the number of iterations, in parts of the largest: without a cost there is no reason to stop.
    Of the doubt: the cross-entropy of whether the most probable partner of each keypoint is wrong,
    over those whose label (``matches0`` (P, M)) is known.
    """
    terms = []
    if assigned.iterations is not None:
        terms.append(config.iterations * assigned.iterations)
    if assigned.doubt is not None:
        terms.append(config.uncertainty * doubt_loss(assigned, matches0))
    return torch.stack(terms).sum(dim=0) if terms else None


def doubt_loss(assigned: Assigned, matches0: Tensor) -> Tensor:
    """Mean cross-entropy (P,) of the doubt about the matches that the assignment makes."""
    assert assigned.doubt is not None
    inner = assigned.log_assignment[:, :-1, :-1].detach()
    best, partner = inner.max(dim=2)
    rows = torch.arange(inner.shape[1], device=inner.device)
    made = (inner.argmax(dim=1).gather(1, partner) == rows) & (best > -torch.inf)
    counted = made & (matches0 != -2)
    log_odds = assigned.doubt.gather(2, partner.unsqueeze(2)).squeeze(2)
    wrong = (partner != matches0).to(log_odds.dtype)
    losses = F.binary_cross_entropy_with_logits(log_odds, wrong, reduction="none")
    return (losses * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


def _full(mask: Tensor | None, like: Tensor) -> Tensor:
    return torch.ones_like(like, dtype=torch.bool) if mask is None else mask
