"""Which runtime computes a network: torch, its compiler, or ONNX Runtime on the exported graph."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from superglue_ros.config import Config
from superglue_ros.engines.compiled import CompiledSuperGlueEngine, CompiledSuperPointEngine
from superglue_ros.engines.detection import Detector, GraphedDetector
from superglue_ros.engines.graphed import GraphedSuperGlueEngine, can_be_graphed
from superglue_ros.engines.onnx_runtime import OnnxSuperGlueEngine, OnnxSuperPointEngine
from superglue_ros.engines.plain import torch_engine
from superglue_ros.engines.precision import (
    MapsImages,
    MatchesSets,
    Outcome,
    detection_outcome,
    difference,
    matching_outcome,
    superglue_arithmetic,
    superpoint_arithmetic,
)
from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.errors import ConfigError, WeightsError
from superglue_ros.networks.superglue import with_options
from superglue_ros.networks.weights import LoadedSuperGlue, LoadedSuperPoint

log = logging.getLogger(__name__)

_OPTIONS = ("top_k", "hierarchy", "prune")
"""Options of the network that the settings of the matcher have too."""

Torch = TypeVar("Torch")
Onnx = TypeVar("Onnx", OnnxSuperGlueEngine, OnnxSuperPointEngine)


def superglue_engine(loaded: LoadedSuperGlue, config: Config, device: torch.device) -> MatchesSets:
    """The matcher's engine for ``config.backend``.

    Raises :class:`WeightsError` if the exported graph is missing or was made from other weights,
    :class:`ConfigError` if the backend does not have the options of the network.
    """
    network, iterations = loaded.network, config.matcher.sinkhorn_iterations
    options = {name: value for name in _OPTIONS if (value := getattr(config.matcher, name))}
    if options:
        network = with_options(network, **options)
        if config.backend == "onnx":
            names = ", ".join(f"matcher.{name}" for name in options)
            raise ConfigError(f"the exported graph does not have {names}: set backend to torch")
    arithmetic = superglue_arithmetic(network, config.precision, device, loaded.descriptor_kind)
    most = config.front_end.max_keypoints
    if config.backend == "compiled":
        return CompiledSuperGlueEngine(network, device, *arithmetic, most)
    if _graphs(config, device) and can_be_graphed(network):
        return GraphedSuperGlueEngine(network, device, *arithmetic, most, iterations)
    own = torch_engine(network, device, *arithmetic)
    if options:
        return own
    return _choose(
        config,
        "superglue.onnx",
        own,
        lambda: torch_engine(network, device),
        OnnxSuperGlueEngine,
        loaded.descriptor_kind,
        lambda engine: matching_outcome(engine, network.config.descriptor_dim, iterations),
    )


def superpoint_engine(
    loaded: LoadedSuperPoint, config: Config, device: torch.device
) -> SuperPointEngine | OnnxSuperPointEngine:
    """The front-end's engine for ``config.backend``; as :func:`superglue_engine`."""
    arithmetic = superpoint_arithmetic(loaded.network, config.precision, device)
    if config.backend == "compiled":
        return CompiledSuperPointEngine(loaded.network, device, *arithmetic)
    own = SuperPointEngine(loaded.network, device, *arithmetic)
    return _choose(
        config,
        "superpoint.onnx",
        own,
        lambda: SuperPointEngine(loaded.network, device),
        OnnxSuperPointEngine,
        loaded.kind,
        detection_outcome,
    )


def detector_of(engine: MapsImages, config: Config, device: torch.device) -> Detector:
    """What finds the keypoints in the maps of ``engine``."""
    if isinstance(engine, SuperPointEngine) and _graphs(config, device):
        return GraphedDetector(engine, device)
    return Detector(engine, device)


def _graphs(config: Config, device: torch.device) -> bool:
    return config.backend == "torch" and device.type == "cuda"


def _choose(
    config: Config,
    name: str,
    own: Torch,
    exact: Callable[[], Torch],
    open_onnx: Callable[[Path], Onnx],
    kind: str,
    run: Callable[[Torch | Onnx], Outcome],
) -> Torch | Onnx:
    """``own`` for torch and eager; the exported graph for onnx; for auto the faster of equal ones.

    Graphs are float32: they are compared with ``exact``, whatever the precision of ``own``.
    """
    if config.backend in ("torch", "eager"):
        return own
    path = Path(config.onnx_folder) / name
    try:
        other = open_onnx(path)
        if other.descriptor_kind != kind:
            raise WeightsError(
                f"{path} is for descriptors {other.descriptor_kind!r}, the weights are for "
                f"{kind!r}: export it again"
            )
        _, own_seconds = _timed(run, own)
        found, other_seconds = _timed(run, other)
        changed = difference(run(exact()), found)
        if changed:
            raise WeightsError(f"{path} is not of these weights ({changed}): export it again")
    except (ConfigError, WeightsError) as error:
        if config.backend == "onnx":
            raise
        log.warning("backend torch for %s: %s", name, error)
        return own
    log.info("%s: torch %.0f ms, onnx %.0f ms", name, 1e3 * own_seconds, 1e3 * other_seconds)
    return other if config.backend == "onnx" or other_seconds < own_seconds else own


def _timed(run: Callable[[Torch], Outcome], engine: Torch) -> tuple[Outcome, float]:
    """Result, and the time of a second run: the first fills buffers and caches."""
    run(engine)
    started = time.perf_counter()
    result = run(engine)
    return result, time.perf_counter() - started
