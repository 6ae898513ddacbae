"""Lower precisions behind a check by the task: one that loses matches is refused.

bfloat16 and float16 are several times as fast as float32 where the processor has units for them,
and slower elsewhere, so on a CPU ``auto`` measures. On a GPU, where the views are too small to
tell, it takes the first that passes. A network in low precision may silently lose matches, so it is
first compared with float32 on photographs with known truth (``trial.py``).
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from superglue_ros.engines.mutual import Partners
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


class Arithmetic(NamedTuple):
    """Of a network's products: the type of their factors, and whether float32 may be TF32."""

    dtype: torch.dtype = torch.float32
    tf32: bool = False


FLOAT32, TF32 = Arithmetic(), Arithmetic(tf32=True)
CANDIDATES = {
    "tfloat32": (TF32,),
    "bfloat16": (Arithmetic(torch.bfloat16),),
    "float16": (Arithmetic(torch.float16),),
    "auto": (Arithmetic(torch.bfloat16), Arithmetic(torch.float16), TF32),
}
MAX_SCORE_DIFFERENCE = 0.01
"""Largest change of a match's probability that counts as none."""

GAIN = 0.9
"""On a CPU ``auto`` takes a lower precision if it needs less than this part of the time."""

Outcome = dict[Hashable, float]


class MatchesSets(Protocol):
    """An engine of SuperGlue in any runtime; ``dtype`` and ``tf32`` are its :class:`Arithmetic`."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the products and the attention."""

    @property
    def tf32(self) -> bool:
        """Whether float32 is TF32."""

    def prepare(
        self, keypoints: Tensor, scores: Tensor, descriptors: Tensor, size: tuple[int, int]
    ) -> Any:
        """As :meth:`SuperGlueEngine.prepare`; the result has a length."""

    def match_pairs(
        self, references: Sequence[Any], queries: Sequence[Any], iterations: int = 100
    ) -> Iterator[tuple[int, Tensor]]:
        """As :meth:`SuperGlueEngine.match_pairs`."""
        ...

    def partners(
        self, references: Sequence[Any], queries: Sequence[Any], iterations: int
    ) -> Iterator[tuple[int, Partners]]:
        """As :meth:`MutualMatches.partners`."""
        ...


class MapsImages(Protocol):
    """An engine of SuperPoint in any runtime; ``dtype`` and ``tf32`` as of SuperGlue's."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the convolutions."""

    @property
    def tf32(self) -> bool:
        """Whether float32 is TF32."""

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`SuperPointEngine.maps`."""
        ...


def superglue_arithmetic(
    network: SuperGlue, precision: str, device: torch.device, kind: str = ""
) -> Arithmetic:
    """The arithmetic for ``network`` that ``precision`` asks for, or float32 where refused.

    ``kind``: that of its descriptors. A network for other features than the package's is compared
    on made-up sets, where nothing may change.
    """

    def made_up(arithmetic: Arithmetic) -> Outcome:
        engine = torch_engine(network, device, *arithmetic)
        return matching_outcome(engine, network.config.descriptor_dim)

    def photographs(arithmetic: Arithmetic) -> Trial:
        return superglue_trial(torch_engine(network, device, *arithmetic))

    def choose() -> Arithmetic:
        if kind == packaged_kind():
            return _choose("SuperGlue", precision, device, photographs, verdict)
        return _choose("SuperGlue", precision, device, made_up, difference)

    return _chosen(network, precision, device, choose)


def superpoint_arithmetic(network: SuperPoint, precision: str, device: torch.device) -> Arithmetic:
    """The arithmetic for ``network`` that ``precision`` asks for, or float32 where refused."""

    def run(arithmetic: Arithmetic) -> Trial:
        return superpoint_trial(SuperPointEngine(network, device, *arithmetic))

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
        a, b = (engine.prepare(*made, (640, 480)) for made in made_up_pair(descriptor_dim, seed))
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


_verdicts: dict[tuple[str, str, str], Arithmetic] = {}
"""Of this process: a check takes a second, and every rig loads the networks anew."""


def _chosen(
    network: nn.Module, precision: str, device: torch.device, choose: Callable[[], Arithmetic]
) -> Arithmetic:
    """What ``choose`` says, asked once for the same weights."""
    if precision == "float32":
        return FLOAT32
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
    run: Callable[[Arithmetic], Any],
    compare: Callable[[Any, Any], str],
) -> Arithmetic:
    candidates = CANDIDATES[precision]
    if device.type == "cpu":
        candidates = tuple(one for one in candidates if not one.tf32)  # CPUs do not have it
    if precision == "auto" and not _has_bfloat16(device):
        # It would be emulated: even trying it takes long. So is float16, on any CPU.
        candidates = tuple(one for one in candidates if one.dtype != torch.bfloat16)
    if precision == "auto" and device.type == "cpu":
        candidates = tuple(one for one in candidates if one.dtype != torch.float16)
    if not candidates:
        return FLOAT32
    try:
        expected, shortest = _timed(run, FLOAT32)
    except DataError as error:  # no photographs to judge by
        log.warning("%s stays in float32: %s", name, error)
        return FLOAT32
    chosen = FLOAT32
    for candidate in candidates:
        try:
            found, seconds = _timed(run, candidate)
        except RuntimeError as error:  # torch lacks an operator in this precision on this device
            reason = str(error).splitlines()[0]
            log.warning("%s in %s cannot run here (%s)", name, short_name(candidate), reason)
            continue
        refused = compare(expected, found)
        if refused:
            log.warning(
                "%s in %s is refused: %s; float32 stays", name, short_name(candidate), refused
            )
        elif precision != "auto" or seconds < GAIN * shortest:
            chosen, shortest = candidate, seconds
    log.info("%s runs in %s", name, short_name(chosen))
    return chosen


def _has_bfloat16(device: torch.device) -> bool:
    """Whether the processor multiplies in bfloat16: a CPU by AMX, or by AVX-512's extension."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    units = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # not in every torch
    return any(getattr(torch.cpu, unit, bool)() for unit in units)


def difference(expected: Outcome, found: Outcome) -> str:
    """What a lower precision changes, in words; "" if within the tolerance."""
    changed = len(expected.keys() ^ found.keys())
    if changed:
        return f"{changed} of {len(expected)} results change"
    most = max((abs(expected[key] - found[key]) for key in expected), default=0.0)
    return f"probabilities change by {most:.3f}" if most > MAX_SCORE_DIFFERENCE else ""


def _timed(run: Callable[[Arithmetic], Any], arithmetic: Arithmetic) -> tuple[Any, float]:
    """Result, and the time of a second run: the first fills buffers and caches."""
    run(arithmetic)
    started = time.perf_counter()
    result = run(arithmetic)
    return result, time.perf_counter() - started


def made_up_pair(dim: int, seed: int, count: int = 256) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Keypoints (count, 2), scores and descriptors (count, dim) of both images; half recurs."""
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


def short_name(of: Any) -> str:
    """The name of an :class:`Arithmetic`, or an engine's, in the setting ``precision``."""
    return "tfloat32" if of.tf32 else str(of.dtype).removeprefix("torch.")
