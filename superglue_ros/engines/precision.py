"""Lower precisions behind a check by the task: one that loses matches is refused.

bfloat16 and float16 are several times as fast as float32 where the processor has units for them,
and slower elsewhere, so ``auto`` measures. A network in low precision may silently lose matches, so
it is first compared with float32 on photographs with known truth (``trial.py``).
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from superglue_ros.engines.plain import torch_engine
from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.engines.trial import (
    Trial,
    mutual_matches,
    packaged_kind,
    superglue_trial,
    superpoint_trial,
    verdict,
)
from superglue_ros.errors import DataError
from superglue_ros.networks.superglue import SuperGlue
from superglue_ros.networks.superpoint import SuperPoint, detect_keypoints

log = logging.getLogger(__name__)

CANDIDATES = {
    "bfloat16": (torch.bfloat16,),
    "float16": (torch.float16,),
    "auto": (torch.bfloat16, torch.float16),
}
MAX_SCORE_DIFFERENCE = 0.01
"""Largest change of a match's probability that counts as none."""

GAIN = 0.9
"""``auto`` takes a lower precision if it needs less than this part of the time."""

Outcome = dict[Hashable, float]


class MatchesSets(Protocol):
    """An engine of SuperGlue in any runtime; ``dtype`` is that of its arithmetic."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the products and the attention."""

    def prepare(
        self, keypoints: Tensor, scores: Tensor, descriptors: Tensor, size: tuple[int, int]
    ) -> Any:
        """As :meth:`SuperGlueEngine.prepare`; the result has a length."""

    def match_pairs(
        self, references: Sequence[Any], queries: Sequence[Any], iterations: int = 100
    ) -> Iterator[tuple[int, Tensor]]:
        """As :meth:`SuperGlueEngine.match_pairs`."""
        ...


