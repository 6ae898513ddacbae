"""The exported networks in ONNX Runtime, behind the interface of the torch engines.

The files are those of ``superglue-ros export``; their metadata names the kind of descriptors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from superglue_ros.engines.mutual import MutualMatches
from superglue_ros.errors import ConfigError, WeightsError


@dataclass(frozen=True, eq=False)
class PreparedArrays:
    """A set's inputs by name, with a leading batch axis; a graph stores no encoding."""

    arrays: Mapping[str, Any]

    def __len__(self) -> int:
        return self.arrays["scores"].shape[1]


class OnnxSuperPointEngine:
    """``superpoint.onnx``; raises :class:`WeightsError` or :class:`ConfigError` when made."""

    dtype, tf32 = torch.float32, False

    def __init__(self, path: Path) -> None:
        self._session, metadata = open_session(path, ["images"])
        self.descriptor_kind = metadata["descriptor_kind"]

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`superglue_ros.engines.superpoint.SuperPointEngine.maps`."""
        scores, descriptors = self._session.run(None, {"images": images.cpu().numpy()})
        return torch.from_numpy(scores), torch.from_numpy(descriptors)


class OnnxSuperGlueEngine(MutualMatches):
    """``superglue.onnx``; raises :class:`WeightsError` or :class:`ConfigError` when made."""

    dtype, tf32 = torch.float32, False

    def __init__(self, path: Path) -> None:
        self._session, metadata = open_session(path, [f"{n}{i}" for i in "01" for n in _NAMES])
        self.descriptor_kind = metadata["descriptor_kind"]
        self.iterations = int(metadata["sinkhorn_iterations"])

    def prepare(
        self, keypoints: Tensor, scores: Tensor, descriptors: Tensor, size: tuple[int, int]
    ) -> PreparedArrays:
        """See :meth:`superglue_ros.engines.superglue.SuperGlueEngine.prepare`."""
        values = {"keypoints": keypoints, "scores": scores, "descriptors": descriptors}
        arrays = {name: value.cpu().numpy()[None] for name, value in values.items()}
        arrays["size"] = np.array([size], np.float32)
        arrays["mask"] = np.ones((1, len(scores)), np.bool_)
        return PreparedArrays(arrays)

    def match_pairs(
        self,
        references: Sequence[PreparedArrays],
        queries: Sequence[PreparedArrays],
        iterations: int = 100,
    ) -> Iterator[tuple[int, Tensor]]:
        """See :meth:`superglue_ros.engines.superglue.SuperGlueEngine.match_pairs`; pair by pair.

        Raises :class:`ConfigError` where the graph was exported with other ``iterations``.
        """
        if iterations != self.iterations:
            raise ConfigError(
                f"superglue.onnx makes {self.iterations} Sinkhorn iterations, "
                f"matcher.sinkhorn_iterations is {iterations}: export it again with "
                f"--iterations {iterations}, or set backend to torch"
            )
        for k, (reference, query) in enumerate(zip(references, queries, strict=True)):
            inputs = {f"{name}0": value for name, value in reference.arrays.items()}
            inputs |= {f"{name}1": value for name, value in query.arrays.items()}
            yield k, torch.from_numpy(self._session.run(None, inputs)[0])


_NAMES = ("keypoints", "scores", "descriptors", "size", "mask")


def open_session(path: Path, inputs: Sequence[str]) -> tuple[Any, dict[str, str]]:
    """A session with torch's number of threads, and the file's metadata."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            "backend onnx needs the package onnxruntime: pip install onnxruntime, or set backend "
            "to torch"
        ) from error
    if not path.is_file():
        raise WeightsError(
            f"{path} does not exist: write it with `superglue-ros export --output {path.parent}`"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Spinning idle threads would take the processor from torch's threads.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=onnxruntime.get_available_providers()
        )
    except Exception as error:  # the runtime's own exceptions have no common base
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{path} cannot be read as ONNX ({reason}): export it again") from error
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    names = [item.name for item in session.get_inputs()]
    if sorted(names) != sorted(inputs) or "descriptor_kind" not in metadata:
        raise WeightsError(
            f"{path} has the inputs {', '.join(names)}, not those of `superglue-ros export`: "
            f"export it again"
        )
    return session, metadata
