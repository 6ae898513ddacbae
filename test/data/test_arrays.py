"""Archives of arrays are read within bounds, and nothing in them is run."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from superglue_ros.data.arrays import load_arrays
from superglue_ros.errors import DataError


def test_paths_matrices_and_none_come_back(tmp_path: Path) -> None:
    paths = np.array(["a/b.jpg", None, "c.jpg"], object)
    matrices = np.empty(2, object)
    matrices[:] = [np.arange(9.0).reshape(3, 3), None]
    plain = np.arange(6, dtype=np.int16).reshape(2, 3, order="F")
    np.savez(tmp_path / "s.npz", paths=paths, matrices=matrices, plain=plain, number=np.float32(3))
    found = load_arrays(tmp_path / "s.npz", objects=True)
    assert found["paths"].tolist() == paths.tolist()
    np.testing.assert_array_equal(found["matrices"][0], matrices[0])
    assert found["matrices"][1] is None
    np.testing.assert_array_equal(found["plain"], plain)
    assert found["number"] == 3


class Malice:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_file_that_wants_to_run_something_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    np.savez(tmp_path / "bad.npz", paths=np.array([Malice(trace)], object))
    with pytest.raises(DataError, match=r"bad\.npz.*it asks for posix\.mkdir"):
        load_arrays(tmp_path / "bad.npz", objects=True)
    assert not trace.exists()
    np.load(tmp_path / "bad.npz", allow_pickle=True)["paths"]
    assert trace.exists()  # the file is as dangerous as it is meant to be


@pytest.mark.parametrize("cut", [0, 10, 100, 400])
def test_damaged_archives_are_refused(tmp_path: Path, cut: int) -> None:
    np.savez(tmp_path / "a.npz", paths=np.array(["x"] * 30, object))
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[:cut])
    with pytest.raises(DataError, match="cannot be read as a NumPy archive"):
        load_arrays(tmp_path / "a.npz", objects=True)


def test_an_object_that_is_no_array_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|O", "fortran_order": False, "shape": (1,)}
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", file.getvalue() + pickle.dumps("text"))
    with pytest.raises(DataError, match="no array"):
        load_arrays(tmp_path / "a.npz", objects=True)
