"""Fill a cache: draw view sets from a corpus or from sequences, and extract their features."""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from superglue_ros.config import Config, FrontEndConfig
from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.errors import DataError
from superglue_ros.frontends.base import make_front_end
from superglue_ros.networks.device import resolve_device
from superglue_ros.networks.weights import load_superpoint
from superglue_ros.synthetic.rendering import Texture
from superglue_ros.training.data.cache import cached_config, make_shard, write_shard
from superglue_ros.training.data.corpus import CorpusImage, read_grey, read_manifest
from superglue_ros.training.data.flow_views import FlowDrawer
from superglue_ros.training.data.sequence_views import SequenceDrawer
from superglue_ros.training.data.view_features import (
    Extract,
    front_end_features,
    superpoint_features,
)
from superglue_ros.training.data.views import ViewSet, homography_views, room_views
from superglue_ros.training.data.world_drawer import WorldDrawer, WorldSource
from superglue_ros.training.precision import resolve_dtype
from superglue_ros.training.recipes import CacheRecipe, ViewRecipe

log = logging.getLogger(__name__)

Draw = Callable[[np.random.Generator], ViewSet]

_TEXTURES = 24  # pictures per rendered room: enough for variety, few enough to keep in memory
_TEXTURE_SIDE = 1024
_PHOTOGRAPH_SIDE = 2560


def build_cache(recipe: CacheRecipe, split: str = "train") -> Path:
    """Make all missing shards of ``recipe``; returns the cache's folder.

    Shard i depends only on (seed, i): an interrupted build can be continued, and the files do not
    depend on the process that makes them. Raises :class:`DataError` where the folder holds a
    cache of another recipe.
    """
    folder = Path(recipe.output)
    had, config = cached_config(folder), _config(recipe)
    if had and had != config:
        raise DataError(f"{folder} holds a cache of another recipe: give another output folder")
    numbers = range(-(-recipe.sets // recipe.sets_per_shard))
    missing = [index for index in numbers if not _shard_path(recipe, index).exists()]
    console = Console(stderr=True)
    if recipe.processes == 1 or len(missing) < 2:
        make = _ShardMaker(recipe, split)
        for index in track(missing, str(folder), console=console):
            make(index)
        return folder
    # Spawned, not forked: a GPU can't be used in both parent and child of a fork.
    context = multiprocessing.get_context("spawn")
    count = min(recipe.processes, len(missing))
    with context.Pool(count, _start_process, (recipe, split)) as pool:
        made = pool.imap_unordered(_make_shard, missing)
        for _ in track(made, str(folder), len(missing), console=console):
            pass
    return folder


class _ShardMaker:
    """Makes shards of a recipe by their number."""

    def __init__(self, recipe: CacheRecipe, split: str) -> None:
        self._recipe = recipe
        self.kind, self._extract = _extractor(recipe)
        self._make_drawer = view_drawer(recipe, split)

    def __call__(self, index: int) -> None:
        recipe = self._recipe
        rng = np.random.default_rng([recipe.seed, index])
        count = min(recipe.sets_per_shard, recipe.sets - index * recipe.sets_per_shard)
        draw = self._make_drawer()  # no state is carried over between shards
        sets = [draw(rng) for _ in range(count)]
        shard = make_shard(self._extract(rng), sets, recipe.keypoints, recipe.labels)
        path = _shard_path(recipe, index)
        write_shard(shard, path, self.kind, json.dumps(_config(recipe)))
        log.info("%s: %d pairs of %d views", path, len(shard.pairs), len(shard.counts))


def _extractor(recipe: CacheRecipe) -> tuple[str, Callable[[np.random.Generator], Extract]]:
    """The kind of the recipe's descriptors; and what extracts, given the shard's randomness."""
    device = resolve_device(recipe.device)
    if recipe.front_end == "superpoint":
        loaded = load_superpoint(recipe.detector)
        precision = resolve_dtype(recipe.precision, device)
        engine = SuperPointEngine(loaded.network, device, precision)

        def with_fillers(rng: np.random.Generator) -> Extract:
            filler = rng if recipe.random_keypoints else None
            return partial(superpoint_features, engine, max_keypoints=recipe.keypoints, rng=filler)

        return loaded.kind, with_fillers
    settings = FrontEndConfig(name=recipe.front_end, max_keypoints=recipe.keypoints, max_size=0)
    front_end = make_front_end(Config(front_end=settings), device)
    return front_end.detector, lambda _: partial(front_end_features, front_end)


_maker: _ShardMaker  # of a process of its own, see build_cache


def _start_process(recipe: CacheRecipe, split: str) -> None:
    global _maker
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    _maker = _ShardMaker(recipe, split)


def _make_shard(index: int) -> None:
    _maker(index)


def _shard_path(recipe: CacheRecipe, index: int) -> Path:
    return Path(recipe.output) / f"shard_{index:05d}.safetensors"


def _config(recipe: CacheRecipe) -> str:
    """The settings that two builds of a cache must share (JSON): not the number of sets, which only
    adds shards, nor those of the machine.
    """
    values = asdict(replace(recipe, sets=1))
    for key in ("device", "processes"):
        del values[key]
    return json.dumps(values, sort_keys=True)


def view_drawer(recipe: ViewRecipe, split: str) -> Callable[[], Draw]:
    """A factory of drawers of view sets; drawers share no state."""
    if recipe.source == "sequences":
        draw = SequenceDrawer(recipe)
        return lambda: draw
    if recipe.source == "flow":
        flow = FlowDrawer(recipe)
        return lambda: flow
    if recipe.source == "worlds":
        source = WorldSource(recipe, split)
        return lambda: WorldDrawer(source)
    images = read_manifest(recipe.corpus, split)
    if recipe.source == "homography":
        return lambda: lambda rng: _photograph_views(recipe, images, rng)
    return lambda: _RoomDrawer(recipe, images)


def _photograph_views(
    recipe: ViewRecipe, images: Sequence[CorpusImage], rng: np.random.Generator
) -> ViewSet:
    grey = _trimmed(read_grey(_pick(images, rng, recipe.photograph_share).path), _PHOTOGRAPH_SIDE)
    size = replace(recipe.homography, width=recipe.width, height=recipe.height)
    return homography_views(grey, rng, recipe.views, size, recipe.photometric)


class _RoomDrawer:
    """Rooms from a pool of textures that is renewed from time to time: making them is slow."""

    def __init__(self, recipe: ViewRecipe, images: Sequence[CorpusImage]) -> None:
        self._recipe, self._images = recipe, images
        self._shelf: list[Texture] = []

    def __call__(self, rng: np.random.Generator) -> ViewSet:
        recipe = self._recipe
        if not self._shelf or rng.random() < 0.1:
            self._shelf = [
                Texture(_trimmed(read_grey(_pick(self._images, rng, recipe.photograph_share).path)))
                for _ in range(_TEXTURES)
            ]
        return room_views(
            self._shelf, rng, recipe.views, recipe.width, recipe.height, recipe.rooms,
            recipe.photometric,
        )  # fmt: skip


def _pick(
    images: Sequence[CorpusImage], rng: np.random.Generator, photograph_share: float
) -> CorpusImage:
    wanted = rng.random() < photograph_share
    kind = [image for image in images if image.photograph == wanted] or list(images)
    return kind[int(rng.integers(len(kind)))]


def _trimmed(image: NDArray[np.uint8], longest: int = _TEXTURE_SIDE) -> NDArray[np.uint8]:
    """The image, shrunk to ``longest`` pixels where it is larger."""
    scale = longest / max(image.shape)
    if scale >= 1:
        return image
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
