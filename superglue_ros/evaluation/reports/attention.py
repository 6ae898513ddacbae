"""Attention of the network: weights, spans, and rays (figures 7, 12 and 16)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from superglue_ros.drawing.matches import write_text
from superglue_ros.errors import ConfigError
from superglue_ros.networks.nodes import Nodes, swap
from superglue_ros.networks.position_encoding import normalise_keypoints
from superglue_ros.networks.superglue import AttentionalPropagation, SuperGlue
from superglue_ros.types import Correspondences, Features

Floats = NDArray[np.float64]
Picture = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class LayerAttention:
    """Attention weights of one layer of one pair, rows sum to 1.

    ``weights0`` (H, M, M) or, ``cross``, (H, M, N): of the queries of image 0; ``weights1`` (H, N,
    N) or (H, N, M): of image 1. ``index`` counts layers from 0.
    """

    index: int
    cross: bool
    weights0: NDArray[np.float32]
    weights1: NDArray[np.float32]


def check_attention(network: SuperGlue) -> None:
    """Raise :class:`ConfigError` on a network without a graph, or of messages without weights."""
    config = network.config
    if config.aggregation != "attention" or config.scales != (1.0,):
        raise ConfigError(
            f"there are no attention weights with aggregation {config.aggregation} and scales "
            f"{list(config.scales)}: draw a network with attention at one scale"
        )
    if not len(network.gnn):
        raise ConfigError(
            "these SuperGlue weights have no attention layers (optimal matching alone): "
            "give trained ones"
        )


@torch.inference_mode()
def attention(
    network: SuperGlue, features0: Features, features1: Features
) -> Iterator[LayerAttention]:
    """Attention weights of every layer in order, one layer in memory at a time.

    Query and key are computed again from each layer's input (eq. 4): the network itself never
    forms the weights. Raises :class:`ConfigError` as :func:`check_attention`.
    """
    check_attention(network)
    m, n = len(features0), len(features1)
    length = max(m, n)
    encoded = [_encode(network, features, length) for features in (features0, features1)]
    x = torch.cat([tokens for tokens, _ in encoded])
    xy = torch.cat([positions for _, positions in encoded])
    mask = torch.arange(length)[None] < torch.tensor([[m], [n]])
    for index, layer in enumerate(network.gnn):
        assert isinstance(layer, AttentionalPropagation)
        cross = network.is_cross(index)
        query, key, _ = layer.project(x)
        to = source = Nodes(x, xy, mask)
        if cross:
            key, source = swap(key), to.swapped()
        aggregation: Any = layer.aggregation
        weights = aggregation.weights(query, key, to, source)
        sizes = (n, m) if cross else (m, n)
        yield LayerAttention(
            index,
            cross,
            weights[0, :, :m, : sizes[0]].float().numpy(),
            weights[1, :, :n, : sizes[1]].float().numpy(),
        )
        x = layer(x, cross, mask, xy)


def spans(
    network: SuperGlue, features0: Features, features1: Features, matches: Correspondences
) -> dict[str, Floats]:
    """Attention span in pixels per layer, the smallest over the heads (appendix D).

    ``self``: mean distance of a keypoint to what it attends to; ``cross``: mean distance of a
    keypoint's match to what it attends to, over matched keypoints, NaN without matches.
    """
    out: dict[str, list[float]] = {"self": [], "cross": []}
    points0, points1 = features0.keypoints, features1.keypoints
    within0, within1 = _distances(points0, points0), _distances(points1, points1)
    for layer in attention(network, features0, features1):
        if not layer.cross:
            per_head = (
                np.einsum("hij,ij->h", layer.weights0, within0) / len(points0)
                + np.einsum("hij,ij->h", layer.weights1, within1) / len(points1)
            ) / 2
            out["self"].append(float(per_head.min()))
        elif len(matches):
            i, j = matches.index_ref, matches.index_query
            per_head = (
                np.einsum("hij,ij->h", layer.weights0[:, i], within1[j])
                + np.einsum("hij,ij->h", layer.weights1[:, j], within0[i])
            ) / (2 * len(matches))
            out["cross"].append(float(per_head.min()))
        else:
            out["cross"].append(float("nan"))
    return {kind: np.array(values) for kind, values in out.items() if values}


def mean_spans(pairs: Sequence[dict[str, Floats]]) -> dict[str, tuple[Floats, Floats]]:
    """Mean over pairs and half-width of its 95% interval, per kind and layer."""
    out = {}
    for kind in ("self", "cross"):
        rows = [spans[kind] for spans in pairs if kind in spans]
        if not rows:
            continue
        values = np.stack(rows)
        count = np.maximum((~np.isnan(values)).sum(axis=0), 1)
        half = 1.96 * np.nanstd(values, axis=0) / np.sqrt(count)
        out[kind] = (np.nanmean(values, axis=0), half)
    return out


def chosen_keypoints(matches: Correspondences) -> list[int]:
    """Keypoints of image 0 with the highest, the median and the lowest confidence of a match.

    The paper's easy, medium and difficult keypoints (figure 16); empty without matches.
    """
    if not len(matches):
        return []
    ranks = sorted({0, len(matches) // 2, len(matches) - 1})
    return [int(matches.index_ref[rank]) for rank in ranks]


def draw_rays(
    image0: Picture,
    image1: Picture,
    features0: Features,
    features1: Features,
    layers: Sequence[LayerAttention],
    keypoints: Sequence[int],
    scale: float = 0.5,
) -> Picture:
    """A row per layer, a column per head: rays from keypoints of image 0 to what they attend to.

    The opacity of a ray is its attention weight over the largest of its keypoint. Green, yellow and
    red: the easy, medium and difficult keypoint. BGR uint8.
    """
    rows = []
    for layer in layers:
        targets = features1.keypoints if layer.cross else features0.keypoints
        cells = []
        for head in range(layer.weights0.shape[0]):
            base = _canvas(image0, image1 if layer.cross else None, scale)
            offset = round(image0.shape[1] * scale) + 4 if layer.cross else 0
            for colour, index in zip(_COLOURS, keypoints, strict=False):
                start = features0.keypoints[index] * scale
                weights = layer.weights0[head, index]
                base = _rays(base, start, targets * scale + [offset, 0], weights, colour)
            kind = "cross" if layer.cross else "self"
            write_text(base, [f"layer {layer.index + 1} {kind}, head {head + 1}"])
            cells.append(base)
        rows.append(np.hstack(cells))
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0))) for row in rows]
    return np.asarray(np.vstack(padded), np.uint8)


_COLOURS = ((60, 220, 60), (0, 210, 255), (40, 40, 255))  # BGR


def _encode(
    network: SuperGlue, features: Features, length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (1, length, D) and normalised positions (1, length, 2), padded."""
    points = torch.from_numpy(features.keypoints)[None]
    size = torch.tensor([[features.width, features.height]], dtype=torch.float32)
    tokens = network.encode(
        points,
        torch.from_numpy(features.scores)[None],
        torch.from_numpy(np.asarray(features.descriptors, np.float32))[None],
        size,
    )
    missing = (0, 0, 0, length - tokens.shape[1])
    return F.pad(tokens, missing), F.pad(normalise_keypoints(points, size), missing)


