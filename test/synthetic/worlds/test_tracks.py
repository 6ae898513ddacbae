"""A track as a world: what it shows and leaves out, where cameras may be, and exact views of it."""

from __future__ import annotations

import logging
from dataclasses import fields

import numpy as np
import pytest

from superglue_ros.errors import DataError
from superglue_ros.synthetic.rooms import look_at
from superglue_ros.synthetic.worlds.archives import GameFiles
from superglue_ros.synthetic.worlds.cameras import CLEARANCE_M, first_camera, next_camera
from superglue_ros.synthetic.worlds.furniture import furnish, piece_of
from superglue_ros.synthetic.worlds.storage import load_world, write_world
from superglue_ros.synthetic.worlds.tours import TourConfig, tour
from superglue_ros.synthetic.worlds.tracks import read_track, track_names
from superglue_ros.synthetic.worlds.world import GREY, World

from .reprojection import MATRIX, reprojection_errors
from .small_track import (
    CRATE,
    CRATE_SIZE,
    CRATE_YAW,
    FENCE,
    HIGH,
    LOW,
    MATERIALS,
    NODE,
    QUADS,
    SCENE,
    spm,
    track_files,
    write_track,
)  # fmt: skip

UP = np.array([0.0, 0.0, 1.0])
CRATE_MIDDLE = CRATE + UP * CRATE_SIZE / 2
TURN = np.array(
    [
        [np.cos(CRATE_YAW), -np.sin(CRATE_YAW), 0],
        [np.sin(CRATE_YAW), np.cos(CRATE_YAW), 0],
        [0, 0, 1],
    ]
)


def world_of(folder, **changed) -> World:
    names = {key: content for key, content in track_files(**changed).items() if content}
    return read_track(GameFiles([write_track(folder, names)]), "road")


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world_of(tmp_path_factory.mktemp("game"))


