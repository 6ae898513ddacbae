"""Which number format training takes."""

import pytest
import torch

from superglue_ros.errors import ConfigError
from superglue_ros.training import precision


@pytest.mark.parametrize(
    ("supported", "expected"), [(True, torch.bfloat16), (False, torch.float32)]
)
def test_a_gpu_trains_in_bfloat16_where_it_has_units_for_it(monkeypatch, supported, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    precision.fastest_dtype.cache_clear()
    assert precision.resolve_dtype("auto", torch.device("cuda", 0)) == expected
    precision.fastest_dtype.cache_clear()


def test_a_format_by_name_is_taken_as_it_is():
    cpu = torch.device("cpu")
    assert precision.resolve_dtype("float32", cpu) == torch.float32
    assert precision.resolve_dtype("bfloat16", cpu) == torch.bfloat16
    with pytest.raises(ConfigError, match=r"precision 'half' is unknown"):
        precision.resolve_dtype("half", cpu)
