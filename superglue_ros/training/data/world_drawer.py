"""Draws view sets of the corpus's worlds, one world after the other."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import DataError
from superglue_ros.synthetic.worlds.furniture import furnish
from superglue_ros.synthetic.worlds.renderer import renderer_of
from superglue_ros.synthetic.worlds.storage import (
    load_piece,
    load_texture,
    load_world,
    opaque_textures,
)
from superglue_ros.synthetic.worlds.world import World
from superglue_ros.training.data.corpus import MANIFEST, CorpusImage, read_grey, read_manifest
from superglue_ros.training.data.furniture_corpus import read_furniture
from superglue_ros.training.data.views import PosedViews
from superglue_ros.training.data.world_corpus import CorpusWorld, read_worlds
from superglue_ros.training.data.world_views import exchange_textures, world_views
from superglue_ros.training.recipes import ViewRecipe

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]

_RENEWAL = 0.15  # chance of another world before each set: loading one takes as long as a view
_WORLDS = 8  # that may fail to show anything before a draw is given up
_MIN_CROP = 0.4
_KINDS, _PIECES = 16, 120  # of furniture in a world


class WorldSource:
    """What drawers of worlds share: the corpus's worlds, textures and photographs of one split.

    Raises :class:`DataError` where the corpus has no worlds. One without photographs exchanges
    textures for other games' textures only.
    """

    def __init__(self, recipe: ViewRecipe, split: str) -> None:
        self.recipe = recipe
        self.worlds: list[CorpusWorld] = read_worlds(recipe.corpus, split)
        self.textures = opaque_textures(Path(self.worlds[0].path).parent)
        self.photographs: list[CorpusImage] = []
        if (Path(recipe.corpus) / MANIFEST).is_file():
            self.photographs = [
                image
                for image in read_manifest(recipe.corpus)
                if image.photograph and split in ("", image.split)
            ]
        self.furniture = read_furniture(recipe.corpus, split)

    def texture(self, rng: np.random.Generator) -> Pixels:
        """A grey picture (S, S): part of a photograph, or a texture of any game."""
        share = self.recipe.worlds.photographs if self.photographs else 0.0
        if rng.random() < share:
            return _square(self.photographs[int(rng.integers(len(self.photographs)))], rng)
        path = self.textures[int(rng.integers(len(self.textures)))]
        return np.ascontiguousarray(load_texture(path)[..., 0])

    def world(self, rng: np.random.Generator) -> World:
        """A world, in part of the cases with its textures exchanged, or with furniture."""
        world = load_world(self.worlds[int(rng.integers(len(self.worlds)))].path)
        if self.furniture and rng.random() < self.recipe.worlds.furnished:
            kinds = rng.choice(len(self.furniture), min(_KINDS, len(self.furniture)), replace=False)
            pieces = [load_piece(self.furniture[int(kind)].path) for kind in kinds]
            world = furnish(world, pieces, _PIECES, rng)
        if self.textures and rng.random() < self.recipe.worlds.exchanged:
            world = exchange_textures(world, rng, self.texture)
        return world


class WorldDrawer:
    """View sets of worlds, several of one world before the next.

    Raises :class:`DataError` where worlds cannot be drawn on this machine, or show too little.
    """

    def __init__(self, source: WorldSource) -> None:
        self._source = source
        self._world: World | None = None

    def __call__(self, rng: np.random.Generator) -> PosedViews:
        recipe = self._source.recipe
        size = (recipe.width, recipe.height)
        renderer = renderer_of(*size)
        for attempt in range(1, _WORLDS + 1):
            if self._world is None or rng.random() < _RENEWAL:
                self._world = self._source.world(rng)
            try:
                return world_views(
                    renderer, self._world, rng, recipe.views, size, recipe.worlds,
                    recipe.photometric,
                )  # fmt: skip
            except DataError as error:
                log.info("another world is taken: %s", error)
                self._world = None
                if attempt == _WORLDS:
                    raise
        raise AssertionError  # the last attempt returns or raises


def _square(image: CorpusImage, rng: np.random.Generator) -> Pixels:
    """A random square part of a photograph, decoded no larger than a texture needs."""
    shorter = min(image.width, image.height)
    reduced = cv2.IMREAD_REDUCED_GRAYSCALE_4 if shorter > 2048 else cv2.IMREAD_GRAYSCALE
    grey = read_grey(image.path, reduced)
    side = int(min(grey.shape) * rng.uniform(_MIN_CROP, 1.0))
    top = int(rng.integers(grey.shape[0] - side + 1))
    left = int(rng.integers(grey.shape[1] - side + 1))
    return np.ascontiguousarray(grey[top : top + side, left : left + side], np.uint8)
