import math

import pytest
import torch

from superglue_ros.training.objectives.loss import confidence_loss, match_quality, matching_loss

P = torch.tensor(
    [
        [
            [0.7, 0.1, 0.2],
            [0.1, 0.3, 0.6],
            [0.2, 0.6, 1.2],
        ]
    ]
)
LOG_P = P.log()
MATCHES0, MATCHES1 = torch.tensor([[0, -1]]), torch.tensor([[0, -1]])


def test_equation_10_by_hand():
    expected = -math.log(0.7) - math.log(0.6) - math.log(0.6)
    assert matching_loss(LOG_P, MATCHES0, MATCHES1).item() == pytest.approx(expected)


def test_mean_and_balanced_forms_by_hand():
    positive, negative = -math.log(0.7), -2 * math.log(0.6)
    mean = matching_loss(LOG_P, MATCHES0, MATCHES1, "mean")
    balanced = matching_loss(LOG_P, MATCHES0, MATCHES1, "balanced")
    assert mean.item() == pytest.approx((positive + negative) / 3)
    assert balanced.item() == pytest.approx((positive + negative / 2) / 2)


def test_ignored_keypoints_do_not_count():
    ignored = torch.tensor([[0, -2]])
    expected = -math.log(0.7) - math.log(0.6)
    assert matching_loss(LOG_P, ignored, MATCHES1).item() == pytest.approx(expected)


def test_infinite_padding_gives_finite_loss_and_gradient():
    assignment = LOG_P.clone()
    assignment[:, 1] = -torch.inf
    assignment.requires_grad_(True)
    loss = matching_loss(assignment, torch.tensor([[0, -2]]), torch.tensor([[0, -2]]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(-math.log(0.7))
    assert torch.isfinite(assignment.grad).all()


def test_a_pair_without_labels_costs_nothing():
    none = torch.tensor([[-2, -2]])
    for form in ("sum", "mean", "balanced"):
        assert matching_loss(LOG_P, none, none, form).item() == 0


def test_confidence_is_the_entropy_of_the_row_maxima():
    expected = -0.7 * math.log(0.7) - 0.6 * math.log(0.6)
    valid = torch.ones(1, 2, dtype=torch.bool)
    assert confidence_loss(LOG_P, valid).item() == pytest.approx(expected)


def test_precision_and_recall_of_mutual_maxima():
    precision, recall = match_quality(LOG_P, MATCHES0, threshold=0.2)
    assert precision.item() == pytest.approx(0.5)  # (0, 0) is right, (1, 1) has no partner
    assert recall.item() == 1
    precision, _ = match_quality(LOG_P, MATCHES0, threshold=0.5)
    assert precision.item() == 1
    precision, _ = match_quality(LOG_P, torch.tensor([[0, -2]]), threshold=0.2)
    assert precision.item() == 1
