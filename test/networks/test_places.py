"""The aggregation of local descriptors: by hand, and padding that does not count."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from superglue_ros.networks.places import PlaceAggregation, PlacesConfig


def test_the_descriptor_by_hand():
    torch.manual_seed(0)
    network = PlaceAggregation(PlacesConfig(descriptor_dim=4, clusters=2, ghosts=1, width=3))
    x = F.normalize(torch.randn(1, 5, 4), dim=2)
    centred = x[0] - x[0].mean(0)
    weights = torch.softmax(
        F.normalize(centred, dim=1) @ network.assign.weight.T + network.assign.bias, 1
    )
    parts = []
    for k in range(2):  # the third cluster is a ghost
        residual = (weights[:, k, None] * (centred - network.anchors[k])).sum(0)
        parts.append(F.normalize(residual, dim=0) @ network.project[k])
    torch.testing.assert_close(network(x)[0], F.normalize(torch.cat(parts), dim=0))


def test_masked_descriptors_do_not_count():
    torch.manual_seed(0)
    network = PlaceAggregation(PlacesConfig(descriptor_dim=8, clusters=4, ghosts=1, width=2))
    x = F.normalize(torch.randn(2, 6, 8), dim=2)
    mask = torch.tensor([[True] * 4 + [False] * 2, [True] * 6])
    found = network(x, mask)
    torch.testing.assert_close(found[0], network(x[:1, :4])[0])
    torch.testing.assert_close(found[1], network(x[1:])[0])
