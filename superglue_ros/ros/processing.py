"""One bundle of messages at a time, on the worker: convert, one core call, publish.

In two stages: conversion and extraction, which know no map and publish nothing, then the rest.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sensor_msgs.msg import CameraInfo, Image

from superglue_ros.data.message_reading import frame_id_from_message
from superglue_ros.errors import DataError, ImageError, SuperglueError
from superglue_ros.mapping.verification import FramePair
from superglue_ros.msg import MatcherStatus
from superglue_ros.networks.device import resolve_device
from superglue_ros.pipeline import (
    Extraction,
    FrameResult,
    Pipeline,
    extract_together,
    match_together,
)
from superglue_ros.rig import Rig
from superglue_ros.ros import convert
from superglue_ros.ros.announcer import Announcer
from superglue_ros.ros.diagnostics import Counter
from superglue_ros.ros.frames import FrameMaker, FrameNumbers
from superglue_ros.ros.inputs import Bundle, CameraInputs, PeerFeatures
from superglue_ros.ros.map_files import map_file, map_folder, map_to_load
from superglue_ros.ros.masks import StaticMask
from superglue_ros.ros.node_config import NodeConfig
from superglue_ros.ros.outputs import Outputs
from superglue_ros.ros.parameters import Settings
from superglue_ros.srv import MatchPair
from superglue_ros.stage_clock import StageSeconds
from superglue_ros.types import Frame, FrameId, MatchStatus, PoseStatus

_LONGEST_REFUSAL = 1000  # characters; a text may quote what the sender wrote
_NO_SECONDS = StageSeconds(0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class _Begun:
    """An image after the first stage: a frame, or the error of its conversion.

    ``queue_seconds`` it waited for the worker.
    """

    id: FrameId
    frame: Frame | Exception
    queue_seconds: float


@dataclass(frozen=True, eq=False)
class Begun:
    """What arrived together after the first stage; ``extraction`` is that of all frames, or failed.

    ``at``: when the stage ended, ``time.monotonic()``.
    """

    peers: tuple[PeerFeatures, ...]
    images: tuple[_Begun, ...]
    extraction: Extraction | Exception
    at: float


class FrameProcessor:
    """Processes bundles of messages. Only the worker may call its methods.

    :meth:`extract` may run while another thread is in :meth:`match`, nothing else at once.

    ``pipelines`` and ``masks``: one for each camera. ``inputs``: whose counts the status tells.
    ``failures``: images in a row that failed with an unforeseen error. ``unplaced``: why the last
    frame has no pose in the map, empty if it has one or no map with poses is loaded.
    """

    def __init__(
        self,
        pipelines: Sequence[Pipeline],
        settings: Settings,
        outputs: Outputs,
        counter: Counter,
        announcer: Announcer,
        numbers: FrameNumbers,
        inputs: Callable[[], Sequence[CameraInputs]],
        masks: Sequence[StaticMask | None],
    ) -> None:
        self.pipelines = pipelines
        self.last_refusal = self.unplaced = ""
        self.failures = 0
        self.last_seconds = _NO_SECONDS
        self._settings = settings
        self._outputs = outputs
        self._counter = counter
        self._announcer = announcer
        self._frames = FrameMaker(settings, numbers, announcer, masks)
        self._inputs = inputs
        self._time_jumps: dict[int, int] = {}  # of each camera's pipeline, as last announced

    @property
    def device(self) -> str:
        """Where the networks run."""
        return self.pipelines[0].rig.device

    @property
    def keyframes(self) -> int:
        """Keyframes kept, of all cameras."""
        return sum(len(pipeline.keyframes) for pipeline in self.pipelines)

    @property
    def placed_keyframes(self) -> int:
        """Those of them that have a pose in the map."""
        return sum(pipeline.keyframes.placed for pipeline in self.pipelines)

    def configure(self, settings: Settings) -> None:
        """Apply new settings from the next frame on."""
        self._settings = self._frames.settings = settings
        for pipeline in self.pipelines:
            pipeline.configure(settings.core)

    def reset(self) -> None:
        """Drop all keyframes; ids keep counting."""
        for pipeline in self.pipelines:
            pipeline.reset()
        self._outputs.forget_images()
        self._counter.add(resets=1)

    def extract(self, arrived: Sequence[Bundle | PeerFeatures]) -> Begun:
        """The first stage: convert images to frames and extract their features; no map, no output.

        At most one bundle of each camera; the network runs once for all bundles.
        """
        images = tuple(self._begun(one) for one in arrived if isinstance(one, Bundle))
        frames = [one.frame for one in images if isinstance(one.frame, Frame)]
        extraction: Extraction | Exception = Extraction((), _NO_SECONDS)
        try:
            if frames:
                extraction = extract_together(self.pipelines[0].rig, frames)
        except Exception as error:  # reported in its turn
            extraction = error
        peers = tuple(one for one in arrived if isinstance(one, PeerFeatures))
        return Begun(peers, images, extraction, time.monotonic())

    def _begun(self, bundle: Bundle) -> _Begun:
        queue_seconds = time.monotonic() - bundle.arrived
        frame_id = self._frames.name(bundle.image.header, bundle.camera_index)
        try:
            return _Begun(frame_id, self._frames.frame(bundle, frame_id), queue_seconds)
        except Exception as error:  # reported in its turn
            return _Begun(frame_id, error, queue_seconds)

    def match(self, begun: Begun) -> None:
        """The second stage: match, keep keyframes, publish; a bad frame is refused."""
        for peer in begun.peers:
            self._process_peer(peer)
        waited = time.monotonic() - begun.at
        frames: list[tuple[Frame, Pipeline, float]] = []
        for one in begun.images:
            queue_seconds = one.queue_seconds + waited
            if isinstance(one.frame, Exception):
                self._refuse_for(one.frame, one.id, queue_seconds)
            else:
                frames.append((one.frame, self.pipelines[one.id.camera_index], queue_seconds))
        if frames:
            self._match_frames(frames, begun.extraction)

    def _process_peer(self, peer: PeerFeatures) -> None:
        """Match another robot's features against the keyframes of every camera."""
        settings, message = self._settings, peer.message
        queue_seconds = time.monotonic() - peer.arrived
        frame_id = FrameId(id=0)  # until the message has named it
        try:
            frame_id = frame_id_from_message(message.frame)
            frame = convert.keyframe_from_message(message)
            pairs = [
                pair
                for pipeline in self.pipelines
                for pair in pipeline.match_peer(frame, settings.node.inputs.peer_keyframes)
            ]
            self._outputs.publish_pairs(pairs)
        except Exception as error:
            self._refuse_for(
                error, frame_id, queue_seconds, f"features of robot {frame_id.robot!r}: "
            )
        else:
            self._counter.add(matched=1)

    def _match_frames(
        self, frames: Sequence[tuple[Frame, Pipeline, float]], extraction: Extraction | Exception
    ) -> None:
        outcomes: Sequence[FrameResult | Exception]
        try:
            if isinstance(extraction, Exception):
                raise extraction
            outcomes = match_together([pipeline for _, pipeline, _ in frames], extraction)
        except Exception as error:
            outcomes = [error] * len(frames)
        for (frame, pipeline, queue_seconds), outcome in zip(frames, outcomes, strict=True):
            self._announce_jump(pipeline, frame.id)
            if isinstance(outcome, FrameResult):
                try:
                    self._publish(frame, outcome, queue_seconds)
                except Exception as error:  # every frame that was received is accounted for
                    self._refuse_for(error, frame.id, queue_seconds)
            else:
                self.failures += not isinstance(outcome, SuperglueError)
                self._refuse_for(outcome, frame.id, queue_seconds)

    def _announce_jump(self, pipeline: Pipeline, frame_id: FrameId) -> None:
        """Announce a jump back in time, even if its first frame is refused."""
        known = self._time_jumps.get(frame_id.camera_index, 0)
        self._time_jumps[frame_id.camera_index] = pipeline.time.count
        if pipeline.time.count > known:
            self._outputs.forget_images()
            self._counter.add(resets=1)
            self._announcer.say(
                f"time jumped backwards to {frame_id.stamp_ns * 1e-9:.3f} s: all keyframes are "
                f"dropped, frame ids go on counting at {frame_id.id}"
            )

    def add_keyframe(self, image: Image, camera_info: CameraInfo) -> FrameId:
        """Make an image of the first camera a keyframe regardless of the rules; published as usual.

        An image of zero size means the newest frame. Raises :class:`SuperglueError`.
        """
        pipeline = self.pipelines[0]
        if image.width or image.height:
            frame_id = self._frames.name(image.header, camera_index=0)
            newest = pipeline.time.newest_ns()
            if newest is not None and frame_id.stamp_ns < newest:
                raise ImageError(
                    f"the image's stamp {frame_id.stamp_ns * 1e-9:.3f} lies before the newest "
                    f"frame's, {newest * 1e-9:.3f}: reset first, or give it a later stamp"
                )
            arrived = time.monotonic()
            frame = self._frames.frame(
                Bundle(
                    camera_index=0,
                    image=image,
                    camera_info=camera_info,
                    keypoints=None,
                    depth=None,
                    arrived=arrived,
                ),
                frame_id,
            )
            self._counter.add(received=1)
            result = pipeline.process(frame)
            self._announce_jump(pipeline, frame_id)
            self._publish(frame, result, 0.0)
        kept = pipeline.keep_newest()
        if kept is None:
            raise ImageError("there is no frame yet: send an image")
        return kept

    def match_pair(self, request: MatchPair.Request) -> FramePair:
        """Match two images, independently of the map. Raises :class:`SuperglueError`."""
        frames = [
            self._frames.frame(
                Bundle(
                    camera_index=0,
                    image=image,
                    camera_info=info,
                    keypoints=None,
                    depth=None,
                    arrived=time.monotonic(),
                ),
                self._frames.name(image.header, camera_index=0),
                of_a_camera=False,
            )
            for image, info in (
                (request.reference, request.reference_info),
                (request.query, request.query_info),
            )
        ]
        return self.pipelines[0].match_pair(frames[0], frames[1])

    def save_map(self, name: str) -> int:
        """Write the keyframes of every camera; returns their number. Raises :class:`DataError`."""
        last = self._frames.numbers.last
        files = self._map_files(map_file, name)
        try:
            files[0].parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot make the folder of maps: {error}") from error
        return sum(
            pipeline.save_map(file, last)
            for pipeline, file in zip(self.pipelines, files, strict=True)
        )

    def load_map(self, name: str) -> int:
        """Replace all keyframes by those of a file or folder; returns their number.

        New frames are numbered above all frames of the saved map. Raises
        :class:`SuperglueError` and then changes nothing.
        """
        files = self._map_files(map_to_load, name)
        # What an outside front-end will send is not known yet.
        outside = self._settings.node.inputs.keypoints
        kind = "" if outside else self.pipelines[0].rig.front_end.detector
        maps = [p.read_map(file, kind) for p, file in zip(self.pipelines, files, strict=True)]
        for stored in maps:
            self._frames.numbers.reserve(stored.last_frame)
        self._outputs.forget_images()
        return sum(p.take_map(stored) for p, stored in zip(self.pipelines, maps, strict=True))

    def _map_files(self, file_of: Callable[[Path, str, int | None], Path], name: str) -> list[Path]:
        """The file with one camera; with several, one each, with its number in the name."""
        folder = map_folder(self._settings.node.maps.folder)
        if len(self.pipelines) == 1:
            return [file_of(folder, name, None)]
        return [file_of(folder, name, index) for index in range(len(self.pipelines))]

    def _publish(self, frame: Frame, result: FrameResult, queue_seconds: float) -> None:
        if result.stereo is not None:
            self._check_rows(result.stereo)
        node = self._settings.node
        self._outputs.publish_result(frame, result, node.outputs.descriptors, node.maps.frame_id)
        self.last_seconds, self.failures, self.unplaced = result.seconds, 0, result.unplaced
        placed = int(result.map_pose is not None)
        self._counter.add(matched=1, masked=result.masked, placed=placed)
        self._publish_status(frame.id, queue_seconds, result.seconds)

    def _check_rows(self, stereo: FramePair) -> None:
        """Warn about a stereo pair whose matches do not lie on equal rows."""
        ok = stereo.matches.status is MatchStatus.OK
        if not ok or stereo.pose.status is not PoseStatus.REJECTED:
            return
        self._counter.add(stereo_rejected=1)
        self._announcer.throttled(
            "stereo rows",
            f"only {stereo.pose.num_inliers} of {stereo.pose.num_matches} stereo matches lie on "
            f"equal rows, so this pair gives no depth: the images are not rectified, not taken "
            f"at the same time, or left and right are swapped",
        )

    def _refuse_for(
        self, error: Exception, frame_id: FrameId, queue_seconds: float, what: str = ""
    ) -> None:
        text, trace = f"{what}{error}", ""
        if not isinstance(error, SuperglueError):
            text = f"unforeseen {type(error).__name__}: {text}"
            trace = "\n" + "".join(traceback.format_exception(error))
        self.last_refusal = text.splitlines()[0][:_LONGEST_REFUSAL] if text else ""
        self._counter.add(refused=1)
        # The key is the place that raised, of which there are few: never words of the sender.
        self._announcer.throttled(
            f"refused {origin(error)}", f"frame refused: {text[:_LONGEST_REFUSAL]}{trace}"
        )
        self._outputs.publish_refusal(frame_id)
        self._publish_status(frame_id, queue_seconds, _NO_SECONDS)

    def _publish_status(
        self, frame_id: FrameId, queue_seconds: float, seconds: StageSeconds
    ) -> None:
        counts = self._counter.snapshot()
        self._outputs.publish_status(
            MatcherStatus(
                header=convert.header_of(frame_id),
                queue_seconds=queue_seconds,
                extract_seconds=seconds.extract,
                match_seconds=seconds.match,
                geometry_seconds=seconds.geometry,
                received=counts.received,
                matched=counts.matched,
                dropped=counts.dropped,
                refused=counts.refused,
                unsynchronised=sum(camera.unsynchronised for camera in self._inputs()),
                missing=sum(camera.missing for camera in self._inputs()),
                masked=counts.masked,
                resets=counts.resets,
                keyframes=self.keyframes,
                device=self.device,
                precision=self.pipelines[0].rig.precision,
                weights=self.pipelines[0].rig.networks,
                detector=self.pipelines[0].rig.detector,
            )
        )


def origin(error: BaseException) -> str:
    """Kind of an error and the line that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return type(error).__name__ + where


def overlaps(settings: Settings) -> bool:
    """Whether the next images are extracted while these are matched.

    By itself where a stage leaves something idle: the GPU in geometry, or as many processors as
    torch takes. Otherwise the two only delay each other.
    """
    if settings.node.overlap != "auto":
        return settings.node.overlap == "always"
    on_gpu = resolve_device(settings.core.device).type != "cpu"
    return on_gpu or len(os.sched_getaffinity(0)) >= 2 * torch.get_num_threads()


def images_together(config: NodeConfig) -> int:
    """Number of images in one network batch if every camera sends one."""
    return len(config.camera_names) * (2 if config.inputs.stereo else 1)


def warm_up(rig: Rig, images: int) -> None:
    """Run the networks on noise, so that the first frame is not slow.

    Twice: a size of images that comes again is recorded as a CUDA graph.
    """
    noise = np.random.default_rng(0).integers(0, 256, (480, 640), np.uint8)
    for _ in range(2 if rig.front_end.graphed else 1):
        prepared = [rig.matcher.prepare(f) for f in rig.front_end.extract_all([noise] * images)]
        rig.matcher.match_pairs(prepared, prepared)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
