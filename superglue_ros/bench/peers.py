"""Public implementations to compare with: SuperPoint and SuperGlue of ``transformers``, LightGlue.

``transformers`` gets the same weights (``test/parity`` shows that its results are then equal);
LightGlue is another network, timed with random weights and without its early exits.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from superglue_ros.config import MatcherConfig
from superglue_ros.frontends.lightglue_package import lightglue_package
from superglue_ros.networks.superglue import SuperGlue
from superglue_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superglue_ros.types import Features

CPU = torch.device("cpu")


def available(*packages: str) -> bool:
    """Whether one of these optional packages is installed."""
    return any(find_spec(package) is not None for package in packages)


class TransformersSuperGlue:
    """A pair through ``transformers``' SuperGlue holding the weights of ``network``."""

    def __init__(self, network: SuperGlue, device: torch.device = CPU) -> None:
        import transformers

        config = network.config
        self._device = device
        self._network = transformers.SuperGlueForKeypointMatching(
            transformers.SuperGlueConfig(
                hidden_size=config.width,
                keypoint_encoder_sizes=list(config.keypoint_encoder),
                gnn_layers_types=["self", "cross"] * config.layers,
                num_attention_heads=config.heads,
                matching_threshold=MatcherConfig().threshold,
            )
        ).eval()
        self._network.keypoint_detector = nn.Identity()
        self._network.load_state_dict(_superglue_state(network), strict=True)
        self._network.to(device)

    @torch.inference_mode()
    def match(self, reference: Features, query: Features) -> tuple[Tensor, Tensor]:
        """Indices into the query (M,), -1 = none, and scores (M,), for equally large sets."""
        matches, scores, _, _ = self._network._match_image_pair(
            _pair(reference.keypoints, query.keypoints).to(self._device),
            _pair(reference.descriptors, query.descriptors).to(self._device),
            _pair(reference.scores, query.scores).to(self._device),
            height=query.height,
            width=query.width,
            mask=torch.ones(1, 2, len(query), dtype=torch.int, device=self._device),
        )
        return matches[0, 0].cpu(), scores[0, 0].cpu()


class TransformersSuperPoint:
    """``transformers``' SuperPoint holding the weights of ``network``, one without batch norm."""

    def __init__(self, network: SuperPoint, max_keypoints: int, device: torch.device = CPU) -> None:
        import transformers

        self._device = device
        self._network = transformers.SuperPointForKeypointDetection(
            transformers.SuperPointConfig(max_keypoints=max_keypoints)
        ).eval()
        self._network.load_state_dict(_superpoint_state(network), strict=True)
        self._network.to(device)

    @torch.inference_mode()
    def extract(self, image: Tensor) -> Any:
        """Keypoints, scores and descriptors of an image (1, 1, H, W) in [0, 1]."""
        found = self._network(image.to(self._device).expand(-1, 3, -1, -1))
        found.descriptors.cpu()  # as this package's features
        return found


class LightGluePeer:
    """A pair through LightGlue (9 layers, 256 wide) on 256-wide descriptors."""

    def __init__(self, device: torch.device = CPU) -> None:
        package = lightglue_package()
        self._device = device
        torch.manual_seed(0)
        self._network = package.LightGlue(
            features=None, weights=None, input_dim=256, depth_confidence=-1, width_confidence=-1
        )
        self._network = self._network.eval().to(device)

    @torch.inference_mode()
    def match(self, reference: Features, query: Features) -> Any:
        """LightGlue's output."""

        def image(features: Features) -> dict[str, Tensor]:
            given = {
                "keypoints": torch.from_numpy(features.keypoints)[None],
                "descriptors": torch.from_numpy(np.asarray(features.descriptors))[None],
                "image_size": torch.tensor([[features.width, features.height]]),
            }
            return {name: value.to(self._device) for name, value in given.items()}

        return self._network({"image0": image(reference), "image1": image(query)})


def plain_superpoint() -> SuperPoint:
    """A SuperPoint of the original's architecture with random weights, as its peer needs."""
    torch.manual_seed(0)
    network = SuperPoint(SuperPointConfig(batch_norm=False, exact_sampling=False)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    return network.requires_grad_(False)


def _pair(a: Any, b: Any) -> Tensor:
    return torch.from_numpy(np.stack([a, b])[None])


def _superglue_state(network: SuperGlue) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {"bin_score": network.dustbin.data}

    def mlp(name: str, layers: Any) -> None:
        for i in range(0, len(layers), 2):
            last = i + 1 == len(layers)
            for key, value in layers[i].state_dict().items():
                state[f"{name}.{i // 2}.{key}" if last else f"{name}.{i // 2}.linear.{key}"] = value
            for key, value in ({} if last else layers[i + 1].state_dict()).items():
                state[f"{name}.{i // 2}.batch_norm.{key}"] = value

    mlp("keypoint_encoder.encoder", network.encoder)
    for i, layer in enumerate(network.gnn):
        module: Any = layer
        for part in ("weight", "bias"):
            attention = f"gnn.layers.{i}.attention"
            thirds = getattr(module.qkv, part).data.chunk(3)
            for name, value in zip(("query", "key", "value"), thirds, strict=True):
                state[f"{attention}.self.{name}.{part}"] = value
            state[f"{attention}.output.dense.{part}"] = getattr(module.merge, part).data
        mlp(f"gnn.layers.{i}.mlp", module.mlp)
    for part in ("weight", "bias"):
        state[f"final_projection.final_proj.{part}"] = getattr(network.final, part).data
    return state


def _superpoint_state(network: SuperPoint) -> dict[str, Tensor]:
    theirs = [f"encoder.conv_blocks.{i}.conv_{j}" for i in range(4) for j in "ab"]
    theirs += [f"keypoint_decoder.conv_score_{j}" for j in "ab"]
    theirs += [f"descriptor_decoder.conv_descriptor_{j}" for j in "ab"]
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    return {
        f"{name}.{part}": value
        for name, convolution in zip(theirs, convolutions, strict=True)
        for part, value in convolution.state_dict().items()
    }
