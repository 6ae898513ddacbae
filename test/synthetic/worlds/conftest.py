"""The small map as a world, and a renderer where this machine has one."""

from pathlib import Path

import pytest

from superglue_ros.errors import DataError
from superglue_ros.synthetic.worlds.archives import GameFiles
from superglue_ros.synthetic.worlds.renderer import Renderer, renderer_of
from superglue_ros.synthetic.worlds.world import World, read_shaders, read_world

from .small_map import write_game


@pytest.fixture(scope="session")
def game(tmp_path_factory: pytest.TempPathFactory) -> GameFiles:
    return GameFiles([write_game(Path(tmp_path_factory.mktemp("game")))])


@pytest.fixture(scope="session")
def world(game: GameFiles) -> World:
    return read_world(game, read_shaders(game), "room")


@pytest.fixture(scope="session")
def renderer() -> Renderer:
    try:
        return renderer_of(640, 480)
    except DataError as error:
        pytest.skip(str(error))
