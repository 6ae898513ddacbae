"""Rendered view sets in files, without photometric changes, for training that makes those itself.

Each file ``*.npz`` is one set: ``images`` (V, H, W) uint8, ``depths`` (V, H, W) float32 [m], 0
where there is none, ``matrices`` (V, 3, 3) and ``poses`` (V, 4, 4), T_world_camera.
"""

from __future__ import annotations

import functools
import io
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from superglue_ros.data.arrays import load_arrays
from superglue_ros.errors import ConfigError, DataError
from superglue_ros.settings import setting
from superglue_ros.synthetic.photometric import PhotometricRecipe
from superglue_ros.training.checkpoint import write_atomically
from superglue_ros.training.data.cache_builder import Draw, view_drawer
from superglue_ros.training.data.pair_geometry import PosedDepth
from superglue_ros.training.data.views import PosedViews
from superglue_ros.training.recipes import ViewRecipe

_FIELDS = ("images", "depths", "matrices", "poses")
_SETS_PER_DRAWER = 8  # of one world, which takes a while to load


@dataclass(frozen=True)
class StoreRecipe(ViewRecipe):
    """Settings of a store of rendered view sets; ``source`` is worlds or rooms."""

    source: str = setting("worlds", "Kind of view sets.", choices=("rooms", "worlds"))
    photometric: PhotometricRecipe = field(
        default_factory=lambda: PhotometricRecipe(probability=0.0)
    )
    output: str = "views"
    split: str = setting("train", "Part of the corpus.", choices=("train", "test"))
    sets: int = setting(1000, "View sets.", low=1)
    views: int = setting(5, "Views per set.", low=2)
    seed: int = setting(0, "Seed of everything random.", low=0)
    processes: int = setting(1, "Processes that render.", low=1)
    gigabytes: float = setting(20.0, "Refuse a store that would take more.", low=0.0)

    def __post_init__(self) -> None:
        size = self.sets * self.views * self.width * self.height * 5 / 1e9
        if size > self.gigabytes:
            raise ConfigError(
                f"{self.sets} sets of {self.views} views take {size:.1f} GB, over gigabytes: "
                f"{self.gigabytes:g}: give fewer sets, or a higher limit"
            )


def store_views(recipe: StoreRecipe) -> Path:
    """Render all missing sets of ``recipe``; returns the folder. Set i depends on (seed, i)."""
    folder = Path(recipe.output)
    numbers = range(0, recipe.sets, _SETS_PER_DRAWER)
    missing = [n for n in numbers if not all(p.exists() for p in _paths(recipe, n))]
    console = Console(stderr=True)
    count = min(recipe.processes, len(missing))
    if count < 2:
        for number in track(missing, str(folder), console=console):
            _render(recipe, number)
        return folder
    # Spawned, not forked: OpenGL can't be used in both parent and child of a fork.
    with multiprocessing.get_context("spawn").Pool(count, cv2.setNumThreads, (1,)) as pool:
        jobs = pool.imap_unordered(_render_job, [(recipe, number) for number in missing])
        for _ in track(jobs, str(folder), len(missing), console=console):
            pass
    return folder


def _paths(recipe: StoreRecipe, first: int) -> list[Path]:
    last = min(first + _SETS_PER_DRAWER, recipe.sets)
    return [Path(recipe.output) / f"set_{number:06d}.npz" for number in range(first, last)]


def _render_job(job: tuple[StoreRecipe, int]) -> None:
    _render(*job)


def _render(recipe: StoreRecipe, first: int) -> None:
    rng = np.random.default_rng([recipe.seed, first])
    draw = _drawers(recipe)()
    for path in _paths(recipe, first):
        views = draw(rng)
        if not isinstance(views, PosedViews):
            raise TypeError(f"source {recipe.source} gives no depth")
        content = io.BytesIO()
        np.savez(
            content,
            images=np.stack(views.images),
            depths=np.nan_to_num(np.stack(views.depths).astype(np.float32)),
            matrices=np.stack(views.matrices),
            poses=np.stack(views.poses),
        )
        write_atomically(path, content.getvalue())


@functools.lru_cache(maxsize=1)  # reading a corpus takes a while
def _drawers(recipe: StoreRecipe) -> Callable[[], Draw]:
    return view_drawer(recipe, recipe.split)


class RenderedPairs:
    """The sets of a store, resident on the device."""

    def __init__(self, folder: Path, device: torch.device, gigabytes: float) -> None:
        """Read sets up to ``gigabytes``.

        Raises :class:`DataError` where there are none, or a file is no view set.
        """
        files = sorted(folder.glob("*.npz"))
        if not files:
            raise DataError(f"{folder} has no rendered views: make them with train views")
        self._sets: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        used = 0
        for path in files:
            images, depths, matrices, poses = _read(path)
            if self._sets and images.shape != tuple(self._sets[0][0].shape):
                raise DataError(
                    f"{path} has views {images.shape}, those before {self._sets[0][0].shape}: "
                    f"keep sets of one size in a folder"
                )
            used += images.nbytes + depths.nbytes
            if used > gigabytes * 1e9:
                break
            depth = torch.from_numpy(depths).to(device)
            inverse = torch.where(depth > 0, 1 / depth.clamp(min=1e-3), 0.0)
            self._sets.append(
                (
                    torch.from_numpy(images).to(device), inverse,
                    torch.from_numpy(matrices).to(device, torch.float32), torch.from_numpy(poses),
                )
            )  # fmt: skip

    def __len__(self) -> int:
        """Number of sets."""
        return len(self._sets)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a view."""
        height, width = self._sets[0][0].shape[1:]
        return width, height

    def draw(self, pairs: int, rng: np.random.Generator) -> tuple[Tensor, PosedDepth]:
        """Images (2, ``pairs``, H, W) in [0, 1] before photometric changes, and their geometry."""
        images, depths, matrices, transforms = [], [], [], []
        for _ in range(pairs):
            grey, inverse, matrix, poses = self._sets[int(rng.integers(len(self)))]
            i, j = (int(v) for v in rng.permutation(len(grey))[:2])
            images.append(grey[[i, j]])
            depths.append(inverse[[i, j]])
            matrices.append(matrix[[i, j]])
            transforms.append(torch.linalg.inv(poses[j]) @ poses[i])
        device = images[0].device
        return torch.stack(images, dim=1).float() / 255, PosedDepth(
            torch.stack(depths, dim=1),
            torch.stack(matrices, dim=1),
            torch.stack(transforms).float().to(device),
        )


def _read(path: Path) -> tuple[np.ndarray, ...]:
    try:
        arrays = load_arrays(path, _FIELDS)
        return tuple(arrays[name] for name in _FIELDS)
    except (DataError, KeyError) as error:
        raise DataError(f"{path} is no view set ({error}): delete it and make it again") from error
