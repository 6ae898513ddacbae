"""A recording frame by frame: its image, what the matcher said of it, and the map until then."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.bag_sequences import BagSequence, SequenceTopics
from superglue_ros.data.bags import BagReader
from superglue_ros.data.image import to_grey
from superglue_ros.data.message_reading import stamp_to_ns, transform_from_message
from superglue_ros.data.sequences.base import ImageSequence, SequenceItem, open_sequence
from superglue_ros.errors import ConfigError
from superglue_ros.evaluation.bag.outcomes import RESULTS, FrameOutcome, offline, recorded
from superglue_ros.geometry.camera import Camera
from superglue_ros.mapping.verification import FramePair
from superglue_ros.pipeline import Pipeline

RELOCALISED = "/relocalised_pose"


@dataclass(frozen=True, eq=False)
class Step:
    """One frame. ``pairs``: most inliers first; ``seconds``: extract, match, geometry.

    ``stamps_ns`` and ``poses`` (N, 4, 4) ``T_world_camera`` of all frames that the back-end has
    placed until now, in the order of their stamps, and ``landmarks`` (M, 3), in its world: the axes
    of the first camera.
    """

    item: SequenceItem
    pairs: tuple[FramePair, ...]
    seconds: tuple[float, float, float]
    stamps_ns: tuple[int, ...]
    poses: NDArray[np.float64]
    landmarks: NDArray[np.float64]


def open_source(path: str, topics: SequenceTopics, depth_unit_m: float | None) -> ImageSequence:
    """A bag, an image folder, or with "" the built-in room."""
    if not path:
        from superglue_ros.synthetic.demo_room import RoomSequence

        return RoomSequence()
    if is_bag(path):
        names = (topics.image, topics.camera_info, topics.depth, topics.ground_truth)
        return BagSequence(path, *names)
    return open_sequence(path, depth_unit_m)


def is_bag(path: str) -> bool:
    """Whether this is a rosbag2 directory or one of its files."""
    place = Path(path)
    return place.suffix in (".mcap", ".db3") or (place / "metadata.yaml").is_file()


def has_results(path: str) -> bool:
    """Whether a bag holds what the node publishes, beside or without the images."""
    with BagReader(path) as bag:
        return all(name in bag.topics for name in RESULTS)


def matched(
    items: Iterable[SequenceItem], pipeline: Pipeline, use_depth: bool
) -> Iterator[tuple[SequenceItem, FrameOutcome]]:
    """Every frame with what the pipeline makes of it."""
    shown, fed = itertools.tee(items)
    grey = (replace(item, image=to_grey(item.image)) for item in fed)
    return zip(shown, offline(grey, pipeline, use_depth), strict=True)


def replayed(
    items: Iterable[SequenceItem], recording: Path
) -> Iterator[tuple[SequenceItem, FrameOutcome]]:
    """Every frame with what a node said of it: nothing of the first one, and of dropped ones."""
    said = {outcome.stamp_ns: outcome for outcome in recorded(recording, complete=False)}
    return ((item, said.get(item.stamp_ns, _nothing(item.stamp_ns))) for item in items)


def relocalised(recording: Path) -> dict[int, NDArray[np.float64]]:
    """``T_map_camera`` (4, 4) by stamp [ns], of what a node said of frames in a loaded map."""
    with BagReader(recording) as bag:
        named = [RELOCALISED] if RELOCALISED in bag.topics else []
        return {
            stamp_to_ns(message.header.stamp): transform_from_message(message.pose.pose)
            for _, _, message in bag.messages(named)
        }


def _nothing(stamp_ns: int) -> FrameOutcome:
    return FrameOutcome(id=0, stamp_ns=stamp_ns, keypoints=0, pairs=(), seconds=(0.0, 0.0, 0.0))


def steps(frames: Iterable[tuple[SequenceItem, FrameOutcome]]) -> Iterator[Step]:
    """The frames with the map that the example back-end builds of them.

    Raises :class:`ConfigError` without GTSAM.
    """
    builder = _Map()
    for item, outcome in frames:
        said = [pair.said for pair in outcome.pairs if pair.said is not None]
        pairs = tuple(sorted(said, key=lambda pair: -pair.pose.num_inliers))
        builder.add(said, item.camera)
        stamps_ns, poses, landmarks = builder.state()
        yield Step(
            item=item,
            pairs=pairs,
            seconds=outcome.seconds,
            stamps_ns=stamps_ns,
            poses=poses,
            landmarks=landmarks,
        )


class _Map:
    """The example back-end, fed frame by frame; without calibration the map stays empty."""

    def __init__(self) -> None:
        try:
            from superglue_ros.back_end.bundle_adjuster import BundleAdjuster
        except ImportError as error:
            raise ConfigError(
                f"the trajectory needs {error.name}: pip install 'superglue_ros[view]'"
            ) from error
        self._back_end = BundleAdjuster()

    def add(self, pairs: Iterable[FramePair], camera: Camera | None) -> None:
        if camera is None:
            return
        added = [self._back_end.add(pair.matches, pair.pose, camera) for pair in pairs]
        if any(added):
            self._back_end.optimise(camera)

    def state(self) -> tuple[tuple[int, ...], NDArray[np.float64], NDArray[np.float64]]:
        scene = self._back_end.scene
        placed = sorted(
            ((frame.stamp_ns, pose) for frame, pose in scene.trajectory.items()),
            key=lambda one: one[0],
        )
        return (
            tuple(stamp for stamp, _ in placed),
            np.array([pose for _, pose in placed], np.float64).reshape(-1, 4, 4),
            scene.points(scene.landmarks),
        )
