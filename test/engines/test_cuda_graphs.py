"""CUDA graphs on a GPU: recorded, replayed, and given up where they do not work.

``test_graphed.py`` compares the functions themselves on the CPU.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from superglue_ros.config import Config, FrontEndConfig, MatcherConfig
from superglue_ros.data.image import to_grey
from superglue_ros.engines import graphed
from superglue_ros.engines.graphs import FixedFunction, GraphError, Transfers
from superglue_ros.rig import Rig
from superglue_ros.synthetic.demo_room import RoomSequence

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]
CUDA = torch.device("cuda")


def test_a_replay_uses_what_the_inputs_hold_now():
    x = torch.ones(4, device=CUDA)
    function = FixedFunction(lambda x: (x + 1, (2 * x).sum()), [x])
    x.fill_(3)
    more, total = function()
    assert more.tolist() == [4, 4, 4, 4]
    assert total.item() == 24


@pytest.mark.parametrize("bad", [lambda x: (x[x > 0],), lambda x: (x * float(x.sum()),)])
def test_a_function_that_waits_is_refused_and_the_device_still_works(bad):
    with pytest.raises(GraphError):
        FixedFunction(bad, [torch.ones(4, device=CUDA)])
    assert torch.ones(3, device=CUDA).sum().item() == 3


def test_a_replay_that_differs_is_refused():
    calls = []

    def other_every_time(x):
        calls.append(x)
        return (x + len(calls),)

    with pytest.raises(GraphError, match="differs"):
        FixedFunction(other_every_time, [torch.ones(4, device=CUDA)])


def test_transfers_in_a_row_do_not_overwrite_each_other():
    transfers = Transfers(CUDA)
    sets = [np.full(1 << 20, k, np.float32) for k in range(4)]
    tensors = [torch.empty(1 << 20, device=CUDA) for _ in sets]
    for values, tensor in zip(sets, tensors, strict=True):
        transfers.upload(values, tensor)
    for values, found in zip(sets, transfers.download(*tensors), strict=True):
        assert (values == found).all()


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    room = RoomSequence()
    return [to_grey(room[3 * i].image) for i in range(9)]


def matches_of(config: Config, images: list[np.ndarray]) -> tuple[Rig, list]:
    """Features of the first frame, and its matches with one, three and eight others."""
    rig = Rig(config)
    for _ in range(2):  # a size that comes again is recorded
        features = [rig.front_end.extract(image) for image in images]
    prepared = [rig.matcher.prepare(one) for one in features]
    found = []
    for count in (1, 3, 8):
        found += rig.matcher.match_pairs(prepared[1 : count + 1], [prepared[0]] * count)
    return rig, [features[0], *found]


def share_in_common(one, other) -> float:
    a, b = ({*zip(m.index_ref.tolist(), m.index_query.tolist(), strict=True)} for m in (one, other))
    return len(a & b) / max(len(a | b), 1)


@pytest.mark.parametrize("precision", ["float32", "tfloat32", "bfloat16", "float16"])
@pytest.mark.parametrize("most", [512, 1000])
def test_graphs_give_what_the_eager_way_gives(images, precision, most):
    config = Config(
        device="cuda", precision=precision, front_end=FrontEndConfig(max_keypoints=most)
    )
    rig, found = matches_of(config, images)
    _, expected = matches_of(replace(config, backend="eager"), images)
    assert rig.device == "cuda (CUDA graphs: front-end, matcher)"
    assert len(found[0]) == len(expected[0])
    exact = rig.precision == "float32"
    apart = np.abs(found[0].keypoints[:, None] - expected[0].keypoints[None]).max(axis=2)
    assert (apart.min(axis=1) < (0.1 if exact else 1.5)).mean() > (0.99 if exact else 0.9)
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert len(one) > 50
        assert share_in_common(one, other) > (0.99 if exact else 0.9)


def test_the_matches_of_the_gpu_are_those_of_the_cpu(images):
    config = Config(
        device="cuda",
        precision="float32",
        front_end=FrontEndConfig(max_keypoints=512),
        matcher=MatcherConfig(weights="small"),
    )
    _, found = matches_of(config, images)
    _, expected = matches_of(replace(config, device="cpu"), images)
    pairs = zip(found[1:], expected[1:], strict=True)
    near = [len(one) / max(len(other), 1) for one, other in pairs]
    assert min(near) > 0.98
    assert max(near) < 1.02


def test_where_recording_fails_matching_goes_on_and_says_so(images, monkeypatch, caplog):
    def refuse(*arguments):
        raise GraphError("not today")

    monkeypatch.setattr(graphed, "FixedFunction", refuse)
    with caplog.at_level(logging.WARNING):
        rig, found = matches_of(Config(device="cuda", precision="float32"), images)
    assert "SuperGlue runs without CUDA graphs: not today" in caplog.text
    assert rig.device == "cuda (CUDA graphs: front-end)"
    assert len(found[1]) > 50
