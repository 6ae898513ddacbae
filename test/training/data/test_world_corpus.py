import json
import logging

import pytest

from superglue_ros.cli import main
from superglue_ros.errors import DataError
from superglue_ros.synthetic.worlds.storage import load_world
from superglue_ros.training.data.corpus import Source, collect
from superglue_ros.training.data.world_corpus import collect_worlds, read_worlds

from ...synthetic.worlds.small_map import game_files, map_bytes, write_game
from ...synthetic.worlds.small_track import DATA, track_files, write_track


def source(folder, name="small"):
    return Source(name, folder, f"licence of {name}", "worlds")


def test_worlds_of_packages_that_belong_together_are_collected(tmp_path):
    """The maps are in one package and the textures in another, as in Debian."""
    files = game_files()
    maps = {name: content for name, content in files.items() if name.startswith("maps")}
    write_game(tmp_path / "maps", maps, "pak1.pk3")
    write_game(tmp_path / "data", {k: v for k, v in files.items() if k not in maps})
    sources = [source(tmp_path / "maps", "maps"), source(tmp_path / "data", "data")]
    (world,) = collect_worlds(sources, tmp_path / "corpus")
    assert (world.path, world.source) == ("small-base_room.npz", "maps, data")
    assert world.licence == "licence of maps; licence of data"
    assert (world.textures, world.missing_textures) == (4, 0)
    assert world.split in ("train", "test")
    (again,) = read_worlds(tmp_path / "corpus")
    assert len(load_world(again.path).mesh.triangles) == world.triangles > 90
    other = {"train": "test", "test": "train"}[world.split]
    with pytest.raises(DataError, match=rf"has no world of the split '{other}'"):
        read_worlds(tmp_path / "corpus", other)


def test_damaged_maps_are_left_out_and_missing_textures_counted(tmp_path, caplog):
    files = game_files() | {"maps/cut.bsp": map_bytes()[:5000], "maps/other.bsp": b"something"}
    del files["textures/CRATE.png"]
    write_game(tmp_path / "package", files)
    with caplog.at_level(logging.WARNING):
        (world,) = collect_worlds([source(tmp_path / "package")], tmp_path / "corpus")
    assert world.missing_textures == 1
    assert "maps/cut.bsp is truncated" in caplog.text
    assert "maps/other.bsp is no IBSP map" in caplog.text
    assert "room: 1 of 4 textures are missing, and grey: textures/crate" in caplog.text


COPYRIGHT = """Files: *
Licence of all that is named nowhere else.
License: GPL-3+

Files: data/tracks/road/* data/textures/*
License: CC-BY-SA-4.0

Files: data/tracks/roads/*
License: CC0
"""


def test_tracks_are_worlds_with_the_licence_that_the_package_states(tmp_path, caplog):
    package = tmp_path / "package"
    files = track_files()
    scenery = {k.replace("/road/", "/scenery/"): v for k, v in files.items() if "quads" not in k}
    other = {k.replace("/road/", "/other/"): v for k, v in files.items() if "ground" not in k}
    write_track(package, files | scenery | other)
    about = package / "usr/share/doc/small/copyright"
    about.parent.mkdir(parents=True)
    about.write_text(COPYRIGHT)
    with caplog.at_level(logging.WARNING):
        worlds = collect_worlds([source(package)], tmp_path / "corpus")
    assert "tracks/scenery has neither quads.xml nor navmesh.xml" in caplog.text
    assert [world.path for world in worlds] == ["small-data_other.npz", "small-data_road.npz"]
    assert [world.licence for world in worlds] == ["licence of small", "CC-BY-SA-4.0"]
    assert [world.missing_textures for world in worlds] == [1, 0]
    assert all(world.split in ("train", "test") for world in worlds)
    again = load_world(read_worlds(tmp_path / "corpus")[1].path)
    assert len(again.mesh.triangles) == worlds[1].triangles == 24


def test_packages_without_a_readable_map(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no map could be read of small, and 0 could not"):
        collect_worlds([source(tmp_path / "empty")], tmp_path / "corpus")
    photographs = Source("photographs", tmp_path / "empty", "CC0")
    assert collect_worlds([photographs], tmp_path / "corpus") == []
    write_game(tmp_path / "package", {"maps/a.bsp": b"a", "maps/b.bsp": b"b"})
    with pytest.raises(DataError, match="no map could be read of small, and 2 could not"):
        collect_worlds([source(tmp_path / "package")], tmp_path / "corpus")


def test_a_corpus_without_worlds_says_how_to_collect_them(tmp_path):
    with pytest.raises(DataError, match=r"has no worlds .*'superglue-ros train corpus'"):
        read_worlds(tmp_path)


def test_a_damaged_list_is_refused_by_its_line(tmp_path):
    (tmp_path / "worlds").mkdir()
    (tmp_path / "worlds" / "worlds.jsonl").write_text(json.dumps({"path": "a"}) + "\n")
    with pytest.raises(DataError, match=r"worlds\.jsonl, line 1, is not a world"):
        read_worlds(tmp_path)


def test_images_of_a_game_are_not_photographs(tmp_path):
    with pytest.raises(DataError, match="no usable image"):
        collect([source(tmp_path)], tmp_path / "corpus")


def test_the_command_collects_worlds_of_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_game(tmp_path / "games")
    words = ["train", "corpus", "--games", "games", "--output", "corpus"]
    assert main(words) == 0
    assert "1 worlds" in capsys.readouterr().out
    (world,) = read_worlds("corpus")
    assert (world.source, world.licence) == ("games", "the user's")
    write_track(tmp_path / "tracks")
    assert main([*words[:3], f"tracks/{DATA}", *words[4:]]) == 0  # the game's own folder
    assert "1 worlds" in capsys.readouterr().out
    assert read_worlds("corpus")[0].path.endswith("/game_road.npz")
    assert main(["train", "corpus", "--games", "absent"]) == 1
    assert "absent is not a folder" in capsys.readouterr().err
