"""A reconstruction from beginning to end: pictures in, models, PLY, page and summary out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from superglue_ros.config import Config
from superglue_ros.data import colmap
from superglue_ros.data.trajectories import Trajectory, write_trajectory
from superglue_ros.errors import DataError
from superglue_ros.mapping.map_io import FILE_OF_A_FOLDER
from superglue_ros.reconstruction import imports, mapper
from superglue_ros.reconstruction.keypoints import move_to_consensus
from superglue_ros.reconstruction.matching import extract, match, settings_of
from superglue_ros.reconstruction.node_map import write_node_map
from superglue_ros.reconstruction.page import write_page
from superglue_ros.reconstruction.pairs import Rule, default_rules, select_pairs
from superglue_ros.reconstruction.pictures import Pictures
from superglue_ros.reconstruction.rolling_shutter import Shutter, without_rolling_shutter
from superglue_ros.reconstruction.store import Store
from superglue_ros.rig import Rig

DATABASE, MODELS, SCENES = "database.db", "sparse", "scenes"
SUMMARY, PAGE = "summary.json", "reconstruction.html"


@dataclass(frozen=True)
class Plan:
    """What to do besides the settings of front-end and matcher.

    ``rules``: which pairs, empty = by the number of images. ``hloc``: features and matches files.
    ``align``: bring models into the world of the pictures' poses. ``shared_camera``: images of one
    size without calibration have one camera. ``readout_s`` of a rolling shutter, None = estimated
    where the images follow each other in time, 0 = a global one.
    """

    rules: tuple[Rule, ...] = ()
    mapper: mapper.MapperOptions = field(default_factory=mapper.MapperOptions)
    database: Path | None = None
    hloc: tuple[Path, Path] | None = None
    align: bool = True
    shared_camera: bool = True
    readout_s: float | None = None


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """``models`` of pycolmap, the largest first; ``summary`` as in ``summary.json``."""

    models: Sequence[Any]
    summary: dict[str, Any]


def reconstruct(pictures: Pictures, output: Path, config: Config, plan: Plan) -> Reconstruction:
    """Reconstruct into the folder ``output``; a run that was stopped goes on where it was.

    Raises :class:`DataError` on fewer than two images and where nothing can be placed, and
    :class:`ConfigError` without pycolmap.
    """
    mapper.require_pycolmap()
    if len(pictures) < 2:
        raise DataError(f"{pictures.root} has {len(pictures)} image to use: two make a pair")
    output.mkdir(parents=True, exist_ok=True)
    database = output / DATABASE
    if plan.database is not None:
        imports.copy_database(plan.database, database)
    moved = 0.0
    with Store(database) as store:
        if plan.database is None:
            _fill(store, pictures, config, plan)
        else:
            _check_names(store, pictures)
    mapper.verify_pairs(database, plan.mapper)
    with Store(database) as store:
        if plan.database is None and config.refinement != "none":
            moved = move_to_consensus(store)
        counts = store.counts()
    poses = {n: p for n, p in zip(pictures.names, pictures.poses, strict=True) if p is not None}
    built = mapper.build(database, pictures.root, output / MODELS, plan.mapper, poses)
    shutters = [_without_rolling_shutter(model, pictures, plan) for model in built]
    models = [shutter.model if shutter else m for shutter, m in zip(shutters, built, strict=True)]
    written = [
        _write(number, model, pictures, output, plan) | {"rolling_shutter": _figures(shutter)}
        for number, (model, shutter) in enumerate(zip(models, shutters, strict=True))
    ]
    summary = {
        "images": len(pictures),
        **{name: counts[name] for name in ("pairs", "verified_pairs", "matches", "inliers")},
        "keypoints_moved_px": moved,
        "mapper": plan.mapper.kind,
        "models": written,
        "node_map": _node_map(models[0], pictures, output, config)
        if plan.database is None and written[0]["aligned"]
        else 0,
        "unplaced": _unplaced(pictures, models),
    }
    (output / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    write_page(output / PAGE, f"{pictures.title}: reconstruction", models)
    return Reconstruction(models, summary)


def _fill(store: Store, pictures: Pictures, config: Config, plan: Plan) -> None:
    """Images, features and matches."""
    cameras = _cameras(pictures, plan.shared_camera)
    store.bind({"images": str(pictures.root.resolve())})
    store.add_images(pictures.names, cameras, [c is not None for c in pictures.cameras])
    if plan.hloc is not None:
        store.bind({"features": str(plan.hloc[0])})
        imports.read_hloc(*plan.hloc, pictures.names, store)
        return
    store.bind(settings_of(config))
    rig = Rig(config)
    extract(pictures, store, rig)
    images = store.images
    pairs = select_pairs(
        plan.rules or default_rules(len(pictures), pictures.ordered),
        pictures.names,
        pictures.poses,
        lambda: [rig.pool(store.features(images[name])) for name in pictures.names],
    )
    match(pictures, pairs, store, rig)


def _cameras(pictures: Pictures, shared: bool) -> list[colmap.ColmapCamera]:
    """A camera for each image, one object for those that share theirs."""
    made: dict[Any, colmap.ColmapCamera] = {}
    cameras = []
    for place, camera in enumerate(pictures.cameras):
        if camera is not None:
            one = colmap.to_colmap(camera, camera.width, camera.height)
            key: Any = (one.model, one.width, one.height, one.parameters.tobytes())
        else:
            height, width = pictures.grey(place).shape
            one = colmap.to_colmap(None, width, height)
            key = (width, height) if shared else place
        cameras.append(made.setdefault(key, one))
    return cameras


def _check_names(store: Store, pictures: Pictures) -> None:
    missing = sorted(set(store.images) - set(pictures.names))
    if missing:
        raise DataError(
            f"{len(missing)} images of the database are not below {pictures.root}, the first of "
            f"them {missing[0]}: give the folder that its names are relative to"
        )


def _without_rolling_shutter(model: Any, pictures: Pictures, plan: Plan) -> Shutter | None:
    """None where it is not asked for, or cannot be known; a database keeps its own pixels."""
    if not pictures.ordered or plan.readout_s == 0 or plan.database is not None:
        return None
    options = plan.mapper
    fixed = options.kind == "triangulate"
    return without_rolling_shutter(
        model,
        pictures.stamp_of,
        lambda one: mapper.adjust(one, options.refine_cameras, fixed_poses=fixed),
        plan.readout_s,
    )


def _figures(shutter: Shutter | None) -> dict[str, float] | None:
    if shutter is None:
        return None
    return {
        "readout_s": shutter.readout_s,
        "cost_before": shutter.cost_before,
        "cost_after": shutter.cost_after,
    }


def _write(number: int, model: Any, pictures: Pictures, output: Path, plan: Plan) -> dict[str, Any]:
    """Align a model, write what is made of it, and return its figures."""
    focal = mapper.focal_lengths_by_images(model) if not plan.mapper.refine_cameras else []
    scale = mapper.align(model, pictures.positions) if plan.align else None
    folder = output / MODELS / str(number)
    model.write(folder)
    model.export_PLY(folder / "points.ply")
    poses = mapper.poses_of(model)
    stamps = pictures.stamp_of
    placed = sorted((stamps[name], name) for name in poses)
    trajectory = Trajectory(
        np.array([stamp for stamp, _ in placed], np.int64),
        np.stack([poses[name] for _, name in placed]),
    )
    write_trajectory(folder / "poses.tum", trajectory)
    figures = {
        "images": len(poses),
        "points": int(model.num_points3D()),
        "observations": int(model.compute_num_observations()),
        "track_length": float(model.compute_mean_track_length()),
        "reprojection_px": float(model.compute_mean_reprojection_error()),
        "aligned": scale is not None,
        "wrong_focal_lengths": [
            {"camera": camera, "given_px": given, "by_images_px": seen}
            for camera, given, seen in focal
        ],
    }
    if scale is not None:
        figures["errors"] = _errors(trajectory, pictures)
    return figures


def _node_map(model: Any, pictures: Pictures, output: Path, config: Config) -> int:
    """The number of keyframes written to the node's map of the largest model."""
    with Store(output / DATABASE) as store:
        if any(store.features(store.images[n]).descriptors is None for n in mapper.poses_of(model)):
            return 0
        return write_node_map(output / FILE_OF_A_FOLDER, model, store, pictures.stamp_of, config)


def _errors(trajectory: Trajectory, pictures: Pictures) -> dict[str, Any]:
    """ATE and RPE against the pictures' poses, after alignment by a similarity."""
    from superglue_ros.evaluation.bag.trajectories import trajectory_errors

    known = [i for i, pose in enumerate(pictures.poses) if pose is not None]
    poses = np.stack([pictures.poses[i] for i in known])  # type: ignore[misc]
    truth = Trajectory(pictures.stamps_ns[known], poses)
    return trajectory_errors(trajectory, truth, correct_scale=True)


def _unplaced(pictures: Pictures, models: Sequence[Any]) -> list[str]:
    placed = {name for model in models for name in mapper.poses_of(model)}
    return [name for name in pictures.names if name not in placed]
