"""How other implementations name and arrange the parameters of SuperPoint and SuperGlue.

A layout is recognised by its keys. It defines the architecture of a file and, for every parameter
of our network, the keys it is made from. ``weights.py`` does the rest, strictly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from superglue_ros.errors import WeightsError
from superglue_ros.networks.superglue import SuperGlueConfig
from superglue_ros.networks.superpoint import SuperPointConfig

State = Mapping[str, Tensor]

ORIGINAL_HEADS = 4
"""Attention heads of every published SuperGlue; no tensor's shape shows them."""


@dataclass(frozen=True)
class Recipe:
    """One of our parameters: ``combine`` applied to the file's tensors ``keys``."""

    keys: tuple[str, ...]
    combine: Callable[..., Tensor]


Recipes = Mapping[str, Recipe]


def superpoint_layout(state: State) -> tuple[str, SuperPointConfig, dict[str, Recipe]] | None:
    """Descriptor kind, architecture and recipes of a SuperPoint, or None for unknown keys."""
    if "backbone.0.0.conv.weight" in state:
        return "superpoint-open", *_open_superpoint(state)
    if "conv1a.weight" in state:
        return "superpoint-original", *_plain_superpoint(state, _ORIGINAL_SUPERPOINT)
    for prefix in ("", "keypoint_detector."):
        if f"{prefix}encoder.conv_blocks.0.conv_a.weight" in state:
            names = {ours: prefix + theirs for ours, theirs in _TRANSFORMERS_SUPERPOINT.items()}
            return "superpoint-original", *_plain_superpoint(state, names)
    return None


def superglue_layout(state: State) -> tuple[str, SuperGlueConfig, dict[str, Recipe]] | None:
    """Descriptor kind, architecture and recipes of a SuperGlue, or None for unknown keys."""
    if "kenc.encoder.0.weight" in state:
        return "superpoint-original", *_original_superglue(state)
    if "keypoint_encoder.encoder.0.linear.weight" in state:
        return "superpoint-original", *_transformers_superglue(state)
    return None


def is_bundled_detector(key: str) -> bool:
    """Whether ``key`` belongs to the SuperPoint that ``transformers`` stores with a SuperGlue."""
    return key.startswith("keypoint_detector.")


_BLOCKS = [f"backbone.{i}.{j}" for i in range(4) for j in range(2)]
_HEADS = ["detector.0", "detector.1", "descriptor.0", "descriptor.1"]
_ORIGINAL_SUPERPOINT = dict(
    zip(
        _BLOCKS + _HEADS,
        [f"conv{i}{j}" for i in range(1, 5) for j in "ab"]
        + ["convPa", "convPb", "convDa", "convDb"],
        strict=True,
    )
)
_TRANSFORMERS_SUPERPOINT = dict(
    zip(
        _BLOCKS + _HEADS,
        [f"encoder.conv_blocks.{i}.conv_{j}" for i in range(4) for j in "ab"]
        + [f"keypoint_decoder.conv_score_{j}" for j in "ab"]
        + [f"descriptor_decoder.conv_descriptor_{j}" for j in "ab"],
        strict=True,
    )
)
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def _plain_superpoint(
    state: State, names: Mapping[str, str]
) -> tuple[SuperPointConfig, dict[str, Recipe]]:
    """Convolution and ReLU without batch norm; ``names`` from our blocks to the file's."""
    recipes = {
        f"{ours}.conv.{part}": _same(f"{theirs}.{part}")
        for ours, theirs in names.items()
        for part in ("weight", "bias")
    }
    config = _superpoint_config(state, names, batch_norm=False, exact_sampling=False)
    return config, recipes


def _open_superpoint(state: State) -> tuple[SuperPointConfig, dict[str, Recipe]]:
    """The open SuperPoint: our own names; equal input channels are summed to one."""
    recipes: dict[str, Recipe] = {}
    for name in _BLOCKS + _HEADS:
        for part in ("weight", "bias"):
            recipes[f"{name}.conv.{part}"] = _same(f"{name}.conv.{part}")
        for part in _BATCH_NORM:
            recipes[f"{name}.bn.{part}"] = _same(f"{name}.bn.{part}")
    recipes["backbone.0.0.conv.weight"] = Recipe(("backbone.0.0.conv.weight",), _grey_input)
    names = {name: f"{name}.conv" for name in _BLOCKS + _HEADS}
    return _superpoint_config(state, names, batch_norm=True, exact_sampling=True), recipes


def _superpoint_config(
    state: State, names: Mapping[str, str], batch_norm: bool, exact_sampling: bool
) -> SuperPointConfig:
    def outputs(block: str) -> int:
        return _dimension(state, f"{names[block]}.weight", 0)

    return SuperPointConfig(
        channels=(
            outputs("backbone.0.0"),
            outputs("backbone.1.0"),
            outputs("backbone.2.0"),
            outputs("backbone.3.0"),
        ),
        head_channels=outputs("detector.0"),
        descriptor_dim=outputs("descriptor.1"),
        batch_norm=batch_norm,
        exact_sampling=exact_sampling,
    )


def _original_superglue(state: State) -> tuple[SuperGlueConfig, dict[str, Recipe]]:
    """The original release: 1x1 convolutions; channel c of head h is stored at c H + h."""

    def sequence(prefix: str) -> _Names:  # convolution, batch norm, ReLU, convolution, ...
        return _Names(lambda i: f"{prefix}.{3 * i}", lambda i: f"{prefix}.{3 * i + 1}")

    encoder = sequence("kenc.encoder")
    config = _superglue_config(state, "final_proj", encoder)
    recipes = _mlp("encoder", len(config.keypoint_encoder), encoder)
    for i in range(2 * config.layers):
        ours, theirs = f"gnn.{i}", f"gnn.layers.{i}"
        for part in ("weight", "bias"):
            projections = tuple(f"{theirs}.attn.proj.{j}.{part}" for j in range(3))
            recipes[f"{ours}.qkv.{part}"] = Recipe(projections, _fuse_interleaved)
        recipes[f"{ours}.merge.weight"] = Recipe(
            (f"{theirs}.attn.merge.weight",), _merge_contiguous
        )
        recipes[f"{ours}.merge.bias"] = _same(f"{theirs}.attn.merge.bias")
        recipes |= _mlp(f"{ours}.mlp", 1, sequence(f"{theirs}.mlp"))
    return config, recipes | _ends("final_proj")


