"""What the matcher does, streamed to Rerun: images, matches, map and curves over time.

Rerun (rerun-sdk) is imported when a :class:`LiveView` is made: nothing else needs it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
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
_TRAIL_KEPT = 1000  # poses in a loaded map
_PAUSE_NS = 1_000_000_000  # no line is drawn over a longer time without such a pose
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
        self._camera: Camera | None = None
        self._trail: deque[tuple[int, NDArray[np.float64]]] = deque(maxlen=_TRAIL_KEPT)
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
            self._camera = camera
            self._log("world/camera/image", self._lens(camera))

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

    def add_relocalised(self, stamp_ns: int, T_map_camera: NDArray[np.float64]) -> None:
        """The camera's pose (4, 4) in a loaded map, a world of its own, and the trail behind it.

        From the first one on there is a view of it.
        """
        if not self._trail:
            self._stream.log("map", self._rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
            self._stream.send_blueprint(_layout(in_map=True))
        self._trail.append((stamp_ns, T_map_camera[:3, 3]))
        self._at(stamp_ns)
        camera = self._rr.Transform3D(translation=T_map_camera[:3, 3], mat3x3=T_map_camera[:3, :3])
        self._log("map/camera", camera)
        if self._camera is not None:
            self._log("map/camera/view", self._lens(self._camera))
        stamps, positions = map(np.array, zip(*self._trail, strict=True))
        strips = np.split(positions, np.flatnonzero(np.abs(np.diff(stamps)) > _PAUSE_NS) + 1)
        self._log("map/trail", self._rr.LineStrips3D(strips, colors=[_TRAJECTORY]))

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

    def _lens(self, camera: Camera) -> Any:
        return self._rr.Pinhole(
            image_from_camera=camera.matrix,
            resolution=[camera.width, camera.height],
            image_plane_distance=0.3,
        )

    def _jpeg(self, data: bytes) -> Any:
        return self._rr.EncodedImage(contents=data, media_type="image/jpeg")


def _layout(in_map: bool = False) -> Any:
    """Matches and curves on the left, the map and the last loop on the right.

    ``in_map``: and the camera in a loaded map between these two.
    """
    import rerun.blueprint as rrb

    loaded = rrb.Spatial3DView(origin="map", name="Camera in the loaded map")
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
                *([loaded] if in_map else []),
                rrb.Horizontal(
                    rrb.Spatial2DView(origin="loop", name="Last loop"),
                    rrb.TextLogView(origin="log", name="Loops"),
                ),
                row_shares=[3, 2, 1] if in_map else [3, 1],
            ),
        ),
        collapse_panels=True,
    )
