"""Random networks of the public implementation in ``transformers``, and their original layout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

transformers = pytest.importorskip("transformers")


def randomise(network: torch.nn.Module, seed: int) -> None:
    """Weights that keep activations near unit variance, and batch norm that does something."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0, fan_in**-0.5, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
        elif isinstance(module, torch.nn.BatchNorm1d):
            module.weight.data.uniform_(0.7, 1.4, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)


def random_superpoint(seed: int = 0, **sizes: Any) -> Any:
    """A ``transformers`` SuperPoint with a detector that has opinions."""
    network = transformers.SuperPointForKeypointDetection(transformers.SuperPointConfig(**sizes))
    randomise(network, seed)
    network.keypoint_decoder.conv_score_b.weight.data *= 5
    return network.eval()


def random_superglue(seed: int = 0, layers: int = 9, **sizes: Any) -> Any:
    """A ``transformers`` SuperGlue that matches equal descriptors."""
    config = transformers.SuperGlueConfig(gnn_layers_types=["self", "cross"] * layers, **sizes)
    network = transformers.SuperGlueForKeypointMatching(config)
    randomise(network, seed)
    width = network.config.hidden_size
    # Small residual updates, as in a trained network: rounding does not grow from layer to layer.
    for mlp in [network.keypoint_encoder.encoder, *(layer.mlp for layer in network.gnn.layers)]:
        mlp[-1].weight.data *= 0.1
        mlp[-1].bias.data *= 0.1
    projection = network.final_projection.final_proj
    gain = 3.5 * width**0.25  # scores up to gain^2 / sqrt(width), about 12
    projection.weight.data = gain * torch.eye(width) + 0.3 * projection.weight.data
    network.bin_score.data.fill_(2.3)
    return network.eval()


def random_features(count0: int, count1: int, dim: int, seed: int = 0) -> dict[str, Tensor]:
    """Keypoints, scores and descriptors of two 640x480 images; half of the smaller set recurs."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([640.0, 480.0])
    features = {}
    for i, count in enumerate((count0, count1)):
        features[f"keypoints{i}"] = torch.rand(1, count, 2, generator=generator) * size
        features[f"scores{i}"] = torch.rand(1, count, generator=generator)
        descriptors = torch.randn(1, count, dim, generator=generator)
        features[f"descriptors{i}"] = torch.nn.functional.normalize(descriptors, dim=2)
    shared = min(count0, count1) // 2
    order = torch.randperm(count0, generator=generator)[:shared]
    features["keypoints1"][:, :shared] = features["keypoints0"][:, order]
    features["descriptors1"][:, :shared] = features["descriptors0"][:, order]
    return features


_POINT_NAMES = {
    "keypoint_decoder.conv_score_a": "convPa",
    "keypoint_decoder.conv_score_b": "convPb",
    "descriptor_decoder.conv_descriptor_a": "convDa",
    "descriptor_decoder.conv_descriptor_b": "convDb",
} | {f"encoder.conv_blocks.{i}.conv_{j}": f"conv{i + 1}{j}" for i in range(4) for j in "ab"}


def original_superpoint_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameters of a ``transformers`` SuperPoint under the names of the original release."""
    renamed = {}
    for key, value in state.items():
        layer, part = key.rsplit(".", 1)
        renamed[f"{_POINT_NAMES[layer]}.{part}"] = value
    return renamed


def original_superglue_state(network: Any) -> dict[str, Tensor]:
    """Parameters of a ``transformers`` SuperGlue as the original release arranges them.

    Convolutions of width one; heads interleaved: channel c of head h is row ``c H + h``.
    """
    heads, width = network.config.num_attention_heads, network.config.hidden_size
    c, h = torch.meshgrid(torch.arange(width // heads), torch.arange(heads), indexing="ij")
    interleaved = (h * (width // heads) + c).flatten()
    out: dict[str, Tensor] = {"bin_score": network.bin_score.data}

    def put(name: str, weight: Tensor, bias: Tensor) -> None:
        out[f"{name}.weight"], out[f"{name}.bias"] = weight.unsqueeze(-1), bias

    def put_mlp(name: str, layers: Any) -> None:
        for i, layer in enumerate(layers):
            if isinstance(layer, torch.nn.Linear):
                put(f"{name}.{3 * i}", layer.weight.data, layer.bias.data)
                continue
            put(f"{name}.{3 * i}", layer.linear.weight.data, layer.linear.bias.data)
            for part, value in layer.batch_norm.state_dict().items():
                out[f"{name}.{3 * i + 1}.{part}"] = value

    put_mlp("kenc.encoder", network.keypoint_encoder.encoder)
    for i, layer in enumerate(network.gnn.layers):
        attention = layer.attention
        for j, name in enumerate(("query", "key", "value")):
            linear = getattr(attention.self, name)
            put(
                f"gnn.layers.{i}.attn.proj.{j}",
                linear.weight[interleaved],
                linear.bias[interleaved],
            )
        merge = attention.output.dense
        put(f"gnn.layers.{i}.attn.merge", merge.weight[:, interleaved], merge.bias.data)
        put_mlp(f"gnn.layers.{i}.mlp", layer.mlp)
    final = network.final_projection.final_proj
    put("final_proj", final.weight.data, final.bias.data)
    return {key: value.detach().clone() for key, value in out.items()}


def reference_assignment(network: Any, features: dict[str, Tensor], masks: Any = None) -> Tensor:
    """Log assignment (P, M+1, N+1) that ``transformers`` makes of equally long sets."""
    from transformers.models.superglue import modeling_superglue as module

    captured = []
    original = module.log_optimal_transport

    def capture(*args: Any, **kwargs: Any) -> Tensor:
        captured.append(original(*args, **kwargs))
        return captured[-1]

    pair = {
        name: torch.stack([features[f"{name}0"], features[f"{name}1"]], dim=1)
        for name in ("keypoints", "descriptors", "scores")
    }
    mask = None if masks is None else torch.stack(masks, dim=1).int()
    module.log_optimal_transport = capture
    try:
        with torch.inference_mode():
            network._match_image_pair(**pair, height=480, width=640, mask=mask)
    finally:
        module.log_optimal_transport = original
    return captured[0]
