"""From the features of pairs to the assignment, differentiably, and the losses of its heads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from superglue_ros.networks.sinkhorn import training_sinkhorn
from superglue_ros.networks.superglue import SuperGlue
from superglue_ros.training.objectives.loss import LossConfig
from superglue_ros.training.precision import autocast

_MOST = 1 - 1e-6  # of a score, so that the logarithm of its complement is finite


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

    ``iterations`` (P,): the learned number, in parts of the largest; ``log_scores`` (P, M, N):
    logarithm of the probability that a match is right. None where the network has no such head.
    """

    log_assignment: Tensor
    iterations: Tensor | None = None
    log_scores: Tensor | None = None


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
    log_scores: Tensor | None = None
    root = network.temperature**0.5
    if network.stop is not None:
        predicted: Tensor = network.stop(f0 / root, f1 / root, first.mask, second.mask, iterations)
        count, part = predicted, predicted / network.stop.maximum
    found = training_sinkhorn(scores, network.dustbin, count, first.mask, second.mask)
    if network.doubt is not None:
        # The head learns beside the matcher, which it does not change.
        doubt = network.doubt((f0 / root).detach(), (f1 / root).detach())
        log_scores = network.doubt.log_score(found[:, :-1, :-1].detach(), doubt)
    return Assigned(found, part, log_scores)


def head_losses(config: LossConfig, assigned: Assigned, matches0: Tensor) -> Tensor | None:
    """The weighted losses (P,) of the network's heads; None where it has none.

    Of the number of iterations, in parts of the largest: without a cost there is no reason to stop.
    Of the doubt: the cross-entropy of the scores of the matches, over those whose label
    (``matches0`` (P, M)) is known.
    """
    terms = []
    if assigned.iterations is not None:
        terms.append(config.iterations * assigned.iterations)
    if assigned.log_scores is not None:
        terms.append(config.uncertainty * doubt_loss(assigned, matches0))
    return torch.stack(terms).sum(dim=0) if terms else None


def doubt_loss(assigned: Assigned, matches0: Tensor) -> Tensor:
    """Mean cross-entropy (P,) of the scores of the matches that the assignment makes.

    It makes a score the probability that its match is right; P itself has no gradient here.
    """
    assert assigned.log_scores is not None
    inner = assigned.log_assignment[:, :-1, :-1].detach()
    best, partner = inner.max(dim=2)
    rows = torch.arange(inner.shape[1], device=inner.device)
    made = (inner.argmax(dim=1).gather(1, partner) == rows) & (best > -torch.inf)
    counted = made & (matches0 != -2)
    log_score = assigned.log_scores.gather(2, partner.unsqueeze(2)).squeeze(2)
    log_score = log_score.masked_fill(~counted, -1.0)
    right = -log_score
    wrong = -torch.log1p(-log_score.exp().clamp(max=_MOST))
    losses = torch.where(partner == matches0, right, wrong)
    return (losses * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


def _full(mask: Tensor | None, like: Tensor) -> Tensor:
    return torch.ones_like(like, dtype=torch.bool) if mask is None else mask
