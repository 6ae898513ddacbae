"""What only a GPU's page shows: where a frame's time goes, other precisions, the CPU's matches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from superglue_ros.bench.floor import floor_seconds, measure_rates
from superglue_ros.bench.inputs import FLOAT32, full_superglue, room_features
from superglue_ros.bench.measure import matcher_of
from superglue_ros.bench.timing import device_seconds, paired
from superglue_ros.config import Config, FrontEndConfig, MatcherConfig
from superglue_ros.engines.detection import Detection, GraphedDetector
from superglue_ros.engines.graphs import FixedFunction, GraphError
from superglue_ros.engines.padded import PaddedSuperGlue
from superglue_ros.engines.precision import CANDIDATES, Arithmetic
from superglue_ros.engines.superglue import SuperGlueEngine
from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.matchers.base import make_matcher, match_pair
from superglue_ros.matchers.superglue import SuperGlueMatcher
from superglue_ros.networks.weights import load_superpoint
from superglue_ros.types import Correspondences, Features

CPU = torch.device("cpu")
_ITERATIONS = MatcherConfig().sinkhorn_iterations


@dataclass(frozen=True)
class StageRow:
    """The device's time of one step, without launches; the same for eight pairs, None = none."""

    name: str
    seconds: float
    seconds_of_eight: float | None


@dataclass(frozen=True)
class PrecisionRow:
    """The full network on a pair and on eight keyframes; ``common`` of float32's matches, [0, 1].

    ``floor_seconds``: of a pair, at this precision's own rates.
    """

    precision: str
    keypoints: int
    pair_seconds: float
    eight_seconds: float
    floor_seconds: float
    common: float


@dataclass(frozen=True)
class DeviceAgreement:
    """The package's networks in float32, against those on the CPU, over ``pairs`` of frames.

    ``matching`` the share of common matches of the same features, ``keypoints`` that of keypoints
    found within half a pixel of each other, [0, 1].
    """

    pairs: int
    matches: int
    matching: float
    keypoints: float


