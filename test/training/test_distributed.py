"""Two processes by torchrun train as one."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from superglue_ros.errors import ConfigError
from superglue_ros.training.distributed import (
    Group,
    average_gradients,
    join_group,
    training_device,
)


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join_group(torch.device("cpu")) == Group(0, 1)
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    average_gradients([parameter], Group())
    assert parameter.grad.tolist() == [1, 2]


def test_a_process_without_a_gpu_of_its_own_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert training_device("auto") == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ConfigError, match=r"process 2 has no GPU of its own, there are 1"):
        training_device("auto")
    assert training_device("cpu") == torch.device("cpu")


@pytest.mark.slow
def test_two_processes_finish_one_run(cache, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    values = {
        "output": str(tmp_path / "run"),
        "network": {"descriptor_dim": 16, "width": 16, "layers": 1, "keypoint_encoder": [8]},
        "stages": [{"name": "only", "steps": 4, "caches": {str(cache): 1.0}}],
        "sinkhorn_iterations": 5,
        "loop": {"report_every": 1, "precision": "float32", "device": "cpu"},
    }
    recipe.write_text(yaml.safe_dump(values))
    root = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONFAULTHANDLER": "1",  # a process that aborts says where
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
    }
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "superglue_ros.cli", "train", "superglue", str(recipe),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=170)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "log.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]
    assert (tmp_path / "run" / "last.ckpt").exists()
