"""Inputs of the benchmark: the full SuperGlue, and features of neighbouring frames of the room."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from superglue_ros.config import Config, FrontEndConfig, MatcherConfig
from superglue_ros.data.image import to_grey
from superglue_ros.frontends.base import make_front_end
from superglue_ros.networks.superglue import SuperGlue, SuperGlueConfig
from superglue_ros.synthetic.demo_room import RoomSequence
from superglue_ros.types import Features

CPU = torch.device("cpu")
FLOAT32 = Config(precision="float32", matcher=MatcherConfig(verification=False))
"""As the implementations that this package is compared with, on every processor."""


def full_superglue(width: int = 256) -> SuperGlue:
    """The paper's architecture, 9 times self and cross, with weights that give clear matches.

    Time depends on the architecture, not on the weights; the comparison of results needs distinct
    scores, so messages are small and the final projection is near a scaled identity.
    """
    generator = torch.Generator().manual_seed(0)
    network = SuperGlue(SuperGlueConfig(descriptor_dim=width, width=width)).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0, module.in_features**-0.5, generator=generator)
                module.bias.normal_(0, 0.1, generator=generator)
        layers: Any = network.gnn
        mlps: list[Any] = [network.encoder, *(layer.mlp for layer in layers)]
        for mlp in mlps:
            mlp[-1].weight *= 0.1
            mlp[-1].bias *= 0.1
        network.final.weight.mul_(0.3).add_(4.0 * width**0.25 * torch.eye(width))
        network.dustbin.fill_(8.0)
    return network.requires_grad_(False)


def room_images(count: int = 2, step: int = 1) -> list[NDArray[np.uint8]]:
    """Grey frames (480, 640) of the built-in sequence."""
    room = RoomSequence()
    return [to_grey(room[i * step].image) for i in range(count)]


def room_features(
    images: list[NDArray[np.uint8]], count: int, device: torch.device = CPU
) -> list[Features]:
    """Exactly ``count`` SuperPoint features of every image, with the package's weights."""
    options = FrontEndConfig(max_keypoints=count, threshold=0.0, nms_radius=2)
    front_end = make_front_end(replace(FLOAT32, front_end=options), device)
    features = [front_end.extract(image) for image in images]
    assert all(len(found) == count for found in features), "the image has too few maxima"
    return features
