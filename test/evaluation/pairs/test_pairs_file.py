from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from superglue_ros.errors import DataError
from superglue_ros.evaluation.pairs.pairs_file import (
    PosePair,
    read_pairs,
    upright_intrinsics,
    upright_pose,
    write_pairs,
)

INTRINSICS = np.array([[300.0, 0, 162.0], [0, 290.0, 117.0], [0, 0, 1]])


def a_pair(**changes) -> PosePair:
    transform = np.eye(4)
    transform[:3, :3] = Rotation.from_euler("y", 10, degrees=True).as_matrix()
    transform[:3, 3] = [1, 2, 3]
    values = {
        "name0": "x/0.jpg", "name1": "x/1.jpg", "rot0": 0, "rot1": 3,
        "intrinsics0": INTRINSICS, "intrinsics1": INTRINSICS, "transform": transform,
    }  # fmt: skip
    return PosePair(**{**values, **changes})


def test_what_is_written_is_read(tmp_path):
    file = tmp_path / "pairs.txt"
    write_pairs(file, [a_pair(), a_pair(name0="y.png")])
    file.write_text("# comment\n\n" + file.read_text())
    first, second = read_pairs(file)
    assert (first.name0, first.name1, first.rot0, first.rot1) == ("x/0.jpg", "x/1.jpg", 0, 3)
    assert second.name0 == "y.png"
    np.testing.assert_allclose(first.transform, a_pair().transform, atol=1e-8)
    np.testing.assert_allclose(first.intrinsics1, INTRINSICS)
    with pytest.raises(DataError, match="spaces"):
        write_pairs(file, [a_pair(name0="a b.png")])


def line(replace: dict[int, str], cut: int = 38) -> str:
    pair = a_pair()
    numbers = [*pair.intrinsics0.ravel(), *pair.intrinsics1.ravel(), *pair.transform.ravel()]
    fields = ["a.jpg", "b.jpg", "0", "0", *(repr(float(v)) for v in numbers)]
    for index, value in replace.items():
        fields[index] = value
    return " ".join(fields[:cut])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (line({}, cut=37), "37 fields"),
        (line({5: "zero"}), "zero"),
        (line({2: "4"}), "0, 1, 2 or 3"),
        (line({25: "nan"}), "not finite"),
        (line({25: "inf"}), "not finite"),
        (line({4: "-300"}), "K0"),
        (line({22: "5"}), "rigid"),
    ],
)
def test_malformed_lines_name_file_and_line(tmp_path, bad, reason):
    file = tmp_path / "pairs.txt"
    file.write_text(f"{line({})}\n# fine so far\n{bad}\n")
    with pytest.raises(DataError, match=reason) as caught:
        read_pairs(file)
    assert f"{file}, line 3" in str(caught.value)


def test_empty_and_missing_files_are_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="no pairs"):
        read_pairs(tmp_path / "empty.txt")
    with pytest.raises(DataError, match="cannot be read"):
        read_pairs(tmp_path / "none.txt")


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_turned_cameras_see_points_where_the_turned_image_has_them(turns):
    width, height = 320, 240
    marked = np.zeros((height, width))
    point = np.array([0.2, -0.15, 2.0])
    x, y, w = INTRINSICS @ point
    x, y = round(x / w), round(y / w)
    marked[y, x] = 1
    turned = np.rot90(marked, turns)
    row, column = (int(v[0]) for v in np.nonzero(turned))
    size = (turned.shape[1], turned.shape[0])
    k = upright_intrinsics(INTRINSICS, size, turns)
    # The same world point in the turned camera: its own pose relative to the stored camera.
    to_turned = upright_pose(np.eye(4), 0, turns)
    seen = k @ (to_turned[:3, :3] @ point)
    np.testing.assert_allclose(seen[:2] / seen[2], [column, row], atol=0.51)
    assert np.linalg.det(to_turned[:3, :3]) == pytest.approx(1)


def test_turning_both_images_keeps_the_angle_between_the_cameras():
    transform = a_pair().transform
    turned = upright_pose(transform, 1, 3)
    assert np.linalg.norm(turned[:3, 3]) == pytest.approx(np.linalg.norm(transform[:3, 3]))
    np.testing.assert_allclose(upright_pose(upright_pose(transform, 1, 3), 3, 1), transform)
