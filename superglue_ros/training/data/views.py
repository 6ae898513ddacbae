"""View sets: several images of one scene with ground truth between every two of them.

Four kinds: homographies of one photograph, rendered rooms of photographs, worlds of games
(:mod:`superglue_ros.training.data.world_views`), and RGB-D sequences.
k views give k (k - 1) ordered pairs for k detector passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import DataError
from superglue_ros.geometry.depth_overlap import mutual_overlap, project_depth
from superglue_ros.geometry.ground_truth import (
    HOMOGRAPHY,
    INDOOR,
    PAPER,
    LabelRule,
    LabelThresholds,
    MatchLabels,
    Projection,
    label_matches,
    project_homography,
)
from superglue_ros.settings import setting
from superglue_ros.synthetic import rooms
from superglue_ros.synthetic.homographies import HomographyRecipe, sample_homography, warp
from superglue_ros.synthetic.photometric import PhotometricRecipe, distort
from superglue_ros.synthetic.rendering import Texture, render

GreyImage = NDArray[np.uint8]
Array = NDArray[np.float64]


class ViewSet(Protocol):
    """Grey images (H, W) uint8 of one scene, and where keypoints of one appear in another."""

    @property
    def images(self) -> Sequence[GreyImage]:
        """Grey images (H, W) uint8."""
        ...

    @property
    def thresholds(self) -> LabelThresholds:
        """Thresholds according to the accuracy of the ground truth."""
        ...

    def project(self, keypoints: NDArray[np.floating], i: int, j: int) -> Projection:
        """Keypoints (N, 2) of view ``i`` in view ``j``."""
        ...


@dataclass(frozen=True, eq=False)
class HomographyViews:
    """Views of a plane.

    ``from_first[i]`` (3, 3) maps pixels of view 0 to pixels of view i, ``source_from_first`` those
    of view 0 to pixels of the photograph.
    """

    images: Sequence[GreyImage]
    from_first: Sequence[Array]
    source_from_first: Array
    thresholds: LabelThresholds = HOMOGRAPHY

    def project(self, keypoints: NDArray[np.floating], i: int, j: int) -> Projection:
        """See :class:`ViewSet`."""
        height, width = self.images[j].shape
        homography = self.from_first[j] @ np.linalg.inv(self.from_first[i])
        return project_homography(keypoints, homography, width, height)


@dataclass(frozen=True, eq=False)
class PosedViews:
    """Views with depth (H, W) [m], intrinsics (3, 3) and poses ``T_world_camera`` (4, 4)."""

    images: Sequence[GreyImage]
    depths: Sequence[NDArray[np.floating]]
    matrices: Sequence[Array]
    poses: Sequence[Array]
    thresholds: LabelThresholds = INDOOR

    def project(self, keypoints: NDArray[np.floating], i: int, j: int) -> Projection:
        """See :class:`ViewSet`."""
        T_j_i = np.linalg.inv(self.poses[j]) @ self.poses[i]
        return project_depth(
            keypoints, self.depths[i], self.depths[j], self.matrices[i], self.matrices[j], T_j_i
        )

    def overlap(self, i: int, j: int) -> float:
        """Mean share of one view that the other sees (appendix E)."""
        T_j_i = np.linalg.inv(self.poses[j]) @ self.poses[i]
        return mutual_overlap(
            self.depths[i], self.depths[j], self.matrices[i], self.matrices[j], T_j_i
        )


@dataclass(frozen=True, eq=False)
class ScaledViews:
    """A view set whose images are resized by ``scale``."""

    views: ViewSet
    scale: float
    images: Sequence[GreyImage]

    @classmethod
    def of(cls, views: ViewSet, scale: float) -> ScaledViews:
        """``views`` at ``scale``, which must give whole pixels."""
        sizes = [(round(scale * i.shape[1]), round(scale * i.shape[0])) for i in views.images]
        images = [
            np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
            for image, size in zip(views.images, sizes, strict=True)
        ]
        return cls(views, scale, images)

    @property
    def thresholds(self) -> LabelThresholds:
        """Those of the views, in pixels of the resized images."""
        return self.views.thresholds

    def project(self, keypoints: NDArray[np.floating], i: int, j: int) -> Projection:
        """See :class:`ViewSet`."""
        found = self.views.project((keypoints + 0.5) / self.scale - 0.5, i, j)
        points = (found.points + 0.5) * self.scale - 0.5
        return Projection(points, found.hidden, found.unknown)


def label_views(
    views: ViewSet,
    i: int,
    j: int,
    keypoints: tuple[NDArray[np.floating], NDArray[np.floating]],
    rule: LabelRule = PAPER,
) -> MatchLabels:
    """Ground-truth matches of ``keypoints`` (M, 2) of view ``i`` and (N, 2) of view ``j``."""
    first, second = keypoints
    there, back = views.project(first, i, j), views.project(second, j, i)
    return label_matches(first, second, there, back, views.thresholds, rule)


@dataclass(frozen=True)
class RoomConfig:
    """Cameras in rendered rooms."""

    max_baseline: float = setting(
        0.6, "Largest step between views, in parts of the distance to what they look at.", low=0.02
    )
    max_roll_deg: float = setting(20.0, "Largest roll of a camera either way.", low=0.0)
    min_overlap: float = setting(0.15, "View sets that share less are drawn again.", low=0.0)
    field_of_view_low_deg: float = setting(50.0, "Narrowest horizontal field of view.", low=10.0)
    field_of_view_high_deg: float = setting(90.0, "Widest horizontal field of view.", high=140.0)


def homography_views(
    image: GreyImage,
    rng: np.random.Generator,
    count: int,
    recipe: HomographyRecipe,
    photometric: PhotometricRecipe,
) -> HomographyViews:
    """``count`` views of a full-size photograph, all inside it (appendix E)."""
    from_first: list[Array] = [np.eye(3)]
    from_first += [np.asarray(sample_homography(rng, recipe)) for _ in range(count - 1)]
    size = np.array([recipe.width - 1.0, recipe.height - 1.0])
    corners = np.array([[[0, 0], [size[0], 0], size, [0, size[1]]]])
    seen = np.concatenate(
        [cv2.perspectiveTransform(corners, np.linalg.inv(h))[0] for h in from_first]
    )
    low, high = seen.min(axis=0), seen.max(axis=0)
    room = np.array([image.shape[1] - 1.0, image.shape[0] - 1.0])
    largest = float((room / (high - low)).min())
    # Most crops are as large as possible; small ones, which show little, are rare.
    scale = largest * rng.uniform(recipe.min_crop, 1.0)
    offset = rng.uniform(0.0, 1.0, 2) * (room - scale * (high - low)) - scale * low
    source_from_first = np.array([[scale, 0, offset[0]], [0, scale, offset[1]], [0, 0, 1.0]])
    images = [
        distort(
            warp(image, source_from_first @ np.linalg.inv(h), (recipe.width, recipe.height)),
            rng,
            photometric,
        )
        for h in from_first
    ]
    return HomographyViews(images, from_first, source_from_first)


def room_views(
    textures: Sequence[Texture],
    rng: np.random.Generator,
    count: int,
    width: int,
    height: int,
    config: RoomConfig,
    photometric: PhotometricRecipe,
) -> PosedViews:
    """``count`` rendered views of a random room: wide baselines, occlusion, exact depth and pose.

    Raises :class:`DataError` where no views share enough.
    """
    for _ in range(50):
        scene = rooms.random_room(rng, textures)
        low, high = np.radians([config.field_of_view_low_deg, config.field_of_view_high_deg])
        focal = width / 2 / np.tan(rng.uniform(low, high) / 2)
        matrix = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
        poses = rooms.random_views(
            rng, scene, count, config.max_baseline, np.radians(config.max_roll_deg)
        )
        rendered = [render(scene, matrix, width, height, pose) for pose in poses]
        images = [distort(image, rng, photometric) for image, _ in rendered]
        depths = [depth for _, depth in rendered]
        # Depth is exact, so the thresholds for homographies apply, not those for noisy sensors.
        views = PosedViews(
            images=images,
            depths=depths,
            matrices=[matrix] * count,
            poses=poses,
            thresholds=HOMOGRAPHY,
        )
        shared = min(views.overlap(i, j) for i in range(count) for j in range(i))
        if shared >= config.min_overlap:
            return views
    raise DataError(
        f"no rendered views share {config.min_overlap} of their area: lower min_overlap or "
        f"max_baseline"
    )