def _distances(a: NDArray, b: NDArray) -> NDArray[np.float32]:
    return np.linalg.norm(a[:, None] - b[None], axis=2).astype(np.float32)


def _canvas(image0: Picture, image1: Picture | None, scale: float) -> Picture:
    parts = []
    for image in (image0, image1):
        if image is None:
            continue
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        faded = (128 + (small.astype(np.float32) - 128) * 0.5).astype(np.uint8)
        parts.append(cv2.cvtColor(faded, cv2.COLOR_GRAY2BGR))
    height = max(part.shape[0] for part in parts)
    parts = [np.pad(p, ((0, height - p.shape[0]), (0, 4), (0, 0))) for p in parts]
    return np.ascontiguousarray(np.hstack(parts), np.uint8)


def _rays(
    base: Picture, start: NDArray, ends: NDArray, weights: NDArray, colour: tuple[int, int, int]
) -> Picture:
    strongest = np.argsort(weights)[-60:]
    peak = float(weights.max())
    origin = (round(float(start[0])), round(float(start[1])))
    for j in strongest:
        opacity = float(weights[j]) / peak
        if opacity < 0.02:
            continue
        drawn = base.copy()
        end = (round(float(ends[j][0])), round(float(ends[j][1])))
        cv2.line(drawn, origin, end, colour, 1, cv2.LINE_AA)
        base = np.asarray(cv2.addWeighted(drawn, opacity, base, 1 - opacity, 0), np.uint8)
    cv2.circle(base, origin, 4, colour, -1, cv2.LINE_AA)
    return base