class MapsImages(Protocol):
    """An engine of SuperPoint in any runtime; ``dtype`` is that of its arithmetic."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the convolutions."""

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`SuperPointEngine.maps`."""
        ...


def superglue_dtype(
    network: SuperGlue, precision: str, device: torch.device, kind: str = ""
) -> torch.dtype:
    """The arithmetic for ``network`` that ``precision`` asks for, or float32 where refused.

    ``kind``: that of its descriptors. A network for other features than the package's is compared
    on made-up sets, where nothing may change.
    """

    def made_up(dtype: torch.dtype) -> Outcome:
        engine = torch_engine(network, device, dtype)
        return matching_outcome(engine, network.config.descriptor_dim)

    def photographs(dtype: torch.dtype) -> Trial:
        return superglue_trial(torch_engine(network, device, dtype))

    def choose() -> torch.dtype:
        if kind == packaged_kind():
            return _choose("SuperGlue", precision, device, photographs, verdict)
        return _choose("SuperGlue", precision, device, made_up, difference)

    return _chosen(network, precision, device, choose)


def superpoint_dtype(network: SuperPoint, precision: str, device: torch.device) -> torch.dtype:
    """The arithmetic for ``network`` that ``precision`` asks for, or float32 where refused."""

    def run(dtype: torch.dtype) -> Trial:
        return superpoint_trial(SuperPointEngine(network, device, dtype))

    return _chosen(
        network, precision, device, lambda: _choose("SuperPoint", precision, device, run, verdict)
    )


def matching_outcome(engine: MatchesSets, descriptor_dim: int, iterations: int = 100) -> Outcome:
    """Matches of synthetic pairs of 256 keypoints with their probabilities.

    Half of the keypoints recur with increasing descriptor noise, so that all levels of confidence
    occur.
    """
    found: Outcome = {}
    for seed in range(3):
        a, b = (engine.prepare(*made, (640, 480)) for made in _pair(descriptor_dim, seed))
        ((_, assignment),) = engine.match_pairs([a], [b], iterations)
        for row, column, probability in zip(*mutual_matches(assignment), strict=True):
            found[seed, int(row), int(column)] = float(probability)
    return found


def detection_outcome(engine: MapsImages) -> Outcome:
    """Keypoints of a synthetic texture with their probabilities."""
    generator = torch.Generator().manual_seed(0)
    image = torch.zeros(1, 1, 240, 320)
    for size in (3, 6, 12, 24, 48):
        noise = torch.rand(1, 1, 240 // size, 320 // size, generator=generator)
        image += F.interpolate(noise, (240, 320), mode="nearest") / 5
    probability, _ = engine.maps(image)
    ((keypoints, values),) = detect_keypoints(probability, 10_000, 0.005, 4, 4)
    return {tuple(xy): value for xy, value in zip(keypoints.tolist(), values.tolist(), strict=True)}


_verdicts: dict[tuple[str, str, str], torch.dtype] = {}
"""Of this process: a check takes a second, and every rig loads the networks anew."""


def _chosen(
    network: nn.Module, precision: str, device: torch.device, choose: Callable[[], torch.dtype]
) -> torch.dtype:
    """What ``choose`` says, asked once for the same weights."""
    if precision == "float32":
        return torch.float32
    content = hashlib.sha256(repr(network.config).encode())
    for value in network.state_dict().values():
        content.update(value.detach().cpu().contiguous().numpy().tobytes())
    key = (content.hexdigest(), precision, str(device))
    if key not in _verdicts:
        _verdicts[key] = choose()
    return _verdicts[key]


def _choose(
    name: str,
    precision: str,
    device: torch.device,
    run: Callable[[torch.dtype], Any],
    compare: Callable[[Any, Any], str],
) -> torch.dtype:
    candidates = CANDIDATES[precision]
    if precision == "auto" and device.type == "cpu":
        # Elsewhere it is emulated: even trying it takes long. So is float16, on any CPU.
        candidates = (torch.bfloat16,) if _has_bfloat16() else ()
    if not candidates:
        return torch.float32
    try:
        expected, shortest = _timed(run, torch.float32)
    except DataError as error:  # no photographs to judge by
        log.warning("%s stays in float32: %s", name, error)
        return torch.float32
    chosen = torch.float32
    for dtype in candidates:
        try:
            found, seconds = _timed(run, dtype)
        except RuntimeError as error:  # torch lacks an operator in this precision on this device
            reason = str(error).splitlines()[0]
            log.warning("%s in %s cannot run here (%s)", name, short_name(dtype), reason)
            continue
        refused = compare(expected, found)
        if refused:
            log.warning("%s in %s is refused: %s; float32 stays", name, short_name(dtype), refused)
        elif precision != "auto" or seconds < GAIN * shortest:
            chosen, shortest = dtype, seconds
    log.info("%s runs in %s", name, short_name(chosen))
    return chosen


def _has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16: by AMX, or by AVX-512's extension."""
    units = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # not in every torch
    return any(getattr(torch.cpu, unit, bool)() for unit in units)


def difference(expected: Outcome, found: Outcome) -> str:
    """What a lower precision changes, in words; "" if within the tolerance."""
    changed = len(expected.keys() ^ found.keys())
    if changed:
        return f"{changed} of {len(expected)} results change"
    most = max((abs(expected[key] - found[key]) for key in expected), default=0.0)
    return f"probabilities change by {most:.3f}" if most > MAX_SCORE_DIFFERENCE else ""


def _timed(run: Callable[[torch.dtype], Any], dtype: torch.dtype) -> tuple[Any, float]:
    """Result, and the time of a second run: the first fills buffers and caches."""
    run(dtype)
    started = time.perf_counter()
    result = run(dtype)
    return result, time.perf_counter() - started


def _pair(dim: int, seed: int, count: int = 256) -> list[tuple[Tensor, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([639.0, 479.0])
    points = torch.rand(2, count, 2, generator=generator) * size
    scores = torch.rand(2, count, generator=generator)
    descriptors = F.normalize(torch.randn(2, count, dim, generator=generator), dim=2)
    half = count // 2
    noise = torch.linspace(0, 1.5, half)[:, None] * dim**-0.5
    points[1, :half] = points[0, :half] + 8
    points.clamp_(min=torch.zeros(2), max=size)
    recurring = torch.randn(half, dim, generator=generator) * noise + descriptors[0, :half]
    descriptors[1, :half] = F.normalize(recurring, dim=1)
    return [(points[i], scores[i], descriptors[i]) for i in range(2)]


def short_name(dtype: torch.dtype) -> str:
    """The name of ``dtype`` in the setting ``precision``."""
    return str(dtype).removeprefix("torch.")
