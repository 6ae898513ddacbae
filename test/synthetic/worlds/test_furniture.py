"""Furniture has the size of its catalogue, stands on floors, and is drawn where it stands."""

import builtins
import logging
from dataclasses import fields, replace

import numpy as np
import pytest

from superglue_ros.errors import DataError
from superglue_ros.synthetic.rooms import look_at
from superglue_ros.synthetic.worlds.furniture import Piece, furnish, read_catalogue, read_pieces
from superglue_ros.synthetic.worlds.renderer import Light
from superglue_ros.synthetic.worlds.storage import load_piece, write_piece
from superglue_ros.synthetic.worlds.world import Mesh

from .small_library import LICENCE, SIZE_CM, write_library
from .small_map import BOX, SIZE

METRES = np.array(SIZE_CM) / 100
MATRIX = np.array([[400.0, 0, 319.5], [0, 400, 239.5], [0, 0, 1]])


@pytest.fixture(scope="module")
def crate(tmp_path_factory) -> Piece:
    library = write_library(tmp_path_factory.mktemp("library"))
    (piece,) = read_pieces(library, read_catalogue(library)[1])
    return piece


def test_what_stands_on_a_floor_is_taken_from_the_catalogue(tmp_path, caplog):
    library = write_library(tmp_path)
    licence, listed = read_catalogue(library)
    assert licence == LICENCE
    assert [piece.name for piece in listed] == ["Crate", "Torn"]
    with caplog.at_level(logging.WARNING):
        assert [piece.name for piece in read_pieces(library, listed)] == ["Crate"]
    assert "lib/torn/torn.obj of small.sh3f is left out" in caplog.text


def test_a_piece_stands_upright_over_the_origin_in_its_size(crate):
    np.testing.assert_allclose(crate.size, METRES, atol=1e-6)
    low = crate.mesh.positions.min(axis=0)
    np.testing.assert_allclose(low, [-METRES[0] / 2, -METRES[1] / 2, 0], atol=1e-6)
    assert len(crate.mesh.triangles) == 12
    assert crate.textures.shape == (2, 256, 256, 2)
    assert (crate.textures[..., 1] == 255).all()
    assert round(0.4 * 255) in np.unique(crate.textures[..., 0])
    # The picture's front is towards -y, its bright half up.
    pictured = int(np.argmax(crate.textures[..., 0].reshape(2, -1).max(axis=1)))
    of_front = crate.mesh.texture == pictured
    np.testing.assert_allclose(crate.mesh.positions[of_front, 1], -METRES[1] / 2, atol=1e-6)
    np.testing.assert_allclose(crate.mesh.normals[of_front], [[0, -1, 0]] * 4, atol=1e-6)
    high = crate.mesh.positions[of_front, 2] > METRES[2] / 2
    np.testing.assert_allclose(crate.mesh.texture_uv[of_front, 1], np.where(high, 0, 1))
    assert crate.textures[pictured, 10, 128, 0] > 200
    assert crate.textures[pictured, 246, 128, 0] < 60


def test_floors_are_found_below(world):
    def floor(*position):
        return world.space.floor_below(np.array(position))

    np.testing.assert_allclose(floor(1.0, 1.0, 2.0), [1.0, 1.0, 0.0], atol=1.1e-3)
    np.testing.assert_allclose(floor(3.5, 3.0, 2.0), [3.5, 3.0, BOX[1, 2]], atol=1.1e-3)
    assert world.space.floor_below(np.array([1.0, 1.0, 3.0]), most_m=2.0) is None


def pieces_of(furnished: Mesh, world: Mesh, crate: Mesh) -> list[np.ndarray]:
    added = furnished.positions[len(world.positions) :]
    return list(added.reshape(-1, len(crate.positions), 3).astype(np.float64))


def test_pieces_stand_free_on_floors_and_stay_inside(world, crate):
    furnished = furnish(world, [crate], 30, np.random.default_rng(0))
    places = pieces_of(furnished.mesh, world.mesh, crate.mesh)
    assert 10 < len(places) <= 30
    feet = np.array([place[:, 2].min() for place in places])
    on_box = np.abs(feet - BOX[1, 2]) < 2e-3
    assert (on_box | (np.abs(feet) < 2e-3)).all()
    heights = np.array([np.ptp(place[:, 2]) for place in places])
    assert (heights > 0.999 * METRES[2]).all()
    assert (heights < 2.001 * METRES[2]).all()
    for place in places:
        assert (place > -1e-3).all()
        assert (place < SIZE + 1e-3).all()
        apart = (place.max(axis=0) < BOX[0] + 1e-3) | (place.min(axis=0) > BOX[1] - 2e-3)
        assert apart.any()  # not in the box
    assert len(furnished.textures) == len(world.textures) + 2
    assert furnished.mesh.texture.max() == len(furnished.textures) - 1
    assert furnished.mesh.triangles.max() == len(furnished.mesh.positions) - 1
    again = furnish(world, [crate], 30, np.random.default_rng(0))
    np.testing.assert_array_equal(again.mesh.positions, furnished.mesh.positions)
    assert furnish(world, [], 30, np.random.default_rng(0)) is world


def test_a_piece_is_drawn_where_it_stands(renderer, world, crate):
    for seed in range(20):  # until one stands free in front of the camera
        furnished = furnish(world, [crate], 1, np.random.default_rng(seed))
        if furnished is world:
            continue
        (place,) = pieces_of(furnished.mesh, world.mesh, crate.mesh)
        middle = (place.min(axis=0) + place.max(axis=0)) / 2
        eye = middle + np.array([0, 0, 1.8])
        if world.space.is_free(eye):
            break
    top = place[:, 2].max()
    pose = look_at(eye, middle + np.array([1e-3, 0, 0]), 0.0)
    renderer.load(furnished)
    depth = renderer.depth(MATRIX, pose)
    assert depth[240, 320] == pytest.approx(eye[2] - top, abs=5e-3)
    assert renderer.radiance(MATRIX, pose, Light())[240, 320] > 0
    renderer.load(world)
    assert renderer.depth(MATRIX, pose)[240, 320] > depth[240, 320] + 0.5


def test_a_stored_piece_is_the_piece(crate, tmp_path):
    path = tmp_path / "crate.npz"
    write_piece(crate, path)
    again = load_piece(path)
    assert again.name == "Crate"
    for item in fields(Mesh):
        before, after = getattr(crate.mesh, item.name), getattr(again.mesh, item.name)
        assert after.dtype == before.dtype, item.name
        np.testing.assert_allclose(after, before, atol=6e-4, err_msg=item.name)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"crate\.npz is no piece of furniture that can be read"):
        load_piece(path)


def test_damaged_libraries_and_a_missing_reader_are_named(tmp_path, monkeypatch):
    (tmp_path / "a.sh3f").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"a\.sh3f is no library of Sweet Home 3D"):
        read_catalogue(tmp_path / "a.sh3f")
    usual = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "trimesh":
            raise ImportError(name)
        return usual(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match="pip install trimesh"):
        list(read_pieces(write_library(tmp_path), []))


def test_pieces_are_as_light_as_the_map(world, crate):
    dark = replace(world, lights=np.full_like(world.lights, 40))
    furnished = furnish(dark, [crate], 20, np.random.default_rng(1))
    added = furnished.mesh.brightness[len(world.mesh.positions) :]
    assert 0.7 * 40 / 255 <= added.min() < added.max() <= 1.5 * 40 / 255
