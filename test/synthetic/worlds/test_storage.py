from dataclasses import fields, replace

import numpy as np
import pytest

from superglue_ros.errors import DataError
from superglue_ros.synthetic.worlds.storage import (
    load_texture,
    load_world,
    opaque_textures,
    write_world,
)


def test_a_stored_world_is_the_world(world, tmp_path):
    path = tmp_path / "room.npz"
    write_world(replace(world, missing=("textures/none",)), path)
    again = load_world(path)
    for part in ("mesh", "space"):
        for item in fields(type(getattr(world, part))):
            before, after = (getattr(getattr(w, part), item.name) for w in (world, again))
            assert after.dtype == before.dtype, item.name
            np.testing.assert_allclose(after, before, atol=6e-4, err_msg=item.name)
    np.testing.assert_array_equal(again.textures[..., 1] < 128, world.textures[..., 1] < 128)
    assert np.abs(again.textures[..., 0].astype(int) - world.textures[..., 0]).mean() < 4
    assert (np.abs(again.lights.astype(int) - world.lights) < 3).all()
    assert again.missing == ("textures/none",)


def test_a_texture_of_two_worlds_is_kept_once(world, tmp_path):
    for name in ("a", "b"):
        write_world(world, tmp_path / f"{name}.npz")
    assert len(list((tmp_path / "textures").glob("*.jpg"))) == 3  # two of four are the same
    assert len(opaque_textures(tmp_path)) == 2  # not the fence
    assert all((load_texture(path)[..., 1] == 255).all() for path in opaque_textures(tmp_path))


def test_damaged_and_missing_files_are_refused(world, tmp_path):
    path = tmp_path / "room.npz"
    write_world(world, path)
    content = path.read_bytes()
    for damaged in (b"", b"no world", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"room\.npz is no world that can be read"):
            load_world(path)
    path.write_bytes(content)
    texture = opaque_textures(tmp_path)[0]
    texture.write_bytes(b"")
    with pytest.raises(DataError, match="has a picture that cannot be read"):
        load_world(path)
    texture.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        load_world(path)
