"""View sets of game worlds: cameras that share what they see, each in its own light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import DataError
from superglue_ros.geometry.ground_truth import HOMOGRAPHY
from superglue_ros.settings import setting
from superglue_ros.synthetic.photometric import PhotometricRecipe, distort
from superglue_ros.synthetic.rooms import rolled
from superglue_ros.synthetic.worlds.cameras import MOTIONS, first_camera, next_camera
from superglue_ros.synthetic.worlds.exposure import expose, gain_for
from superglue_ros.synthetic.worlds.renderer import Light, Renderer
from superglue_ros.synthetic.worlds.world import World
from superglue_ros.training.data.views import PosedViews

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]

_FIRST_TRIES, _NEXT_TRIES = 80, 16
_SHRINK = 0.85  # of the reach after a camera that does not fit
_NEAREST_M = 0.35  # closer, a texture is a blur
_DISTANCES_M = (0.8, 40.0)
_MIN_SEEN = 0.6  # part of a view that is not sky


@dataclass(frozen=True)
class WorldConfig:
    """Cameras, light and textures of game worlds."""

    max_baseline: float = setting(
        0.8, "Largest step between views, in parts of the distance to what they look at.", low=0.02
    )
    motions: tuple[float, float, float] = (0.5, 0.25, 0.25)  # parts that orbit, walk, drive
    min_overlap: float = setting(
        0.15, "Every two views of a set share at least this much.", low=0.0, high=1.0
    )
    turned: float = setting(
        0.0, "Part of the views but the first that are rolled by any angle.", low=0.0, high=1.0
    )
    field_of_view_low_deg: float = setting(45.0, "Narrowest horizontal field of view.", low=10.0)
    field_of_view_high_deg: float = setting(95.0, "Widest horizontal field of view.", high=140.0)
    exchanged: float = setting(
        0.5, "Part of the worlds whose textures are exchanged for others.", low=0.0, high=1.0
    )
    photographs: float = setting(
        0.5, "Part of the exchanged textures that are images of the corpus.", low=0.0, high=1.0
    )
    furnished: float = setting(
        0.5, "Part of the worlds that get furniture, where the corpus has any.", low=0.0, high=1.0
    )
    relit: float = setting(
        0.5, "Part of the sets in which the light's direction changes between views.",
        low=0.0, high=1.0,
    )  # fmt: skip
    exposure: float = setting(
        0.25, "Standard deviation of a view's brightness about the set's, natural logarithm.",
        low=0.0,
    )  # fmt: skip


def world_views(
    renderer: Renderer,
    world: World,
    rng: np.random.Generator,
    count: int,
    size: tuple[int, int],
    config: WorldConfig,
    photometric: PhotometricRecipe,
) -> PosedViews:
    """``count`` views of a world, ``size`` (width, height) as the renderer's: exact depth and pose.

    Raises :class:`DataError` where no views share enough.
    """
    renderer.load(world)
    for _ in range(_FIRST_TRIES):
        drawn = _draw_set(renderer, world, rng, count, size, config)
        if drawn is not None:
            # Depth is exact, so the thresholds for homographies apply.
            return replace(drawn, images=[distort(one, rng, photometric) for one in drawn.images])
    raise DataError(
        f"no views of the world share {config.min_overlap} of their area: lower min_overlap or "
        f"max_baseline"
    )


def exchange_textures(
    world: World, rng: np.random.Generator, draw: Callable[[np.random.Generator], Pixels]
) -> World:
    """The world with every opaque texture replaced by a grey picture (S, S) uint8 of ``draw``.

    Textures with holes stay: the holes are the shape of what they show.
    """
    textures = world.textures.copy()
    side = textures.shape[1]
    for index in np.flatnonzero(textures[..., 1].min(axis=(1, 2)) == 255):
        picture = draw(rng)
        if rng.random() < 0.5:
            picture = np.ascontiguousarray(picture[:, ::-1])
        textures[index, ..., 0] = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return replace(world, textures=textures)


def _draw_set(
    renderer: Renderer,
    world: World,
    rng: np.random.Generator,
    count: int,
    size: tuple[int, int],
    config: WorldConfig,
) -> PosedViews | None:
    """One attempt; None where the first camera sees too little, or too few others fit."""
    low, high = np.radians([config.field_of_view_low_deg, config.field_of_view_high_deg])
    width, height = size
    focal = width / 2 / np.tan(rng.uniform(low, high) / 2)
    matrix = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    lamp = _Lamp(rng, config)
    first = first_camera(rng, world.space)
    depth = renderer.depth(matrix, first)
    if not _sees_enough(depth):
        return None
    distance = float(np.median(depth[depth > 0]))
    if not _DISTANCES_M[0] < distance < _DISTANCES_M[1]:
        return None
    image = lamp.image(renderer.radiance(matrix, first, lamp.light(rng)), depth, rng)
    if not _shows_structure(image):
        return None
    weights = np.array(config.motions)
    motion = MOTIONS[int(rng.choice(len(MOTIONS), p=weights / weights.sum()))]
    views = PosedViews(
        images=[image], depths=[depth], matrices=[matrix], poses=[first], thresholds=HOMOGRAPHY
    )
    largest = config.max_baseline * distance
    for _ in range(_NEXT_TRIES * (count - 1)):
        pose = next_camera(
            rng, world.space, first, motion, distance, rng.uniform(0.05, 1) * largest
        )
        if pose is not None and config.turned and rng.random() < config.turned:
            pose = rolled(pose, rng.uniform(-np.pi, np.pi))
        more = None if pose is None else _with_view(views, renderer, pose, config.min_overlap)
        if more is None or pose is None:
            largest *= _SHRINK
            continue
        image = lamp.image(renderer.radiance(matrix, pose, lamp.light(rng)), more.depths[-1], rng)
        views = replace(more, images=[*views.images, image])
        if len(views.images) == count:
            return views
    return None


def _with_view(
    views: PosedViews, renderer: Renderer, pose: Array, min_overlap: float
) -> PosedViews | None:
    """``views`` with one at ``pose``, still without its image; None if it sees or shares little."""
    matrix = views.matrices[0]
    depth = renderer.depth(matrix, pose)
    if not _sees_enough(depth):
        return None
    last = len(views.poses)
    more = PosedViews(
        images=views.images,
        depths=[*views.depths, depth],
        matrices=[*views.matrices, matrix],
        poses=[*views.poses, pose],
        thresholds=HOMOGRAPHY,
    )
    return more if min(more.overlap(i, last) for i in range(last)) >= min_overlap else None


class _Lamp:
    """Light and exposure of a set's views: what they share, and what changes between them."""

    def __init__(self, rng: np.random.Generator, config: WorldConfig) -> None:
        self._config = config
        self._ambient, self._sky = rng.uniform(0.05, 0.3), rng.uniform(0.3, 1.0)
        self._mean, self._gamma = rng.uniform(0.32, 0.6), rng.uniform(0.55, 0.9)
        self._relit = rng.random() < config.relit
        self._sun = _direction(rng) * rng.uniform(0.0, 0.4)

    def light(self, rng: np.random.Generator) -> Light:
        sun, ambient = self._sun, self._ambient
        if self._relit:
            sun, ambient = _direction(rng) * rng.uniform(0.0, 0.6), rng.uniform(0.05, 0.3)
        return Light(ambient, (float(sun[0]), float(sun[1]), float(sun[2])), self._sky)

    def image(
        self,
        radiance: NDArray[np.float32],
        depth: NDArray[np.float32],
        rng: np.random.Generator,
    ) -> Pixels:
        gamma = self._gamma * np.exp(rng.normal(0, 0.1 if self._relit else 0.0))
        # By the surfaces: a bright sky would leave them black.
        gain = gain_for(radiance[depth > 0], self._mean, gamma)
        return expose(radiance, gain * np.exp(rng.normal(0, self._config.exposure)), gamma)


def _direction(rng: np.random.Generator) -> Array:
    """A random direction (3,) from above, of length 1."""
    vector = rng.normal(size=3)
    vector[2] = abs(vector[2])
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9))


def _sees_enough(depth: NDArray[np.float32]) -> bool:
    """Whether a view shows surfaces, and none right before the camera."""
    seen = depth > 0
    return float(seen.mean()) >= _MIN_SEEN and float(np.percentile(depth[seen], 5)) >= _NEAREST_M


def _shows_structure(image: Pixels) -> bool:
    """Whether there is anything to find keypoints on."""
    smooth = cv2.GaussianBlur(image, (0, 0), 1.5)
    return float(image.std()) > 14 and float(cv2.Laplacian(smooth, cv2.CV_32F).std()) > 1.5
