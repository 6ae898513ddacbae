"""Grow a trained SuperGlue into a larger one that starts with the same function.

Added layers send zero messages. In a wider network the old channels, heads and hidden units come
first and do not read the new ones. New units start random, or as the part of the descriptors that
the old input projection dropped; the weights that read them start at zero but have a gradient, so
all of them can learn.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from superglue_ros.errors import WeightsError
from superglue_ros.networks.superglue import SuperGlue

_NEW_SCORES = 0.02  # new rows of the final projection; exactly zero would have no gradient
_WITHOUT_WIDTH = frozenset(
    ("sinusoids", "neighbours", "neighbour_cosine", "top_k", "top_k_block", "prune", "hierarchy")
)
"""Options of the network without parameters that would have to be widened."""


@torch.no_grad()
def grow(network: SuperGlue, smaller: SuperGlue) -> None:
    """Copy ``smaller`` into ``network``, which may have more layers, width, heads and options.

    Outputs are equal if only layers are added, and nearly equal if width is added. Raises
    :class:`WeightsError` where they differ in anything else, or in the size of their heads, or
    where width is added to a network with options that have parameters of their own.
    """
    wanted, had = asdict(network.config), asdict(smaller.config)
    grows = ("layers", "width", "heads")
    added = set(network.config.options()) - set(smaller.config.options())
    fits = all(wanted[key] == had[key] for key in wanted if key not in {*grows, *added})
    fits = fits and all(wanted[key] >= had[key] for key in grows)
    fits = fits and wanted["width"] * had["heads"] == had["width"] * wanted["heads"]
    fits = fits and "sinusoids" not in added  # another input of the keypoint encoder
    if wanted["width"] != had["width"]:
        fits = fits and set(network.config.options()) <= _WITHOUT_WIDTH
    if not fits or type(network.input) is not type(smaller.input):
        raise WeightsError(
            f"a network of {had} can't grow into {wanted}: layers and options but sinusoids may be "
            f"added, and heads of the same size where both networks project their input"
        )
    if network.config.width == smaller.config.width:
        _copy(network, smaller)
    else:
        _widen(network, smaller)
    for layer in network.gnn[2 * smaller.config.layers :]:
        silence(layer)


def _copy(network: SuperGlue, smaller: SuperGlue) -> None:
    """The parameters of ``smaller``; those of options that it does not have stay as they are.

    Messages of coarser scales are not read at first, both dustbins start from the one there was,
    and a new temperature leaves the scores as they were.
    """
    state, given = network.state_dict(), smaller.state_dict()
    for name, value in given.items():
        if name.endswith("merge.weight") and value.shape != state[name].shape:
            scales, heads = network.config.scales, network.config.heads
            split = state[name].zero_().unflatten(1, (heads, len(scales), -1))
            split[:, :, scales.index(max(scales))] = value.unflatten(1, (heads, -1))
        else:
            state[name] = value.expand_as(state[name]).clone()
    network.load_state_dict(state)
    if smaller.log_temperature is None and network.log_temperature is not None:
        factor = float(network.temperature) / float(smaller.temperature)
        for parameter in network.final.parameters():
            parameter.mul_(math.sqrt(factor))


def silence(layer: Any) -> None:
    """Initialise a layer's messages to zero, which leaves every representation unchanged."""
    nn.init.zeros_(layer.mlp[-1].weight)
    nn.init.zeros_(layer.mlp[-1].bias)


def _widen(network: SuperGlue, smaller: SuperGlue) -> None:
    d, large = smaller.config.width, network.config.width
    first = torch.arange(d)
    _widen_input(network.input, smaller.input)
    if network.encoder is not None and smaller.encoder is not None:
        for ours, theirs in zip(
            list(network.encoder)[:-1], list(smaller.encoder)[:-1], strict=True
        ):
            ours.load_state_dict(theirs.state_dict())
        last: Any = smaller.encoder[-1]
        _place(network.encoder[-1], last, first, torch.arange(last.in_features))
        _silence_rows(network.encoder[-1], d)
    for ours, theirs in zip(network.gnn, smaller.gnn, strict=False):
        layer: Any = ours
        old: Any = theirs
        _place(layer.qkv, old.qkv, _blocks(3, d, large), first)
        _place(layer.merge, old.merge, first, first)
        _place(layer.mlp[0], old.mlp[0], torch.arange(2 * d), _blocks(2, d, large))
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(layer.mlp[1], name)[: 2 * d] = getattr(old.mlp[1], name)
        _place(layer.mlp[2], old.mlp[2], first, torch.arange(2 * d))
        _silence_rows(layer.mlp[2], d)
    _place(network.final, smaller.final, first, first)
    # Scores are divided by the root of the width (eq. 7), which has grown.
    network.final.weight[:d] *= (large / d) ** 0.25
    network.final.bias[:d] *= (large / d) ** 0.25
    network.final.weight[d:] *= _NEW_SCORES
    network.final.bias[d:] = 0
    network.dustbin.copy_(smaller.dustbin)


def _widen_input(ours: Any, theirs: Any) -> None:
    """New channels project directions of the descriptors that the old projection dropped."""
    d = theirs.out_features
    _place(ours, theirs, torch.arange(d), torch.arange(theirs.in_features))
    _, _, directions = torch.linalg.svd(theirs.weight.float())
    unseen = directions[d:][: ours.out_features - d]
    size = theirs.weight.norm(dim=1).mean()
    ours.weight[d : d + len(unseen)] = size * unseen
    ours.bias[d:] = 0


def _blocks(count: int, small: int, large: int) -> Tensor:
    """Indices of the old channels in ``count`` blocks that grew from ``small`` to ``large``."""
    return torch.cat([block * large + torch.arange(small) for block in range(count)])


def _place(ours: Any, theirs: Any, rows: Tensor, columns: Tensor) -> None:
    """Put a linear layer into a larger one: its rows read the given columns and no others."""
    ours.weight[rows] = 0
    ours.weight[rows[:, None], columns] = theirs.weight
    ours.bias[rows] = theirs.bias


def _silence_rows(linear: Any, start: int) -> None:
    linear.weight[start:] = 0
    linear.bias[start:] = 0