def _transformers_superglue(state: State) -> tuple[SuperGlueConfig, dict[str, Recipe]]:
    """``transformers``: linear layers, contiguous heads as ours, a SuperPoint in the same file."""

    def blocks(prefix: str, last: int) -> _Names:  # blocks of linear and batch norm, then a linear
        return _Names(
            lambda i: f"{prefix}.{i}.linear" if i < last else f"{prefix}.{i}",
            lambda i: f"{prefix}.{i}.batch_norm",
        )

    prefix = "keypoint_encoder.encoder"
    hidden = 0
    while f"{prefix}.{hidden}.linear.weight" in state:
        hidden += 1
    encoder = blocks(prefix, hidden)
    config = _superglue_config(state, "final_projection.final_proj", encoder)
    recipes = _mlp("encoder", hidden, encoder)
    for i in range(2 * config.layers):
        ours, theirs = f"gnn.{i}", f"gnn.layers.{i}"
        for part in ("weight", "bias"):
            projections = tuple(
                f"{theirs}.attention.self.{name}.{part}" for name in ("query", "key", "value")
            )
            recipes[f"{ours}.qkv.{part}"] = Recipe(projections, _stack)
            recipes[f"{ours}.merge.{part}"] = _same(f"{theirs}.attention.output.dense.{part}")
        recipes |= _mlp(f"{ours}.mlp", 1, blocks(f"{theirs}.mlp", 1))
    return config, recipes | _ends("final_projection.final_proj")


@dataclass(frozen=True)
class _Names:
    """Names of an MLP's i-th linear layer and i-th batch norm in a file."""

    linear: Callable[[int], str]
    norm: Callable[[int], str]


def _mlp(ours: str, hidden: int, names: _Names) -> dict[str, Recipe]:
    """An MLP with ``hidden`` hidden layers; ours alternates linear and batch norm."""
    recipes = {}
    for i in range(hidden + 1):
        recipes[f"{ours}.{2 * i}.weight"] = Recipe((f"{names.linear(i)}.weight",), _linear)
        recipes[f"{ours}.{2 * i}.bias"] = _same(f"{names.linear(i)}.bias")
    for i in range(hidden):
        for part in _BATCH_NORM:
            recipes[f"{ours}.{2 * i + 1}.{part}"] = _same(f"{names.norm(i)}.{part}")
    return recipes


def _ends(final: str) -> dict[str, Recipe]:
    return {
        "final.weight": Recipe((f"{final}.weight",), _linear),
        "final.bias": _same(f"{final}.bias"),
        "dustbin": Recipe(("bin_score",), lambda x: x.reshape(())),
    }


def _superglue_config(state: State, final: str, encoder: _Names) -> SuperGlueConfig:
    width = _dimension(state, f"{final}.weight", 0)
    hidden: list[int] = []
    while f"{encoder.norm(len(hidden))}.weight" in state:
        hidden.append(_dimension(state, f"{encoder.linear(len(hidden))}.weight", 0))
    numbers = {int(key.split(".")[2]) for key in state if _is_numbered_layer(key)}
    return SuperGlueConfig(
        descriptor_dim=width,
        width=width,
        layers=(max(numbers, default=-1) + 2) // 2,
        heads=ORIGINAL_HEADS,
        keypoint_encoder=tuple(hidden),
    )


def _is_numbered_layer(key: str) -> bool:
    parts = key.split(".")
    return parts[:2] == ["gnn", "layers"] and len(parts) > 2 and parts[2].isdecimal()


def _dimension(state: State, key: str, axis: int) -> int:
    tensor = state.get(key)
    if tensor is None:
        raise WeightsError(f"missing key {key}")
    if tensor.dim() <= axis:
        raise WeightsError(f"key {key} has shape {tuple(tensor.shape)}, which is no layer's")
    return tensor.shape[axis]


def _same(key: str) -> Recipe:
    return Recipe((key,), lambda x: x)


def _stack(*parts: Tensor) -> Tensor:
    return torch.cat(parts)


def _linear(weight: Tensor) -> Tensor:
    """A linear layer's weight, also from a convolution of width one (out, in, 1)."""
    return weight.squeeze(2) if weight.dim() == 3 and weight.shape[2] == 1 else weight


def _contiguous_heads(x: Tensor) -> Tensor:
    """First axis from (channel, head) to (head, channel) order."""
    return x.unflatten(0, (-1, ORIGINAL_HEADS)).transpose(0, 1).flatten(0, 1)


def _fuse_interleaved(*projections: Tensor) -> Tensor:
    return torch.cat([_contiguous_heads(_linear(x)) for x in projections])


def _merge_contiguous(weight: Tensor) -> Tensor:
    return _contiguous_heads(_linear(weight).T).T


def _grey_input(weight: Tensor) -> Tensor:
    """First convolution (C, K, 3, 3): K equal input channels take the same grey image."""
    grey = weight.mean(dim=1, keepdim=True)
    if not torch.allclose(weight, grey.expand_as(weight), atol=1e-5):
        raise WeightsError("the first layer mixes different input channels, not a grey image")
    return grey * weight.shape[1]
