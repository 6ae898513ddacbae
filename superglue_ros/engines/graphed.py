"""SuperGlue as CUDA graphs: a few fixed sizes of sets and of batches, recorded in advance.

A frame costs one replay for its encoding and one for all of its keyframes. What fits no graph, and
every frame where graphs do not work, goes through :class:`SuperGlueEngine`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from superglue_ros.engines.graphs import FixedFunction, GraphError, Transfers
from superglue_ros.engines.mutual import Partners
from superglue_ros.engines.padded import OPTIONS, PaddedSuperGlue, sizes_up_to
from superglue_ros.engines.precision import made_up_pair
from superglue_ros.engines.superglue import SuperGlueEngine
from superglue_ros.networks.superglue import SuperGlue

log = logging.getLogger(__name__)

BATCHES = (1, 2, 4, 8)
"""Pairs that are matched together; between them, a batch is filled up with copies of a pair."""


MOST_SCORES = 2**25
"""Scores of a batch that is recorded: 8 pairs of 2048 keypoints; its matrices take 128 MiB each."""


def can_be_graphed(network: SuperGlue) -> bool:
    """Whether the network has only options that ask nothing of values."""
    return set(network.config.options()) <= set(OPTIONS)


class GraphedSuperGlueEngine(SuperGlueEngine):
    """:class:`SuperGlueEngine` on fixed shapes, for sets of up to ``max_keypoints``.

    On a GPU every shape is one CUDA graph, recorded when the engine is made; elsewhere the same
    functions run without. Where recording fails, or the results are not those of
    :class:`SuperGlueEngine`, a warning says so, ``graphed`` is False and everything runs as there.
    """

    def __init__(
        self,
        network: SuperGlue,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        tf32: bool = False,
        max_keypoints: int = 1024,
        iterations: int = 100,
    ) -> None:
        super().__init__(network, device, dtype, tf32)
        self.sizes = tuple(size for size in sizes_up_to(max_keypoints) if _batches(size))
        self.graphed = True
        self._padded = PaddedSuperGlue(self)
        self._transfers = Transfers(device)
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._encode: dict[int, FixedFunction] = {}
        self._match: dict[tuple[int, int, bool], FixedFunction] = {}
        self._iterations = 0
        self._record(iterations)
        if self.graphed and device.type == "cuda":
            self._check(iterations)

    @torch.inference_mode()
    def prepare(
        self, keypoints: Tensor, scores: Tensor, descriptors: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """See :meth:`SuperGlueEngine.prepare`."""
        count = len(keypoints)
        function = self._encode.get(self._size(count)) if self.graphed and count else None
        if function is None:
            return super().prepare(keypoints, scores, descriptors, size)
        for values, buffer in zip((keypoints, scores, descriptors), function.inputs, strict=False):
            self._transfers.upload(values, buffer[:count])
        self._transfers.upload(np.array([size], np.float32), function.inputs[3])
        self._transfers.upload(np.array([[count]], np.int64), function.inputs[4])
        return function()[0][:count].clone()

    @torch.inference_mode()
    def match_pairs(
        self, references: Sequence[Tensor], queries: Sequence[Tensor], iterations: int = 100
    ) -> Iterator[tuple[int, Tensor]]:
        """See :meth:`SuperGlueEngine.match_pairs`."""
        small, rest = self._split(references, queries, iterations)
        for portion in small:
            (found, *_), size = self._run(portion, references, queries)
            for row, k in enumerate(portion):
                rows, columns = len(references[k]), len(queries[k])
                one = torch.cat([found[row, :rows], found[row, size:]])
                yield k, torch.cat([one[:, :columns], one[:, size:]], dim=1)[None]
        if rest:
            plain = super().match_pairs(
                [references[k] for k in rest], [queries[k] for k in rest], iterations
            )
            yield from ((rest[i], found) for i, found in plain)

    @torch.inference_mode()
    def partners(
        self, references: Sequence[Tensor], queries: Sequence[Tensor], iterations: int
    ) -> Iterator[tuple[int, Partners]]:
        """See :meth:`MutualMatches.partners`; one download for a batch."""
        small, rest = self._split(references, queries, iterations)
        for portion in small:
            (_, *partners), _ = self._run(portion, references, queries)
            arrays = self._transfers.download(*partners)
            for k, index, probability in zip(portion, *arrays, strict=False):
                count = len(references[k])
                yield k, (index[:count], probability[:count])
        if rest:
            for i, found in super().partners(
                [references[k] for k in rest], [queries[k] for k in rest], iterations
            ):
                yield rest[i], found

    def _split(
        self, references: Sequence[Tensor], queries: Sequence[Tensor], iterations: int
    ) -> tuple[list[list[int]], list[int]]:
        """Pairs in portions that one graph matches, and those that fit none."""
        if iterations != self._iterations and self.graphed:
            self._record(iterations)
        lengths = [max(len(a), len(b)) for a, b in zip(references, queries, strict=True)]
        if not self.graphed:
            return [], [*range(len(lengths))]
        # By size, the largest first: a portion is as large as its largest set.
        fitting = [k for k, length in enumerate(lengths) if self._size(length)]
        fitting.sort(key=lengths.__getitem__, reverse=True)
        portions = []
        while fitting:
            most = _batches(self._size(lengths[fitting[0]]))[-1]
            portions.append(fitting[:most])
            fitting = fitting[most:]
        return portions, [k for k, length in enumerate(lengths) if not self._size(length)]

    @property
    def exact(self) -> bool:
        """Whether all arithmetic is float32."""
        return self.dtype == torch.float32 and not self.tf32

    def _size(self, count: int) -> int:
        """The size that ``count`` keypoints are padded to, 0 if they are too many."""
        return next((size for size in self.sizes if size >= count), 0)

    def _run(
        self,
        portion: Sequence[int],
        references: Sequence[Tensor],
        queries: Sequence[Tensor],
    ) -> tuple[tuple[Tensor, ...], int]:
        """The outputs of :meth:`PaddedSuperGlue.match`, and the size of the sets."""
        pairs = next(count for count in BATCHES if count >= len(portion))
        filled = [*portion, *[portion[0]] * (pairs - len(portion))]
        counts = np.array([[len(sets[k]) for k in filled] for sets in (references, queries)])
        size = self._size(int(counts.max()))
        full = bool((counts == size).all()) and size == self.sizes[-1]
        function = self._match[pairs, size, full]
        for side, sets in enumerate((references, queries)):
            for row, k in enumerate(filled):
                function.inputs[0][side, row, : len(sets[k])] = sets[k]
        if not full:
            self._transfers.upload(counts, function.inputs[1])
        return function(), size

    def _record(self, iterations: int) -> None:
        """All graphs, the largest first: the others find room in its memory."""
        started = time.monotonic()
        self._match.clear()
        try:
            for size in reversed(self.sizes):
                for pairs in reversed(_batches(size)):
                    for full in (False, True) if size == self.sizes[-1] else (False,):
                        function = self._matching(pairs, size, full, iterations)
                        self._match[pairs, size, full] = function
            if not self._encode:
                self._encode = {size: self._encoding(size) for size in self.sizes}
        except GraphError as error:
            self._give_up(str(error))
            return
        self._iterations = iterations
        if self.device.type == "cuda":
            log.info("SuperGlue: CUDA graphs recorded in %.1f s", time.monotonic() - started)

    def _check(self, iterations: int) -> None:
        """Compare with the plain engine on made-up sets of every size, alone and as a batch."""
        for size in self.sizes:
            for count in {size, max(1, size - 1)}:
                self.graphed = False
                expected = self._outcome(count, iterations)
                self.graphed = True
                changed = _changed(expected, self._outcome(count, iterations), self.exact)
                if changed:
                    self._give_up(f"with {count} keypoints {changed}")
                    return

    def _outcome(self, count: int, iterations: int) -> list[Partners]:
        """Partners of one pair, then of three pairs together."""
        made = [made_up_pair(self.config.descriptor_dim, seed, count) for seed in range(3)]
        sets = [[self.prepare(*one, (640, 480)) for one in pair] for pair in made]
        found: list[Partners] = []
        for pairs in (sets[:1], sets):
            partners = self.partners([p[0] for p in pairs], [p[1] for p in pairs], iterations)
            found += [values for _, values in sorted(partners, key=lambda entry: entry[0])]
        return found

    def _give_up(self, reason: str) -> None:
        log.warning("SuperGlue runs without CUDA graphs: %s", reason)
        self.graphed = False
        self._match.clear()
        self._encode.clear()

    def _encoding(self, size: int) -> FixedFunction:
        width = self.config.descriptor_dim
        inputs = [self._noise(size, 2), self._noise(size), self._noise(size, width)]
        inputs.append(torch.full((1, 2), 640.0, device=self.device))
        inputs.append(torch.full((1, 1), size, device=self.device))

        def run(*arguments: Tensor) -> tuple[Tensor, ...]:
            return (self._padded.prepare(*arguments),)

        return FixedFunction(run, inputs, self._pool, self.exact)

    def _matching(self, pairs: int, size: int, full: bool, iterations: int) -> FixedFunction:
        inputs = [self._noise(2, pairs, size, self.width)]
        if full:
            run = partial(self._padded.match, counts=None, iterations=iterations)
        else:
            inputs.append(torch.full((2, pairs), size - 1, device=self.device))
            run = partial(self._padded.match, iterations=iterations)
        return FixedFunction(run, inputs, self._pool, self.exact)

    def _noise(self, *shape: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(shape, generator=generator).to(self.device)


def _batches(size: int) -> list[int]:
    """The numbers of pairs that are matched together, of sets of ``size`` keypoints."""
    return [pairs for pairs in BATCHES if pairs * size**2 <= MOST_SCORES]


def _changed(expected: list[Partners], found: list[Partners], exact: bool) -> str:
    """What is not as expected, in words; "" if nothing beyond rounding."""
    share, most = (0.995, 0.01) if exact else (0.97, 0.1)
    for (index, probability), (other, theirs) in zip(expected, found, strict=True):
        same = index == other
        if same.mean() < share:
            return f"{int((~same).sum())} of {len(index)} partners change"
        difference = float(np.abs(probability - theirs)[same].max(initial=0.0))
        if not difference <= most:
            return f"probabilities change by {difference:.3f}"
    return ""