def test_what_stands_still_and_is_opaque_is_shown_where_the_scene_says(track):
    mesh = track.mesh
    assert len(mesh.triangles) == 2 * (1 + 4 + 1 + 6)  # ground, walls, crate, fence
    assert len(track.textures) == 4
    assert track.missing == ()
    corners = [mesh.positions[mesh.texture == k].astype(float) for k in range(4)]
    road = np.concatenate(corners[:2])
    np.testing.assert_allclose([road.min(axis=0), road.max(axis=0)], [LOW, HIGH], atol=1e-5)
    np.testing.assert_allclose([corners[3].min(0), corners[3].max(0)], FENCE, atol=1e-5)
    box = (corners[2] - CRATE) @ TURN / CRATE_SIZE
    np.testing.assert_allclose(np.unique(box.round(4), axis=0), np.unique(
        [[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (0, 1)], axis=0
    ), atol=1e-4)  # fmt: skip
    opaque = track.textures[..., 1].min(axis=(1, 2)) == 255
    assert opaque.tolist() == [True, True, True, False]


def test_light_is_the_tracks_own(track):
    """The sun is overhead: 0.2 from everywhere, and 0.4 more where a surface is level."""
    mesh = track.mesh
    np.testing.assert_allclose(mesh.brightness[mesh.texture == 0], 0.6, atol=2e-3)
    np.testing.assert_allclose(mesh.brightness[mesh.texture == 1], 0.2, atol=2e-3)
    np.testing.assert_allclose(mesh.normals[mesh.texture == 0], [[0, 0, 1]] * 4, atol=2e-3)


def test_depth_is_that_of_the_ground_and_the_crate(renderer, track):
    pose = look_at(np.array([-2.0, 14.0, 2.2]), CRATE_MIDDLE)
    renderer.load(track)
    depth = renderer.depth(MATRIX, pose)
    rays = np.stack([*np.meshgrid(np.arange(640.0), np.arange(480.0)), np.ones((480, 640))], -1)
    rays = rays @ np.linalg.inv(MATRIX).T @ pose[:3, :3].T
    with np.errstate(divide="ignore"):
        ground = -pose[2, 3] / rays[..., 2]
        # The crate's box in its own axes: a ray is inside between its last entry and first exit.
        start, along = (pose[:3, 3] - CRATE_MIDDLE) @ TURN, rays @ TURN
        ends = np.stack([(side * CRATE_SIZE / 2 - start) / along for side in (-1, 1)])
    entry, leave = ends.min(axis=0).max(axis=-1), ends.max(axis=0).min(axis=-1)
    on_crate = (entry + 0.02 < leave) & (entry > 0)
    beside = (entry > leave + 0.02) & (ground > 0) & (ground < 15)
    beside &= np.abs(pose[0, 3] + rays[..., 0] * ground) < 9.9
    assert min(on_crate.sum(), beside.sum()) > 10_000
    np.testing.assert_allclose(depth[on_crate], entry[on_crate], rtol=2e-5)
    np.testing.assert_allclose(depth[beside], ground[beside], rtol=2e-5)


@pytest.mark.parametrize("motion", ["orbit", "forward"])
def test_views_of_a_track_reproject_onto_each_other(renderer, track, motion):
    first = look_at(np.array([-2.0, 12.0, 1.6]), np.array([2.0, 21.0, 1.0]))
    second = {
        "orbit": look_at(np.array([-0.5, 11.5, 2.0]), np.array([2.0, 21.0, 1.0]), 0.1),
        "forward": look_at(np.array([-1.4, 13.4, 1.5]), np.array([2.2, 21.0, 1.0])),
    }[motion]
    moved = reprojection_errors(renderer, track, first, second)
    assert len(moved) > 100
    assert np.median(moved) < 0.1
    assert np.quantile(moved, 0.8) < 0.3


def test_the_open_is_what_the_road_sees(track):
    space = track.space
    assert space.is_free(np.array([0.0, 15.0, 1.5]), 0.25)
    assert space.is_free(np.array([-9.7, 15.0, 1.5]), 0.25)
    assert not space.is_free(np.array([-9.8, 15.0, 1.5]), 0.25)  # too near to the wall
    assert not space.is_free(np.array([-10.5, 15.0, 1.5]))  # behind it
    assert not space.is_free(np.array([0.0, 15.0, -0.5]))  # under ground
    assert not space.is_free(CRATE_MIDDLE)
    assert space.is_free(CRATE_MIDDLE + CRATE_SIZE * UP, 0.25)
    assert not space.is_free(np.array([0.0, 15.0, 12.0]))  # nobody drives near there
    for x, y, floor in ((0.0, 10.0, 0.0), (CRATE[0], CRATE[1], CRATE_SIZE[2])):
        np.testing.assert_allclose(space.floor_below(np.array([x, y, 3.0])), [x, y, floor])
    assert space.floor_below(np.array([0.0, 10.0, 5.0])) is None


def test_cameras_are_at_the_height_of_vehicles_and_look_along_the_road(track):
    rng = np.random.default_rng(0)
    firsts = [first_camera(rng, track.space) for _ in range(150)]
    places = np.array([pose[:3, 3] for pose in firsts])
    assert all(track.space.is_free(place, CLEARANCE_M) for place in places)
    above = places[:, 2] - [track.space.floor_below(place)[2] for place in places]
    assert 0.8 <= above.min() < 1.0
    assert 2.3 < above.max() <= 2.5
    assert np.ptp(places[:, 1]) > 30
    along = np.abs([pose[1, 2] / np.hypot(*pose[:2, 2]) for pose in firsts])
    assert 0.6 < (along > np.cos(np.radians(40))).mean() < 0.9
    ahead = [next_camera(rng, track.space, first, "drive", 5.0, 2.0) for first in firsts]
    kept = [pose for pose in ahead if pose is not None]
    assert len(kept) > 50
    assert all(track.space.is_free(pose[:3, 3], CLEARANCE_M) for pose in kept)


def test_furniture_stands_on_a_track_too(track):
    trimesh = pytest.importorskip("trimesh")
    box = trimesh.creation.box((1, 1, 1))
    piece = piece_of("box", trimesh.Scene(box), np.array([0.8, 0.5, 1.0]), side=256)
    more = furnish(track, [piece], 5, np.random.default_rng(2))
    added = more.mesh.positions[len(track.mesh.positions) :].reshape(
        -1, len(piece.mesh.positions), 3
    )
    assert len(added) >= 3
    np.testing.assert_allclose(added[..., 2].min(axis=1), 0, atol=1e-3)


def test_a_tour_of_a_track_stays_in_the_open(track):
    poses = tour(np.random.default_rng(1), track.space, TourConfig(length_m=10.0))
    assert all(track.space.is_free(pose[:3, 3], CLEARANCE_M) for pose in poses)
    assert np.ptp([pose[:3, 3] for pose in poses], axis=0).max() > 3


def test_a_stored_track_is_the_track(track, tmp_path):
    write_world(track, tmp_path / "road.npz")
    again = load_world(tmp_path / "road.npz")
    for item in fields(track.space):
        before, after = (getattr(world.space, item.name) for world in (track, again))
        np.testing.assert_allclose(after, before, atol=6e-4, err_msg=item.name)
    assert again.lights.shape == (0, 1, 1)
    assert not again.space.is_free(CRATE_MIDDLE)
    assert "corners" not in " ".join(np.load(tmp_path / "road.npz").files)


def test_missing_textures_are_grey_and_damaged_models_left_out(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        world = world_of(
            tmp_path, **{"tracks/road/ground.jpg": b"", "library/crate/crate.spm": b"SP\x09"}
        )
    assert world.missing == ("tracks/road/ground.jpg",)
    assert (world.textures[0] == (GREY, 255)).all()
    assert len(world.mesh.triangles) == 2 * (1 + 4 + 1)
    assert "library/crate/crate.spm is an SPM model of kind 0x9" in caplog.text


def test_a_mask_beside_the_picture_cuts_out_what_the_picture_shows(tmp_path):
    materials = MATERIALS.replace(b'fence.png"', b'fence.png" mask="m.png"')
    mask = track_files()["tracks/road/fence.png"]  # grey 90: all hole
    world = world_of(
        tmp_path, **{"tracks/road/materials.xml": materials, "tracks/road/m.png": mask}
    )
    assert len(world.textures) == 3


def test_a_library_object_is_no_part_of_itself(tmp_path):
    node = NODE.replace(b"<scene>", b'<scene><library name="crate" xyz="1 0 0"/>')
    assert len(world_of(tmp_path, **{"library/crate/node.xml": node}).mesh.triangles) == 24


def test_arenas_are_driven_on_their_navigation_mesh(tmp_path):
    mesh = b"""<navmesh><vertices>
      <vertex x="-4" y="0" z="2"/><vertex x="4" y="0" z="2"/><vertex x="0" y="0" z="30"/>
      </vertices><faces><face indices="0 1 2" adjacents=""/></faces></navmesh>"""
    files = {"tracks/road/quads.xml": b"", "tracks/road/navmesh.xml": mesh}
    world = world_of(tmp_path / "a", **files)
    assert len(world.space.places) > 5
    assert world.space.is_free(np.array([0.0, 10.0, 1.5]), 0.25)
    damaged = {**files, "tracks/road/navmesh.xml": mesh.replace(b"0 1 2", b"0 1 9")}
    with pytest.raises(DataError, match=r"road/navmesh\.xml has a face that cannot be read"):
        world_of(tmp_path / "b", **damaged)


@pytest.mark.parametrize(
    ("file", "content", "what"),
    [
        ("tracks/road/scene.xml", SCENE[:300], r"road/scene\.xml is no XML .*: fetch"),
        ("tracks/road/scene.xml", b"<scene/>", r"road/scene\.xml shows nothing: leave it out"),
        (
            "tracks/road/scene.xml",
            SCENE.replace(b"-6 0 30", b"-6 a"),
            "xyz='-6 a': give numbers like '0 0 0'",
        ),
        (
            "tracks/road/scene.xml",
            SCENE.replace(b"-6 0 30", b"nan 0 1"),
            "xyz='nan 0 1': give numbers like",
        ),
        ("tracks/road/scene.xml", b'<?xml version="1.0" encoding="no"?><a/>', "is no XML"),
        ("tracks/road/scene.xml", SCENE.replace(b'"50"', b'"far"'), "lod_distance='far'"),
        (
            "tracks/road/scene.xml",
            SCENE.replace(b"-6 0 30", b"9e9 0 0"),
            "fence.spm reaches beyond",
        ),
        ("tracks/road/quads.xml", b"", r"road has neither quads\.xml nor navmesh\.xml"),
        ("tracks/road/quads.xml", QUADS.replace(b"0:3", b"7:3"), "quad 1 has a corner p0 of '7:3'"),
        ("tracks/road/quads.xml", QUADS.replace(b"38", b"3e9"), "a quad of more than 1000 m"),
        ("tracks/road/quads.xml", QUADS.replace(b"38", b"nan"), "a quad of more than 1000 m"),
        ("tracks/road/quads.xml", b"<quads/>", "has no drive line with room for a camera"),
        ("tracks/road/road.spm", spm([], []), "has no drive line with room for a camera"),
    ],
)
def test_a_track_that_is_damaged_or_cannot_be_driven_is_refused(tmp_path, file, content, what):
    with pytest.raises(DataError, match=what):
        world_of(tmp_path, **{file: content})


def test_tracks_are_the_folders_with_a_scene(tmp_path):
    files = track_files() | {"tracks/notes/readme.txt": b"a", "tracks/scene.xml": SCENE}
    assert track_names(GameFiles([write_track(tmp_path, files)])) == ["road"]
