"""COLMAP's verification and mapping through pycolmap, on a store's matches.

pycolmap's bundle adjustment weighs all observations alike: it takes no standard deviations. Those
of the matches count before it, where the keypoints move to what their matches agree on
(:mod:`keypoints`); its loss is Huber's here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from superglue_ros.errors import ConfigError, DataError
from superglue_ros.evaluation.progress import console

KINDS = ("incremental", "global", "triangulate")
SMALLEST_MODEL = 3
_FOCAL_DIFFERENCE = 0.03
_ERROR_DIFFERENCE = 0.05
_LEAST_IMAGES_FOR_FOCAL = 8
_LARGEST_ERROR_PX, _SMALLEST_ANGLE_DEG = 4.0, 1.5  # COLMAP's own limits

Pose = NDArray[np.float64]


@dataclass(frozen=True)
class MapperOptions:
    """``kind``: one of :data:`KINDS`. ``refine_cameras``: focal length and distortion too.

    ``threshold_px``: largest distance to the epipolar line of a verified match.
    """

    kind: str = "incremental"
    refine_cameras: bool = False
    threshold_px: float = 4.0
    seed: int = 0


def require_pycolmap() -> Any:
    """The module; raises :class:`ConfigError` with the command that installs it."""
    try:
        import pycolmap
    except ImportError as error:
        raise ConfigError(
            "reconstruction and localization need pycolmap: pip install pycolmap, or "
            "pip install 'superglue_ros[reconstruction]'"
        ) from error
    pycolmap.logging.minloglevel = int(pycolmap.logging.ERROR)
    return pycolmap


def verify_pairs(database: Path, options: MapperOptions) -> None:
    """Estimate the two-view geometry of every matched pair that has none."""
    pycolmap = require_pycolmap()
    how, geometry = pycolmap.GeometricVerifierOptions(), pycolmap.TwoViewGeometryOptions()
    how.num_threads = torch.get_num_threads()
    geometry.ransac.max_error = options.threshold_px
    geometry.ransac.random_seed = options.seed
    pycolmap.set_random_seed(options.seed)
    with _failing_clearly(database):
        pycolmap.geometric_verification(
            database, verifier_options=how, two_view_geometry_options=geometry
        )


def build(
    database: Path,
    images: Path,
    output: Path,
    options: MapperOptions,
    poses: Mapping[str, Pose] | None = None,
) -> list[Any]:
    """The models (pycolmap.Reconstruction), the largest first, as ``output/0``, ``output/1``, ...

    ``poses`` (``T_world_camera`` by name) are those that ``triangulate`` keeps. Raises
    :class:`DataError` where no two images can be placed.
    """
    pycolmap = require_pycolmap()
    work = output.with_name(f".{output.name}.making")
    for folder in (work, output):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    with _failing_clearly(database):
        if options.kind == "global":
            found = _global(pycolmap, database, images, work, options)
        elif options.kind == "triangulate":
            found = [_triangulated(pycolmap, database, images, work, options, poses or {})]
        else:
            found = _incremental(pycolmap, database, images, work, options)
    shutil.rmtree(work)
    models = sorted(found, key=lambda model: -model.num_reg_images())
    if not models or models[0].num_points3D() == 0:
        raise DataError(
            "no two images could be placed: the images have too few verified matches, or too "
            "little parallax. Give more pairs (--pairs exhaustive), or images that overlap"
        )
    for number, model in enumerate(models):
        (output / str(number)).mkdir()
        adjust(model, options.refine_cameras, fixed_poses=options.kind == "triangulate")
        model.write(output / str(number))
    return models


def adjust(model: Any, refine_cameras: bool, fixed_poses: bool = False) -> float:
    """Bundle adjustment with Huber's loss at one pixel, in place.

    Returns the cost of an observation, half the robust squared error [px^2].
    """
    pycolmap = require_pycolmap()
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_focal_length = options.refine_extra_params = refine_cameras
    options.refine_rig_from_world = not fixed_poses
    options.ceres.loss_function_type = pycolmap.LossFunctionType.HUBER
    options.ceres.loss_function_scale = 1.0
    options.ceres.solver_options.num_threads = torch.get_num_threads()
    config = pycolmap.BundleAdjustmentConfig()
    for image in model.reg_image_ids():
        config.add_image(image)
    if not fixed_poses:
        config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    solved = pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    model.update_point_3d_errors()
    return float(solved.ceres_summary.final_cost) / max(model.compute_num_observations(), 1)


def drop_outliers(model: Any) -> None:
    """Drop observations with an error beyond 4 px, and points seen under less than 1.5 degrees."""
    pycolmap = require_pycolmap()
    pycolmap.ObservationManager(model).filter_all_points3D(_LARGEST_ERROR_PX, _SMALLEST_ANGLE_DEG)


def focal_lengths_by_images(model: Any) -> list[tuple[int, float, float]]:
    """Cameras whose focal length the images contradict: (camera, given, as the images say).

    The model is adjusted once more with free focal lengths. A camera is named where its own
    differs by more than 3 % and the reprojection error falls by more than 5 %.
    """
    pycolmap = require_pycolmap()
    if model.num_reg_images() < _LEAST_IMAGES_FOR_FOCAL:
        return []
    trial = pycolmap.Reconstruction(model)
    before = trial.compute_mean_reprojection_error()
    adjust(trial, refine_cameras=True)
    trial.update_point_3d_errors()
    if trial.compute_mean_reprojection_error() > (1 - _ERROR_DIFFERENCE) * before:
        return []
    given = {number: c.mean_focal_length() for number, c in model.cameras.items()}
    freed = {number: trial.cameras[number].mean_focal_length() for number in given}
    return [
        (number, given[number], freed[number])
        for number in sorted(given)
        if abs(freed[number] / given[number] - 1) > _FOCAL_DIFFERENCE
    ]


def poses_of(model: Any) -> dict[str, Pose]:
    """``T_world_camera`` (4, 4) of every placed image by its name."""
    poses = {}
    for number in model.reg_image_ids():
        image = model.images[number]
        pose = np.eye(4)
        pose[:3] = image.cam_from_world().inverse().matrix()
        poses[image.name] = pose
    return dict(sorted(poses.items()))


def align(model: Any, positions: Mapping[str, NDArray[np.float64]]) -> float | None:
    """Bring the model into the world of ``positions`` (3,) by a similarity; returns its scale.

    Least squares over all images that have a position; None where they are fewer than three.
    """
    pycolmap = require_pycolmap()
    own = poses_of(model)
    names = [name for name in own if name in positions]
    if len(names) < 3:
        return None
    source = np.stack([own[name][:3, 3] for name in names])
    target = np.stack([positions[name] for name in names])
    found = pycolmap.estimate_sim3d(source, target)
    if found is None:
        return None
    model.transform(found)
    return float(found.scale)


def _incremental(
    pycolmap: Any, database: Path, images: Path, work: Path, options: MapperOptions
) -> list[Any]:
    settings = _pipeline(pycolmap, options)
    settings.min_model_size = SMALLEST_MODEL
    with Progress(console=console) as progress:
        total = pycolmap.Database.open(database).num_images()
        task = progress.add_task("mapping", total=total)
        models = pycolmap.incremental_mapping(
            database,
            images,
            work,
            settings,
            initial_image_pair_callback=lambda: progress.advance(task, 2),
            next_image_callback=lambda: progress.advance(task),
        )
        progress.update(task, completed=total)
    return list(models.values())


def _global(
    pycolmap: Any, database: Path, images: Path, work: Path, options: MapperOptions
) -> list[Any]:
    settings = pycolmap.GlobalPipelineOptions()
    settings.min_model_size = SMALLEST_MODEL
    settings.num_threads = settings.mapper.num_threads = torch.get_num_threads()
    settings.random_seed = settings.mapper.random_seed = options.seed
    adjustment = settings.mapper.bundle_adjustment
    adjustment.refine_focal_length = adjustment.refine_extra_params = options.refine_cameras
    return list(pycolmap.global_mapping(database, images, work, settings).values())


def _triangulated(
    pycolmap: Any,
    database: Path,
    images: Path,
    work: Path,
    options: MapperOptions,
    poses: Mapping[str, Pose],
) -> Any:
    tables = pycolmap.Database.open(database)
    model = pycolmap.Reconstruction()
    model.load(pycolmap.DatabaseCache.create(tables, pycolmap.DatabaseCacheOptions()))
    placed = 0
    for _number, image in list(model.images.items()):
        pose = poses.get(image.name)
        if pose is None:
            continue
        inverse = np.linalg.inv(pose)
        turn = pycolmap.Rotation3d(inverse[:3, :3])
        model.frames[image.frame_id].rig_from_world = pycolmap.Rigid3d(turn, inverse[:3, 3])
        model.register_frame(image.frame_id)
        placed += 1
    if placed < 2:
        raise DataError("triangulation needs the poses of two images: give a sequence with poses")
    settings = _pipeline(pycolmap, options)
    return pycolmap.triangulate_points(model, database, images, work, options=settings)


def _pipeline(pycolmap: Any, options: MapperOptions) -> Any:
    settings = pycolmap.IncrementalPipelineOptions()
    settings.num_threads = torch.get_num_threads()
    settings.random_seed = options.seed
    settings.ba_refine_focal_length = settings.ba_refine_extra_params = options.refine_cameras
    settings.mapper.abs_pose_refine_focal_length = options.refine_cameras
    settings.mapper.abs_pose_refine_extra_params = options.refine_cameras
    return settings


@contextmanager
def _failing_clearly(database: Path) -> Iterator[None]:
    """The errors of pycolmap as :class:`DataError` that names the database."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        raise DataError(f"COLMAP failed on {database}: {error}") from error
