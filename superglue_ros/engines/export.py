"""The networks as ONNX for other runtimes; batch, image size and keypoints stay dynamic.

SuperPoint outputs its dense maps: keypoint selection is sorting, which is better done outside the
graph. SuperGlue is complete, from features to the log assignment, with padding masks. Its optimal
transport is a loop of the graph, of a fixed number of iterations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop
from torch.export import Dim

from superglue_ros.errors import ConfigError
from superglue_ros.networks.sinkhorn import Step, fixed_sinkhorn
from superglue_ros.networks.superglue import SuperGlue
from superglue_ros.networks.superpoint import SuperPoint, keypoint_probability

_EXPORTED = ("sinusoids", "temperature", "separate_dustbins")
"""Options of a network that its graph has."""


class SuperPointMaps(nn.Module):
    """Images (B, 1, H, W) to keypoint probability (B, H, W) and descriptors (B, D, H/8, W/8)."""

    def __init__(self, network: SuperPoint) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """``images`` float32 in [0, 1], H and W multiples of 8."""
        logits, descriptors = self.network(images)
        return keypoint_probability(logits), descriptors


class SuperGlueAssignment(nn.Module):
    """Features of P pairs to the log assignment (P, M+1, N+1), without branches on data."""

    def __init__(self, network: SuperGlue, iterations: int) -> None:
        super().__init__()
        self.network = network
        self.iterations = iterations
        self.repeat = _loop

    def forward(
        self,
        keypoints0: Tensor,
        scores0: Tensor,
        descriptors0: Tensor,
        size0: Tensor,
        mask0: Tensor,
        keypoints1: Tensor,
        scores1: Tensor,
        descriptors1: Tensor,
        size1: Tensor,
        mask1: Tensor,
    ) -> Tensor:
        """Shapes as ``SuperGlue.forward``; the masks are not optional, True = a keypoint."""
        network = self.network
        x0 = network.encode(keypoints0, scores0, descriptors0, size0)
        x1 = network.encode(keypoints1, scores1, descriptors1, size1)
        for i, layer in enumerate(network.gnn):
            if network.is_cross(i):
                x0, x1 = _update(layer, x0, x1, mask1), _update(layer, x1, x0, mask0)
            else:
                x0, x1 = _update(layer, x0, x0, mask0), _update(layer, x1, x1, mask1)
        scores = network.final(x0) @ network.final(x1).transpose(1, 2) / network.temperature
        return fixed_sinkhorn(scores, network.dustbin, self.iterations, mask0, mask1, self.repeat)


def _update(layer: Any, x: Tensor, source: Tensor, source_mask: Tensor) -> Tensor:
    q, _, _ = layer.project(x)
    _, k, v = layer.project(source)
    attention_mask = source_mask[:, None, None, :]
    message = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask)
    message = layer.merge(message.transpose(1, 2).flatten(2))
    return x + layer.mlp(torch.cat([x, message], dim=-1))


def _loop(step: Step, times: int, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """``step`` as the body of a loop of the graph: unrolled, it would be there ``times`` times."""
    start = torch.zeros((), dtype=torch.int64, device=u.device)

    def more(done: Tensor, _: Tensor, __: Tensor) -> Tensor:
        return done < times

    def body(done: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (done + 1, *step(u, v))

    _, u, v = while_loop(more, body, (start, u, v))
    return u, v


def export_superpoint(network: SuperPoint, kind: str, path: Path) -> None:
    """Write ``images`` to ``scores`` and ``descriptors``; raises :class:`ConfigError`.

    The metadata says the descriptors' ``kind`` and how they are sampled.
    """
    batch, height, width = Dim("batch"), 8 * Dim("rows", min=2), 8 * Dim("columns", min=2)
    _export(
        SuperPointMaps(network),
        (torch.rand(2, 1, 64, 80),),
        path,
        {"images": {0: batch, 2: height, 3: width}},
        ["scores", "descriptors"],
        {"descriptor_kind": kind, "exact_sampling": str(int(network.config.exact_sampling))},
    )


def export_superglue(network: SuperGlue, kind: str, path: Path, iterations: int = 100) -> None:
    """Write the features of P pairs to ``log_assignment``; raises :class:`ConfigError`.

    The metadata says the ``kind`` of descriptors and the number of Sinkhorn iterations. A network
    with options that the graph does not have is refused.
    """
    unknown = [name for name in network.config.options() if name not in _EXPORTED]
    if unknown:
        raise ConfigError(
            f"the exported graph does not have the network's {', '.join(unknown)}: run it with "
            f"backend torch"
        )
    pairs = Dim("pairs")
    inputs: dict[str, Tensor] = {}
    shapes: dict[str, dict[int, Dim]] = {}
    for i, count in enumerate((24, 20)):
        n = Dim(f"keypoints_{i}", min=2)
        inputs[f"keypoints{i}"] = torch.rand(2, count, 2) * 100
        inputs[f"scores{i}"] = torch.rand(2, count)
        inputs[f"descriptors{i}"] = torch.rand(2, count, network.config.descriptor_dim)
        inputs[f"size{i}"] = torch.tensor([[100.0, 100.0]]).expand(2, 2).contiguous()
        inputs[f"mask{i}"] = torch.ones(2, count, dtype=torch.bool)
        shapes |= {f"{name}{i}": {0: pairs, 1: n} for name in ("keypoints", "scores")}
        shapes |= {f"descriptors{i}": {0: pairs, 1: n}, f"size{i}": {0: pairs}}
        shapes[f"mask{i}"] = {0: pairs, 1: n}
    module = SuperGlueAssignment(network, iterations)
    metadata = {"descriptor_kind": kind, "sinkhorn_iterations": str(iterations)}
    _export(module, tuple(inputs.values()), path, shapes, ["log_assignment"], metadata)


def _export(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    shapes: dict[str, dict[int, Dim]],
    outputs: list[str],
    metadata: dict[str, str],
) -> None:
    try:
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise ConfigError(
            "export needs the packages onnx and onnxscript: pip install onnx onnxscript"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            inputs,
            input_names=list(shapes),
            output_names=outputs,
            dynamic_shapes=tuple(shapes.values()),
            dynamo=True,
            verbose=False,
            optimize=False,  # the runtime optimises when it loads the file, in less time
        )
    assert program is not None
    program.model.metadata_props.update(metadata)
    program.save(str(path))