def stage_rows(
    image: NDArray[np.uint8], count: int, device: torch.device, arithmetic: Arithmetic
) -> list[StageRow]:
    """Every step of a frame as a function of fixed shapes, many times in a row."""
    point = SuperPointEngine(load_superpoint().network, device, *arithmetic)
    network = full_superglue()
    engine = SuperGlueEngine(network, device, *arithmetic)
    padded, detector = PaddedSuperGlue(engine), GraphedDetector(point, device)
    settings = replace(_DETECTION, max_keypoints=count)
    height, width = image.shape

    def timed(function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> float:
        try:
            exact = arithmetic == Arithmetic()
            return device_seconds(FixedFunction(function, inputs, None, exact), device)
        except GraphError:  # a step that cannot be recorded is timed as it is launched
            return device_seconds(partial(torch.inference_mode()(function), *inputs), device)

    images = torch.from_numpy(image).to(device)[None]
    pixels = (images[:, None].float() / 255).to(arithmetic.dtype)
    size = torch.tensor([[float(width), float(height)]], device=device)
    full = torch.full((1, 1), count, device=device)
    features = (
        torch.rand(count, 2, device=device) * size,
        torch.rand(count, device=device),
        torch.randn(count, network.config.descriptor_dim, device=device),
    )

    def of_pairs(pairs: int) -> list[float]:
        tokens = torch.randn(2, pairs, count, engine.width, device=device)
        scores = torch.randn(pairs, count, count, device=device)
        return [
            timed(lambda x: padded.descriptors(x, None), tokens),
            timed(lambda x: (padded.transport(x, None, _ITERATIONS),), scores),
            timed(lambda x: padded.match(x, None, _ITERATIONS), tokens),
        ]

    one, eight = of_pairs(1), of_pairs(8)
    return [
        StageRow("SuperPoint's maps", timed(point.dense_maps, pixels), None),
        StageRow(
            "extraction: maps, suppression, best keypoints, sub-pixel step, descriptors",
            timed(lambda x: detector.features(x, height, width, settings), images),
            None,
        ),
        StageRow(
            "encoding of a set",
            timed(lambda *x: (padded.prepare(*x),), *features, size, full),
            None,
        ),
        StageRow("graph network", one[0], eight[0]),
        StageRow(f"optimal transport, {_ITERATIONS} iterations", one[1], eight[1]),
        StageRow("matching: graph network, transport, mutual best", one[2], eight[2]),
    ]


def precision_rows(
    images: Sequence[NDArray[np.uint8]], count: int, device: torch.device, rounds: int
) -> list[PrecisionRow]:
    """Matching of prepared sets in every precision, the full network."""
    features = room_features(list(images[:9]), count)
    network = full_superglue(features[0].descriptor_dim)
    kinds = [Arithmetic(), *(one for name in _LOWER for one in CANDIDATES[name])]
    rows, expected = [], None
    for arithmetic in kinds:
        matcher = matcher_of(network, features[0].detector, device, count, arithmetic)
        prepared = [matcher.prepare(one) for one in features]
        run = partial(_window, matcher, prepared)
        times = paired({"1": partial(run, 1), "8": partial(run, 8)}, rounds)
        found = run(8)
        expected = expected or found
        rates = measure_rates(device, 3, arithmetic)
        rows.append(
            PrecisionRow(
                precision=matcher.precision,
                keypoints=count,
                pair_seconds=times.median("1"),
                eight_seconds=times.median("8"),
                floor_seconds=floor_seconds(network.config, count, count, rates),
                common=float(np.mean(list(map(_common, expected, found)))),
            )
        )
    return rows


def device_agreement(
    images: Sequence[NDArray[np.uint8]], count: int, device: torch.device
) -> DeviceAgreement:
    """Consecutive images with the package's networks, here and on the CPU."""
    on_cpu = room_features(list(images), count)
    here = room_features(list(images), count, device)
    config = replace(FLOAT32, matcher=replace(FLOAT32.matcher, weights="wide"))
    config = replace(config, front_end=FrontEndConfig(max_keypoints=count))
    matchers = [make_matcher(config, one) for one in (CPU, device)]
    pairs = list(pairwise(on_cpu))
    found = [[match_pair(matcher, *pair) for pair in pairs] for matcher in matchers]
    return DeviceAgreement(
        pairs=len(pairs),
        matches=sum(map(len, found[0])),
        matching=float(np.mean(list(map(_common, *found)))),
        keypoints=float(np.mean(list(map(_near, on_cpu, here)))),
    )


_LOWER = ("tfloat32", "bfloat16", "float16")
_FRONT_END = Config().front_end
_DETECTION = Detection(
    max_keypoints=_FRONT_END.max_keypoints,
    threshold=_FRONT_END.threshold,
    nms_radius=_FRONT_END.nms_radius,
    border=_FRONT_END.border,
    subpixel=_FRONT_END.subpixel,
    exact=True,
)


def _window(
    matcher: SuperGlueMatcher, prepared: Sequence[Tensor], keyframes: int
) -> list[Correspondences]:
    others = prepared[1:]
    references = [others[i % len(others)] for i in range(keyframes)]
    return matcher.match_pairs(references, [prepared[0]] * keyframes)


def _common(one: Correspondences, other: Correspondences) -> float:
    """Common matches in parts of all that either has."""
    a, b = ({*zip(m.index_ref.tolist(), m.index_query.tolist(), strict=True)} for m in (one, other))
    return len(a & b) / max(len(a | b), 1)


def _near(one: Features, other: Features) -> float:
    """Part of the keypoints of ``one`` that ``other`` has within half a pixel."""
    apart = np.abs(one.keypoints[:, None] - other.keypoints[None]).max(axis=2)
    return float((apart.min(axis=1) < 0.5).mean())
