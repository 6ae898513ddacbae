import logging
import struct

import numpy as np
import pytest

from superglue_ros.errors import DataError
from superglue_ros.synthetic.worlds.archives import GameFiles, games_in
from superglue_ros.synthetic.worlds.bsp import LUMPS
from superglue_ros.synthetic.worlds.world import TEXTURE_SIDE, read_shaders, read_world

from .small_map import (
    CURVE_CENTRE,
    CURVE_RADIUS,
    LIGHT,
    SIZE,
    game_files,
    map_bytes,
    map_lumps,
    picture,
    textured,
    write_game,
)


def world_of(folder, files):
    game = GameFiles([write_game(folder, files)])
    return read_world(game, read_shaders(game), "room")


def test_the_mesh_is_the_map_in_metres(world):
    mesh = world.mesh
    np.testing.assert_allclose(mesh.positions.min(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(mesh.positions.max(axis=0), SIZE, atol=1e-5)
    assert len(world.textures) == 4  # the clip texture is not drawn
    sides = mesh.positions[mesh.triangles[:, 1:]] - mesh.positions[mesh.triangles[:, :1]]
    doubled = np.cross(sides[:, 0], sides[:, 1])
    # Two windings would turn some surfaces inside out: normals of the file agree with the corners.
    flat = mesh.texture[mesh.triangles[:, 0]] != 3
    along = (doubled * mesh.normals[mesh.triangles[:, 0]]).sum(axis=1)
    assert (along[flat] > 0).all()


def test_the_curve_is_round_and_has_its_texture(world):
    curve = world.mesh.positions[world.mesh.texture == 3]
    assert len(curve) == 49
    radii = np.linalg.norm(curve[:, :2] - CURVE_CENTRE, axis=1)
    assert radii.min() == pytest.approx(CURVE_RADIUS, abs=1e-5)
    assert radii.max() < 1.07 * CURVE_RADIUS  # a parabola for a circle
    np.testing.assert_array_equal(world.textures[3], world.textures[0])


def test_textures_have_one_size_and_only_the_fence_has_holes(world):
    assert world.textures.shape == (4, TEXTURE_SIDE, TEXTURE_SIDE, 2)
    assert world.missing == ()
    assert np.abs(world.textures[0, ..., 0].astype(int) - textured(1)).mean() < 3
    np.testing.assert_array_equal(world.textures[1, ..., 0], textured(2))
    assert (world.textures[[0, 1, 3], ..., 1] == 255).all()
    assert (world.textures[2, :, 20, 1] == 255).all()
    assert (world.textures[2, :, -20, 1] == 0).all()


def test_lightmaps_are_in_the_map_or_beside_it_or_missing(world, tmp_path):
    assert world.lights.shape == (1, 128, 128)
    assert (world.lights == LIGHT).all()
    assert (world.mesh.light == 0).all()
    dark = map_bytes(map_lumps(lightmaps=False))
    page = picture(np.full((64, 64), 77, np.uint8), "TGA")
    beside = world_of(
        tmp_path / "a", game_files() | {"maps/room.bsp": dark, "maps/room/lm_0000.tga": page}
    )
    assert beside.lights.shape == (1, 64, 64)
    assert (beside.lights == 77).all()
    none = world_of(tmp_path / "b", game_files() | {"maps/room.bsp": dark})
    assert len(none.lights) == 0
    assert (none.mesh.light == -1).all()
    assert (none.mesh.brightness == 1).all()
    page1 = {"maps/room/lm_0001.tga": page}  # the map refers to page 0
    grey = world_of(tmp_path / "c", game_files() | {"maps/room.bsp": dark} | page1)
    assert (grey.lights == 128).all()


def test_missing_and_damaged_textures_are_grey_and_named(tmp_path, caplog):
    files = game_files()
    del files["textures/CRATE.png"]
    files["textures/wall.jpg"] = b"no picture"
    with caplog.at_level(logging.WARNING):
        world = world_of(tmp_path, files)
    assert world.missing == ("textures/wall", "textures/crate", "textures/curve")
    assert "textures/wall.jpg is no picture that can be read" in caplog.text
    assert (world.textures[[0, 1, 3], ..., 0] == 128).all()
    assert (world.textures[[0, 1, 3], ..., 1] == 255).all()


def test_later_archives_replace_files_of_earlier_ones(tmp_path):
    first = write_game(tmp_path)
    change = {"textures/wall.jpg": picture(np.full((8, 8), 50, np.uint8), "JPEG")}
    second = write_game(tmp_path, change, "pak1.pk3")
    assert games_in([tmp_path]) == {"usr/share/games/small/base": [first, second]}
    game = GameFiles([second, first])
    world = read_world(game, read_shaders(game), "room")
    assert (world.textures[0, ..., 0] == 50).all()
    assert world.textures[1, ..., 0].std() > 20


def test_damaged_archives_maps_and_faces_are_refused(tmp_path):
    broken = tmp_path / "broken.pk3"
    broken.write_bytes(b"PK not at all")
    with pytest.raises(DataError, match=r"broken\.pk3 is no archive of a game"):
        GameFiles([broken])
    with pytest.raises(DataError, match=r"maps/room\.bsp is no IBSP map"):
        world_of(tmp_path / "a", {"maps/room.bsp": b"hello"})
    lumps = map_lumps()
    lumps[LUMPS.index("faces")] = b""
    with pytest.raises(DataError, match=r"maps/room\.bsp shows nothing"):
        world_of(tmp_path / "b", {"maps/room.bsp": map_bytes(lumps)})
    lumps = map_lumps()
    corners = bytearray(lumps[LUMPS.index("mesh_vertices")])
    struct.pack_into("<i", corners, 0, 4)
    lumps[LUMPS.index("mesh_vertices")] = bytes(corners)
    with pytest.raises(DataError, match="a face refers to a vertex that is not there"):
        world_of(tmp_path / "c", {"maps/room.bsp": map_bytes(lumps)})
    lumps = map_lumps()
    faces = bytearray(lumps[LUMPS.index("faces")])
    struct.pack_into("<2i", faces, len(faces) - 8, 5, 3)
    lumps[LUMPS.index("faces")] = bytes(faces)
    with pytest.raises(DataError, match="a patch has not the points that it needs"):
        world_of(tmp_path / "d", {"maps/room.bsp": map_bytes(lumps)})
