"""SuperGlue optimised for inference: the same results as ``networks/superglue.py`` in less time.

Folded into the weights once, in float64, without changing the result:

- batch norm into the linear layer before it;
- the merge of the heads (eq. 5) into the part of the message MLP that reads it;
- query, key, value and the MLP's part that reads the token itself into one matrix product;
- the bias of the values (attention weights sum to one) and of the MLP's output into later biases;
- 1/sqrt(D) of eq. 7, or the learned temperature, into the final projection.

A keyframe's share, its keypoint encoding and the self-attention layers before the first
cross-attention, is computed once by ``prepare``. A window of keyframes goes through the layers as
one packed matrix of tokens without padding, whatever the sizes of the sets; sets of equal size
share an attention call. The large buffers are kept between calls, so an engine serves one thread at
a time.

Networks whose messages depend on more than query, key and value run in
:class:`~superglue_ros.engines.plain.PlainSuperGlueEngine` instead.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from superglue_ros.engines.mutual import MutualMatches
from superglue_ros.errors import ConfigError
from superglue_ros.networks.attention import attention_weights, top_k_attention
from superglue_ros.networks.device import tensor_float
from superglue_ros.networks.matching import Matching
from superglue_ros.networks.position_encoding import normalise_keypoints, position_features
from superglue_ros.networks.sinkhorn import sinkhorn
from superglue_ros.networks.superglue import AttentionalPropagation, SuperGlue

_CPU_TOKENS = 4096  # packed together; larger batches exceed the caches and cost more per token


@dataclass(frozen=True, eq=False)
class Layer:
    """One attentional propagation; ``x`` is a row of tokens without the folded biases.

    ``project`` (D, 5D), ``bias`` (5D): x to query, key, value and the MLP's hidden input (2D);
    ``message`` (D, 2D): the attention's output to the hidden input; ``update`` (2D, D).
    """

    cross: bool
    heads: int
    project: Tensor
    bias: Tensor
    message: Tensor
    update: Tensor


@dataclass(frozen=True)
class _Group:
    """References of one size in the packed matrix, followed by their queries, of one size too."""

    members: tuple[int, ...]
    start: int
    length: int
    query_length: int

    @property
    def middle(self) -> int:
        return self.start + len(self.members) * self.length

    @property
    def stop(self) -> int:
        return self.middle + len(self.members) * self.query_length


class SuperGlueEngine(MutualMatches):
    """Fast inference of one trained network.

    ``dtype``, and for float32 ``tf32``, is that of the layers' products and attention; residual
    stream, final scores and optimal transport are float32 always. Raises :class:`ConfigError` for a
    network whose messages depend on more than query, key and value.
    """

    def __init__(
        self,
        network: SuperGlue,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        tf32: bool = False,
    ) -> None:
        if network.config.reads_pairs:
            raise ConfigError(
                f"this engine does not have the network's {', '.join(network.config.options())}: "
                f"take PlainSuperGlueEngine"
            )
        self.config = network.config
        self.width = network.config.width
        self.device = device
        self.dtype, self.tf32 = dtype, tf32
        self._buffers: dict[str, Tensor] = {}
        with torch.no_grad():
            self._input = (
                (network.input.weight.detach().to(device), network.input.bias.detach().to(device))
                if isinstance(network.input, nn.Linear)
                else None
            )
            self._encoder = [
                (weight.float().to(device), bias.float().to(device))
                for weight, bias in _fold_batch_norm(network.encoder or ())
            ]
            self.layers, offset = self._fold_layers(network)
            scale = float(network.temperature) ** -0.5
            weight, bias = _parameters(network.final)
            self._final = (scale * weight.T).float().to(device)
            self._final_bias = (scale * (bias + weight @ offset)).float().to(device)
            self.matching = inference_matching(network, device)
        crossings = [i for i, layer in enumerate(self.layers) if layer.cross]
        self.shared = crossings[0] if crossings else len(self.layers)

    def _fold_layers(self, network: SuperGlue) -> tuple[list[Layer], Tensor]:
        """All layers, and the sum of the biases left out of the tokens."""
        offset = torch.zeros(self.width, dtype=torch.float64)
        layers = []
        for i, module in enumerate(network.gnn):
            assert isinstance(module, AttentionalPropagation)
            layer, bias = self._fold_layer(module, network.is_cross(i), offset)
            layers.append(layer)
            offset = offset + bias
        return layers, offset

    def _fold_layer(
        self, module: AttentionalPropagation, cross: bool, offset: Tensor
    ) -> tuple[Layer, Tensor]:
        d = self.width
        qkv, qkv_bias = _parameters(module.qkv)
        merge, merge_bias = _parameters(module.merge)
        (hidden, hidden_bias), (update, update_bias) = _fold_batch_norm(module.mlp)
        own, message = hidden[:, :d], hidden[:, d:]
        # Keys and values have no bias: the softmax cancels that of the keys, and that of the values
        # passes through the message unchanged.
        hidden_bias = hidden_bias + message @ (merge @ (qkv_bias[2 * d :] + qkv[2 * d :] @ offset))
        hidden_bias = hidden_bias + message @ merge_bias + own @ offset
        bias = torch.cat([qkv_bias[:d] + qkv[:d] @ offset, torch.zeros(2 * d), hidden_bias])

        def put(x: Tensor) -> Tensor:
            return x.to(self.device, self.dtype).contiguous()

        layer = Layer(
            cross=cross,
            heads=module.heads,
            project=put(torch.cat([qkv, own]).T),
            bias=put(bias),
            message=put((message @ merge).T),
            update=put(update.T),
        )
        return layer, update_bias

    @torch.inference_mode()
    def prepare(
        self, keypoints: Tensor, scores: Tensor, descriptors: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Encode one set: (N, D) float32 tokens.

        ``keypoints`` (N, 2) pixels, ``scores`` (N,), ``descriptors`` (N, descriptor_dim) float32;
        ``size`` width and height of the image in pixels.
        """
        device = self.device
        extent = torch.tensor([size], device=device)
        x = self.encode(keypoints.to(device), scores.to(device), descriptors.to(device), extent)
        if len(x):
            alone = _Group((0,), 0, 0, len(x))
            with tensor_float(device, self.tf32):
                for layer in self.layers[: self.shared]:
                    self._propagate(layer, x, [alone])
        return x

    def encode(
        self, keypoints: Tensor, scores: Tensor, descriptors: Tensor, size: Tensor
    ) -> Tensor:
        """Initial representations (eq. 2) of a set on the device: (N, D) float32.

        Shapes as of :meth:`prepare`; ``size`` (1, 2) width and height.
        """
        x = descriptors if self._input is None else F.linear(descriptors, *self._input)
        if self._encoder:
            xy = normalise_keypoints(keypoints[None], size)[0]
            token = position_features(xy, scores, self.config.sinusoids)
            for weight, bias in self._encoder[:-1]:
                token = F.linear(token, weight, bias).relu_()
            x = x + F.linear(token, *self._encoder[-1])
        return x.float().clone()

    def project(self, x: Tensor) -> Tensor:
        """Tokens (T, D) after the last layer to matching descriptors (eq. 6), divided by the root
        of the temperature.
        """
        return torch.addmm(self._final_bias, x, self._final)

    @torch.inference_mode()
    def match_pairs(
        self, references: Sequence[Tensor], queries: Sequence[Tensor], iterations: int = 100
    ) -> Iterator[tuple[int, Tensor]]:
        """Match prepared references (M_k, D) against queries (N_k, D), pair by pair; none empty.

        Yields (k, log assignment (1, M_k + 1, N_k + 1)) in no particular order.
        """
        for k, a, b in self.descriptors(references, queries):
            yield k, self.matching.assign(a, b, iterations, sinkhorn)

    @torch.inference_mode()
    def scores(
        self, references: Sequence[Tensor], queries: Sequence[Tensor]
    ) -> Iterator[tuple[int, Tensor]]:
        """As :meth:`match_pairs`, but the scores (1, M_k, N_k) of eq. 7."""
        for k, a, b in self.descriptors(references, queries):
            yield k, a @ b.transpose(1, 2)

    @torch.inference_mode()
    def descriptors(
        self, references: Sequence[Tensor], queries: Sequence[Tensor]
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """As :meth:`match_pairs`, but the matching descriptors of eq. 6 of both sets.

        Yields (k, (1, M_k, D), (1, N_k, D)), divided by the root of the temperature: scores are
        their inner products.
        """
        limit = _CPU_TOKENS if self.device.type == "cpu" else math.inf
        for portion in _portions(references, queries, limit):
            packed = self._packed_descriptors(
                [references[k] for k in portion], [queries[k] for k in portion]
            )
            for k, a, b in packed:
                yield portion[k], a, b

    def _packed_descriptors(
        self, references: Sequence[Tensor], queries: Sequence[Tensor]
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        groups = _pack(references, queries)
        x = self._buffer("tokens", groups[-1].stop, self.width, torch.float32)
        for group in groups:
            for row, k in enumerate(group.members):
                x[group.start + row * group.length :][: group.length] = references[k]
                x[group.middle + row * group.query_length :][: group.query_length] = queries[k]
        with tensor_float(self.device, self.tf32):
            for layer in self.layers[self.shared :]:
                self._propagate(layer, x, groups)
        projected = self.project(x)
        for group in groups:
            a = projected[group.start : group.middle].unflatten(0, (-1, group.length))
            b = projected[group.middle : group.stop].unflatten(0, (-1, group.query_length))
            for row, k in enumerate(group.members):
                yield k, a[row : row + 1], b[row : row + 1]

    def _propagate(self, layer: Layer, x: Tensor, groups: Sequence[_Group]) -> None:
        """Update the packed tokens ``x`` (T, D) in place (eq. 3-5)."""
        d = self.width
        projected = self._buffer("projected", len(x), 5 * d, self.dtype)
        torch.addmm(layer.bias, x.to(self.dtype), layer.project, out=projected)
        hidden = projected[:, 3 * d :]
        for group in groups:
            a, b = slice(group.start, group.middle), slice(group.middle, group.stop)
            if layer.cross:
                self._send(layer, projected, hidden, b, group.query_length, a, group.length)
                self._send(layer, projected, hidden, a, group.length, b, group.query_length)
            elif group.length == group.query_length:
                both = slice(group.start, group.stop)
                size = group.query_length
                self._send(layer, projected, hidden, both, size, both, size)
            else:
                self._send(layer, projected, hidden, a, group.length, a, group.length)
                self._send(layer, projected, hidden, b, group.query_length, b, group.query_length)
        hidden.relu_()
        if self.dtype == x.dtype:
            x.addmm_(hidden, layer.update)
        else:
            x += hidden @ layer.update

    def _send(
        self,
        layer: Layer,
        projected: Tensor,
        hidden: Tensor,
        source: slice,
        source_size: int,
        target: slice,
        target_size: int,
    ) -> None:
        """Attend from every set of ``target`` to its set of ``source`` and pass the message on."""
        if source_size == 0:
            return
        d = self.width

        def heads(rows: slice, size: int, part: int) -> Tensor:
            columns = projected[rows, part * d : (part + 1) * d]
            return columns.view(-1, size, layer.heads, d // layer.heads).transpose(1, 2)

        message = self._attend(
            heads(target, target_size, 0),
            heads(source, source_size, 1),
            heads(source, source_size, 2),
        )
        hidden[target].addmm_(message.transpose(1, 2).reshape(-1, d), layer.message)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The network's attention; keys and values without bias."""
        config = self.config
        if config.top_k:
            return top_k_attention(q, k, v, None, None, config.top_k, config.top_k_block)
        if config.prune:
            return attention_weights(q, k, prune=config.prune).to(v.dtype) @ v
        return F.scaled_dot_product_attention(q, k, v)

    def _buffer(self, name: str, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """Working memory, reused and grown when needed."""
        kept = self._buffers.get(name)
        if kept is None or len(kept) < rows:
            kept = torch.empty(rows, columns, dtype=dtype, device=self.device)
            self._buffers[name] = kept
        return kept[:rows]


def _portions(
    references: Sequence[Tensor], queries: Sequence[Tensor], limit: float
) -> list[list[int]]:
    """Pairs to be packed together: of similar sizes, at most ``limit`` tokens, at least one."""
    sizes = [(len(r), len(q)) for r, q in zip(references, queries, strict=True)]
    portions: list[list[int]] = []
    room = 0.0
    for k in sorted(range(len(sizes)), key=lambda k: sizes[k]):
        if not portions or sum(sizes[k]) > room:
            portions.append([])
            room = limit
        portions[-1].append(k)
        room -= sum(sizes[k])
    return portions


def _pack(references: Sequence[Tensor], queries: Sequence[Tensor]) -> list[_Group]:
    """Lay out pairs by their sizes, every group of references followed by its queries."""
    by_length: dict[tuple[int, int], list[int]] = {}
    for k, (reference, query) in enumerate(zip(references, queries, strict=True)):
        by_length.setdefault((len(reference), len(query)), []).append(k)
    groups: list[_Group] = []
    start = 0
    for (length, query_length), members in by_length.items():
        groups.append(_Group(tuple(members), start, length, query_length))
        start = groups[-1].stop
    return groups


def inference_matching(network: SuperGlue, device: torch.device) -> Matching:
    """The network's optimal matching layer on ``device``, float32, without gradients."""
    own = network.matching()
    return Matching(
        dustbin=own.dustbin.detach().float().to(device),
        stop=None if own.stop is None else copy.deepcopy(own.stop).float().to(device).eval(),
        doubt=None if own.doubt is None else copy.deepcopy(own.doubt).float().to(device).eval(),
        levels=own.levels,
    )


def _parameters(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    return linear.weight.detach().double().cpu(), linear.bias.detach().double().cpu()


def _fold_batch_norm(layers: Iterable[nn.Module]) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases (float64) of an MLP's linear layers, batch norm folded in."""
    folded: list[tuple[Tensor, Tensor]] = []
    for module in layers:
        if isinstance(module, nn.Linear):
            folded.append(_parameters(module))
            continue
        assert isinstance(module, nn.BatchNorm1d)
        assert module.running_mean is not None
        assert module.running_var is not None
        scale = (
            module.weight.double().cpu() / (module.running_var.double().cpu() + module.eps).sqrt()
        )
        weight, bias = folded[-1]
        shift = module.bias.double().cpu() - scale * module.running_mean.double().cpu()
        folded[-1] = (weight * scale[:, None], bias * scale + shift)
    return folded
