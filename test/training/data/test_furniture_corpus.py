import numpy as np
import pytest

from superglue_ros.cli import main
from superglue_ros.errors import DataError
from superglue_ros.synthetic.worlds.storage import load_piece
from superglue_ros.training.data.corpus import Source
from superglue_ros.training.data.furniture_corpus import collect_furniture, read_furniture
from superglue_ros.training.data.world_corpus import collect_worlds
from superglue_ros.training.data.world_drawer import WorldSource
from superglue_ros.training.data.world_views import WorldConfig
from superglue_ros.training.recipes import ViewRecipe

from ...synthetic.worlds.small_library import LICENCE, write_library
from ...synthetic.worlds.small_map import write_game


def furniture(folder):
    return Source("library", folder, "licence of the package", "furniture")


def test_furniture_is_collected_and_put_into_worlds(tmp_path):
    write_library(tmp_path / "library")
    write_game(tmp_path / "game")
    corpus = tmp_path / "corpus"
    collect_worlds([Source("game", tmp_path / "game", "GPL", "worlds")], corpus)
    (piece,) = collect_furniture([furniture(tmp_path / "library")], corpus)
    assert (piece.name, piece.licence, piece.triangles) == ("Crate", LICENCE, 12)
    assert piece.source == "library, small.sh3f"
    (again,) = read_furniture(corpus)
    assert load_piece(again.path).name == "Crate"
    assert len(read_furniture(corpus, "train")) + len(read_furniture(corpus, "test")) == 1

    def triangles(share):
        config = WorldConfig(furnished=share, exchanged=0.0)
        recipe = ViewRecipe(source="worlds", corpus=str(corpus), worlds=config)
        return len(WorldSource(recipe, "").world(np.random.default_rng(0)).mesh.triangles)

    assert triangles(1.0) >= triangles(0.0) + 20 * 12


def test_packages_without_furniture(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no furniture could be read of library: give folders"):
        collect_furniture([furniture(tmp_path / "empty")], tmp_path / "corpus")
    assert collect_furniture([Source("a", tmp_path / "empty", "CC0")], tmp_path / "corpus") == []
    assert read_furniture(tmp_path / "corpus") == []


def test_the_command_collects_a_package_of_furniture_alone(tmp_path, capsys):
    write_library(tmp_path / "corpus" / "packages" / "some-furniture")
    listed = tmp_path / "packages.tsv"
    listed.write_text("some-furniture furniture\n")
    corpus = str(tmp_path / "corpus")
    assert main(["train", "corpus", "--packages", str(listed), "--output", corpus]) == 0
    assert "1 pieces of furniture" in capsys.readouterr().out
