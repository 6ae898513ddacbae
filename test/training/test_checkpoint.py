import os
import resource

import pytest
import torch

from superglue_ros.errors import DataError, WeightsError
from superglue_ros.training.checkpoint import load_checkpoint, save_checkpoint, write_atomically

ARCHITECTURE = {"width": 8, "layers": 1}


def test_what_is_saved_is_read(tmp_path):
    path = tmp_path / "run" / "last.ckpt"
    save_checkpoint(path, {"architecture": ARCHITECTURE, "w": torch.arange(3)})
    assert load_checkpoint(path, ARCHITECTURE)["w"].tolist() == [0, 1, 2]
    assert os.listdir(path.parent) == ["last.ckpt"]


@pytest.fixture
def full_disk():
    """No file may grow beyond 4 KiB: the kernel refuses to write as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, full_disk):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"architecture": ARCHITECTURE, "step": 1})
    with pytest.raises(DataError, match=r"last\.ckpt cannot be written \(File too large"):
        save_checkpoint(path, {"architecture": ARCHITECTURE, "w": torch.ones(5000)})
    assert load_checkpoint(path, ARCHITECTURE)["step"] == 1
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written"):
        write_atomically(tmp_path / "file" / "x.ckpt", b"data")


def test_another_architecture_is_refused_with_what_differs(tmp_path):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"architecture": ARCHITECTURE})
    with pytest.raises(WeightsError, match=r"width is 8, the recipe says 16"):
        load_checkpoint(path, {"width": 16, "layers": 1})


def test_an_option_that_came_later_is_off_in_an_older_checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"architecture": ARCHITECTURE, "step": 3})
    assert load_checkpoint(path, {**ARCHITECTURE, "context": 0.0})["step"] == 3
    with pytest.raises(WeightsError, match=r"\(context is 0.0, the recipe says 0.5\)"):
        load_checkpoint(path, {**ARCHITECTURE, "context": 0.5})
    with pytest.raises(WeightsError, match=r"\(layers is 1, the recipe says None\)"):
        load_checkpoint(path, {"width": 8})


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match=r"cannot be read"):
        load_checkpoint(path, ARCHITECTURE)
    torch.save({"weights": torch.ones(1)}, path)
    with pytest.raises(WeightsError, match=r"no checkpoint of this trainer"):
        load_checkpoint(path, ARCHITECTURE)
