"""Losses on the log assignment (paper, eq. 10), and precision and recall of a batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from superglue_ros.settings import setting


@dataclass(frozen=True)
class LossConfig:
    """The loss of a pair; a batch's is the mean over its pairs.

    The defaults are the paper's equation 10. ``confidence`` and ``regularisation`` are the two
    terms that the technical report adds: L = L_match + confidence L_conf + regularisation ||p||^2.
    ``iterations`` and ``uncertainty`` count only where the network has those heads.
    """

    form: str = setting(
        "sum",
        "sum: equation 10, the sum over matches and unmatched keypoints of a pair; mean: that sum "
        "divided by the number of its terms, so that pairs of many keypoints weigh no more than "
        "others; balanced: the mean over matches plus the mean over unmatched keypoints, halved.",
        choices=("sum", "mean", "balanced"),
    )
    confidence: float = setting(
        0.0, "Weight of the report's confidence term: -max P log max P, summed over the rows.",
        low=0.0,
    )  # fmt: skip
    regularisation: float = setting(
        0.0, "Weight of the report's squared norm of the trained parameters.", low=0.0
    )
    iterations: float = setting(
        1.0, "Cost of all Sinkhorn iterations, of which the network learns the number.", low=0.0
    )
    uncertainty: float = setting(
        1.0, "Weight of the cross-entropy of the scores that the network's doubt changes.", low=0.0
    )


def pair_losses(
    config: LossConfig,
    log_assignment: Tensor,
    matches0: Tensor,
    matches1: Tensor,
    valid0: Tensor | None = None,
) -> Tensor:
    """Matching and confidence terms, one value per pair (P,).

    ``valid0`` (P, M): which rows are keypoints, None where all are; else as :func:`matching_loss`.
    """
    losses = matching_loss(log_assignment, matches0, matches1, config.form)
    if config.confidence:
        valid = torch.ones_like(matches0, dtype=torch.bool) if valid0 is None else valid0
        losses = losses + config.confidence * confidence_loss(log_assignment, valid)
    return losses


def regularised(config: LossConfig, loss: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
    """``loss`` (a scalar) plus the weighted squared norm of all ``parameters`` together."""
    if not config.regularisation:
        return loss
    squares = torch.stack([p.square().sum() for p in parameters])
    return loss + config.regularisation * squares.sum()


def matching_loss(
    log_assignment: Tensor, matches0: Tensor, matches1: Tensor, form: str = "sum"
) -> Tensor:
    """Negative log likelihood of the labels (eq. 10), one value per pair (P,).

    ``log_assignment`` (P, M+1, N+1); ``matches0`` (P, M) and ``matches1`` (P, N) int64: partner,
    -1 unmatched, -2 ignored (also for padding). ``form``: see :class:`LossConfig`.
    """
    matched = matches0 >= 0
    alone0, alone1 = matches0 == -1, matches1 == -1
    partner = log_assignment[:, :-1].gather(2, matches0.clamp(min=0).unsqueeze(2)).squeeze(2)
    positive = -_masked_sum(partner, matched)
    negative = -_masked_sum(log_assignment[:, :-1, -1], alone0)
    negative = negative - _masked_sum(log_assignment[:, -1, :-1], alone1)
    if form == "sum":
        return positive + negative
    positives = matched.sum(1).clamp(min=1)
    negatives = (alone0.sum(1) + alone1.sum(1)).clamp(min=1)
    if form == "mean":
        return (positive + negative) / (matched.sum(1) + alone0.sum(1) + alone1.sum(1)).clamp(min=1)
    return (positive / positives + negative / negatives) / 2


def confidence_loss(log_assignment: Tensor, valid0: Tensor) -> Tensor:
    """The report's confidence term, -sum_i max_j P_ij log max_j P_ij per pair (P,).

    The sum runs over the keypoints of image 0; a row's largest entry may be its dustbin, as the
    report's P includes the dustbins. ``valid0`` (P, M): which rows are keypoints.
    """
    best = log_assignment[:, :-1].amax(dim=2).masked_fill(~valid0, 0.0)
    return -_masked_sum(best.exp() * best, valid0)


@torch.no_grad()
def match_quality(
    log_assignment: Tensor, matches0: Tensor, threshold: float = 0.2
) -> tuple[Tensor, Tensor]:
    """Precision and recall (P,) of the mutual best entries above ``threshold``, against labels.

    Matches of ignored keypoints count neither way. A pair without matches has precision 0, one
    without labelled matches recall 1.
    """
    inner = log_assignment[:, :-1, :-1]
    best, partner = inner.max(dim=2)
    back = inner.argmax(dim=1)
    rows = torch.arange(inner.shape[1], device=inner.device)
    chosen = (back.gather(1, partner) == rows) & (best.exp() > threshold)
    right = (chosen & (partner == matches0)).sum(1)
    predicted = (chosen & (matches0 != -2)).sum(1)
    labelled = (matches0 >= 0).sum(1)
    precision = right / predicted.clamp(min=1)
    recall = torch.where(labelled > 0, right / labelled.clamp(min=1), torch.ones_like(precision))
    return precision, recall


def _masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum over dimension 1 where ``mask``; other entries may be infinite."""
    return values.masked_fill(~mask, 0.0).sum(1)
