"""Peak memory of one pair, in a separate process: ``python -m superglue_ros.bench.memory N WHO``.

Prints the peak resident memory in MiB, including the interpreter and torch. ``WHO`` is ``ours``,
``transformers`` or ``none`` (the process without matching).
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

from superglue_ros.bench.inputs import full_superglue
from superglue_ros.bench.peers import TransformersSuperGlue
from superglue_ros.config import MatcherConfig
from superglue_ros.engines.superglue import SuperGlueEngine
from superglue_ros.matchers.base import match_pair
from superglue_ros.matchers.superglue import SuperGlueMatcher
from superglue_ros.types import Features


def random_features(count: int, seed: int) -> Features:
    """Random features: memory does not depend on their values."""
    generator = torch.Generator().manual_seed(seed)
    keypoints = torch.rand(count, 2, generator=generator) * torch.tensor([639.0, 479.0])
    descriptors = torch.randn(count, 256, generator=generator)
    scores = torch.rand(count, generator=generator)
    descriptors = torch.nn.functional.normalize(descriptors, dim=1)
    return Features(
        keypoints=keypoints.numpy(),
        scores=scores.numpy(),
        width=640,
        height=480,
        detector="random",
        descriptors=descriptors.numpy(),
    )


def main(count: int, implementation: str) -> None:
    """Match one pair and print the peak."""
    network = full_superglue()
    reference, query = random_features(count, 0), random_features(count, 1)
    if implementation == "transformers":
        TransformersSuperGlue(network).match(reference, query)
    elif implementation == "ours":
        engine = SuperGlueEngine(network, torch.device("cpu"))
        matcher = SuperGlueMatcher(engine, "random", 256, MatcherConfig())
        match_pair(matcher, reference, query)
    elif implementation != "none":
        raise SystemExit(f"unknown implementation {implementation}: ours, transformers or none")
    print(f"{peak_mib():.0f}")


def peak_mib() -> float:
    """Peak resident memory of this process in MiB.

    On Linux ``ru_maxrss`` includes the parent's memory at the fork; ``VmHWM`` does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
