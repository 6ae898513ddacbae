"""What the matcher does, streamed to Rerun: images, matches, map and curves over time.

Rerun (rerun-sdk) is imported when a :class:`LiveView` is made: nothing else needs it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.drawing.matches import OUTLIER, Picture, red_to_green, side_by_side
from superglue_ros.errors import ConfigError, DataError
from superglue_ros.geometry.camera import Camera
from superglue_ros.types import FrameId, Matches, MatchKind, PoseStatus, RelativePose

APPLICATION = "superglue_ros"
STAGES = ("extract", "match", "geometry")

_PICTURES_KEPT = 1000
_JPEG_QUALITY = 80
_OLD = (MatchKind.LOOP, MatchKind.RELOCALISE)
_TRAJECTORY, _KEYFRAME, _LANDMARK = (80, 200, 255), (255, 200, 60), (170, 170, 170)  # RGB


@dataclass(frozen=True)
class Destination:
    """Where the stream goes: into a file, to a viewer that runs (its URL), else to a new window."""

    file: Path | None = None
    url: str = ""


class LiveView:
    """A stream to Rerun; a context manager, complete after exit.

    ``z_up``: the world of trajectory and landmarks has z up, as in ROS; otherwise it has the axes
    of a camera (x right, y down, z forward). A rig's first camera is shown. Raises
    :class:`ConfigError` without rerun-sdk, and :class:`DataError` where the file cannot be written.
    """

    def __init__(self, destination: Destination, z_up: bool = False) -> None:
        try:
            import rerun
        except ImportError as error:
            raise ConfigError(
                f"the viewer needs {error.name}: pip install 'superglue_ros[view]'"
            ) from error
        self._rr: Any = rerun
        self._stream: Any = rerun.RecordingStream(APPLICATION)
        self._pictures: OrderedDict[int, bytes] = OrderedDict()
        self._keyframes: set[int] = set()
        self._start_ns: int | None = None
        self._best = (-1, 0)  # stamp of a frame, and most inliers of its pairs
        self._open(destination)
        axes = rerun.ViewCoordinates
        world = axes.RIGHT_HAND_Z_UP if z_up else axes.RIGHT_HAND_Y_DOWN
        self._stream.log("world", world, static=True)

    def __enter__(self) -> LiveView:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()
        self._stream.disconnect()

    # -- what is shown -----------------------------------------------------------------------

    def add_image(self, stamp_ns: int, image: Picture, camera: Camera | None = None) -> None:
        """A frame's image, (H, W) grey or (H, W, 3) BGR uint8, kept for its matches to come."""
        done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        if not done:
            raise DataError(f"an image of shape {image.shape} cannot be compressed")
        jpeg = data.tobytes()
        self._keep(stamp_ns, jpeg)
        self._at(stamp_ns)
        self._log("world/camera/image", self._jpeg(jpeg))
        if camera is not None and camera.focal > 0:
            size = [camera.width, camera.height]
            lens = self._rr.Pinhole(
                image_from_camera=camera.matrix, resolution=size, image_plane_distance=0.3
            )
            self._log("world/camera/image", lens)

    def add_pair(self, matches: Matches, pose: RelativePose) -> None:
        """The verified matches of a frame and a keyframe; loops that hold have a view of their own.

        Of several keyframes of the window the one with most inliers is shown: it should come first.
        """
        if matches.query.camera_index or matches.reference.camera_index:
            return
        if matches.kind is MatchKind.STEREO:
            return
        self._at(matches.query.stamp_ns)
        if matches.kind in _OLD:
            if pose.status is PoseStatus.VALID:
                self._draw("loop", matches)
                self._log(
                    "log",
                    self._rr.TextLog(
                        f"{matches.kind.name.lower()}: frame {matches.query.id} in keyframe "
                        f"{matches.reference.id}, {pose.num_inliers} inliers"
                    ),
                )
            return
        if matches.kind is MatchKind.KEYFRAME:
            self._keyframes.add(matches.reference.stamp_ns)
        best = (matches.query.stamp_ns, int(matches.inlier.sum()))
        if best[0] == self._best[0] and best[1] <= self._best[1]:
            return
        self._best = best
        self._draw("matches", matches)
        self._log("counts/matches", self._rr.Scalars(len(matches)))
        self._log("counts/inliers", self._rr.Scalars(best[1]))

    def add_seconds(self, stamp_ns: int, seconds: Sequence[float]) -> None:
        """The seconds that the frame of this stamp took in each of ``STAGES``."""
        self._at(stamp_ns)
        for stage, value in zip(STAGES, seconds, strict=True):
            self._log(f"milliseconds/{stage}", self._rr.Scalars(1000 * value))

    def add_path(self, stamps_ns: Sequence[int], poses: NDArray[np.float64]) -> None:
        """All poses ``T_world_camera`` (N, 4, 4) so far, in the order of their stamps."""
        if not len(poses):
            return
        self._at(stamps_ns[-1])
        positions = poses[:, :3, 3]
        self._log("world/trajectory", self._rr.LineStrips3D([positions], colors=[_TRAJECTORY]))
        at_keyframes = [stamp in self._keyframes for stamp in stamps_ns]
        self._log(
            "world/keyframes",
            self._rr.Points3D(positions[at_keyframes], colors=[_KEYFRAME], radii=-4.0),
        )
        camera = self._rr.Transform3D(translation=positions[-1], mat3x3=poses[-1, :3, :3])
        self._log("world/camera", camera)

    def add_landmarks(self, stamp_ns: int, landmarks: NDArray[np.floating]) -> None:
        """The map's landmarks (M, 3) at that time, in the world."""
        self._at(stamp_ns)
        points = np.asarray(landmarks, np.float32)
        self._log("world/landmarks", self._rr.Points3D(points, colors=[_LANDMARK], radii=-1.5))

    # -- how ---------------------------------------------------------------------------------

    def _open(self, destination: Destination) -> None:
        layout = _layout()
        if destination.file is not None:
            try:
                self._stream.save(destination.file, default_blueprint=layout)
            except Exception as error:  # of the extension module, as RuntimeError or its own
                raise DataError(f"{destination.file} cannot be written: {error}") from error
        elif destination.url:
            self._stream.connect_grpc(destination.url, default_blueprint=layout)
        else:
            self._stream.spawn(default_blueprint=layout, hide_welcome_screen=True)

    def _at(self, stamp_ns: int) -> None:
        """What is logged next belongs to this time; the first frame's is zero."""
        if self._start_ns is None:
            self._start_ns = stamp_ns
        self._stream.set_time("time", duration=(stamp_ns - self._start_ns) * 1e-9)

    def _log(self, entity: str, what: Any) -> None:
        self._stream.log(entity, what)

    def _keep(self, stamp_ns: int, jpeg: bytes) -> None:
        self._pictures[stamp_ns] = jpeg
        while len(self._pictures) > _PICTURES_KEPT:
            self._pictures.popitem(last=False)

    def _picture(self, frame: FrameId) -> Picture | None:
        """The frame's image; one that is asked for is kept the longest."""
        jpeg = self._pictures.get(frame.stamp_ns)
        if jpeg is None:
            return None
        self._pictures.move_to_end(frame.stamp_ns)
        return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8)

    def _draw(self, entity: str, matches: Matches) -> None:
        """Both images side by side, and a line for every match."""
        query, reference = self._picture(matches.query), self._picture(matches.reference)
        if query is None:
            return
        if reference is None:
            reference = np.zeros_like(query)
        picture, offset = side_by_side(reference, query)
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        self._log(f"{entity}/image", self._jpeg(data.tobytes()))
        lines = np.stack([matches.points_ref, matches.points_query + np.array([offset, 0])], axis=1)
        inlier = matches.inlier
        colours = red_to_green(matches.scores[inlier])[:, ::-1]  # BGR
        good = self._rr.LineStrips2D(lines[inlier], colors=colours, radii=-0.75)
        self._log(f"{entity}/inliers", good)
        thin = self._rr.LineStrips2D(lines[~inlier], colors=[OUTLIER[::-1]], radii=-0.5)
        self._log(f"{entity}/outliers", thin)

    def _jpeg(self, data: bytes) -> Any:
        return self._rr.EncodedImage(contents=data, media_type="image/jpeg")


def _layout() -> Any:
    """Matches and curves on the left, the map and the last loop on the right."""
    import rerun.blueprint as rrb

    return rrb.Blueprint(
        rrb.Horizontal(
            rrb.Vertical(
                rrb.Spatial2DView(origin="matches", name="Matches with the keyframe"),
                rrb.TimeSeriesView(origin="counts", name="Matches and inliers"),
                rrb.TimeSeriesView(origin="milliseconds", name="Milliseconds"),
                row_shares=[2, 1, 1],
            ),
            rrb.Vertical(
                rrb.Spatial3DView(origin="world", name="Trajectory and landmarks"),
                rrb.Horizontal(
                    rrb.Spatial2DView(origin="loop", name="Last loop"),
                    rrb.TextLogView(origin="log", name="Loops"),
                ),
                row_shares=[3, 1],
            ),
        ),
        collapse_panels=True,
    )
