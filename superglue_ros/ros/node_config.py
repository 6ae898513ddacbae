"""Settings of the node alone: how images come in, how much is taken, what goes out.

With those of :class:`superglue_ros.config.Config` they are the node's parameters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from superglue_ros.errors import ConfigError
from superglue_ros.settings import setting

_FRAME_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,255}")
_TOPIC_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True)
class InputsConfig:
    """Which topics the node listens to."""

    camera_info: str = setting(
        "synchronised",
        "Calibration: synchronised (one per image, by stamp), latest (the newest, for drivers that "
        "publish it rarely) or none (matches without poses).",
        choices=("synchronised", "latest", "none"),
        fixed=True,
    )
    keypoints: bool = setting(
        False,
        "Take keypoints of an external front-end from the topic keypoints; detect none.",
        fixed=True,
    )
    depth: bool = setting(
        False, "Take registered depth images from the topic depth: metric scale.", fixed=True
    )
    mask: bool = setting(
        False,
        "Take a mask of each image from the topic mask (inputs.stereo: left/mask), mono8: "
        "keypoints where it is zero are dropped.",
        fixed=True,
    )
    mask_file: str = setting(
        "",
        "Image file with the mask of all images, zero where nothing is to be matched, such as the "
        "robot's own body; several cameras: one file for each, separated by commas, or none.",
        fixed=True,
    )
    stereo: bool = setting(
        False,
        "Take rectified pairs from the topics left/image_rect and right/image_rect with "
        "left/camera_info and right/camera_info, in place of image and camera_info: metric scale.",
        fixed=True,
    )
    rectified: bool = setting(
        False,
        "The images are rectified: the P of camera_info holds, without distortion. Those of "
        "inputs.stereo always are.",
    )
    peers: bool = setting(
        False,
        "Match the features that other robots publish on the topic peer_features.",
        fixed=True,
    )
    peer_keyframes: int = setting(
        3, "Keyframes that each of another robot's frames is matched against.", low=1, high=32
    )
    silent_after: float = setting(
        5.0, "Warn once about an input without messages for this long [s].", low=0.1, high=3600.0
    )
    min_rate: float = setting(
        1.0,
        "Diagnostics warn about an input with fewer messages per second [Hz]; 0 = never.",
        low=0.0,
        high=1000.0,
    )


@dataclass(frozen=True)
class SyncConfig:
    """How the messages of one image are brought together."""

    mode: str = setting(
        "exact",
        "Stamps must be equal (exact) or differ by less than sync.slop (approximate).",
        choices=("exact", "approximate"),
        fixed=True,
    )
    slop: float = setting(
        0.02, "approximate: maximum difference of stamps [s].", low=0.0001, high=10.0, fixed=True
    )
    queue: int = setting(
        10,
        "Messages of each input that wait for their partners; 1000 where intake.mode is lossless.",
        low=1,
        high=1000,
        fixed=True,
    )


@dataclass(frozen=True)
class IntakeConfig:
    """What happens to images that come faster than they are matched."""

    mode: str = setting(
        "latest",
        "latest: the newest image wins, older waiting ones are dropped and counted (live). "
        "lossless: every image is matched (bags).",
        choices=("latest", "lossless"),
        fixed=True,
    )
    max_mib: int = setting(
        1024,
        "lossless: images that wait take at most this much memory; those that come when it is full "
        "are dropped and diagnostics say ERROR [MiB].",
        low=1,
        high=1_000_000,
    )
    warn_at: int = setting(
        500, "lossless: warn once when this many images wait.", low=1, high=1000000
    )


@dataclass(frozen=True)
class LimitsConfig:
    """What is refused, before it costs time or memory."""

    max_pixels: int = setting(
        25_000_000, "Larger images are refused [pixels].", low=1, high=1_000_000_000
    )


@dataclass(frozen=True)
class WatchdogConfig:
    """What the node looks for once a second."""

    window: float = setting(
        10.0, "Diagnostics tell about this much of the past [s].", low=1.0, high=3600.0
    )
    hung_after: float = setting(
        20.0,
        "A frame or request in work for longer hangs: diagnostics say ERROR [s]. More than the "
        "first frame takes where backend is compiled and warm_up false.",
        low=0.1,
        high=3600.0,
    )
    configure_within: float = setting(
        300.0,
        "Configuring, which loads and compiles the networks, hangs if it takes longer [s].",
        low=0.1,
        high=86400.0,
    )
    exit_on_failure: bool = setting(
        False,
        "Exit with code 75 where the node cannot recover by itself: something in work hangs, or "
        "ten frames in a row fail with an unforeseen error (a lost GPU). For a launch file that "
        "respawns the node.",
    )


@dataclass(frozen=True)
class MapsConfig:
    """Where ``~/save_map`` and ``~/load_map`` find their files."""

    folder: str = setting(
        "",
        "Folder of all saved maps; empty = maps/superglue_ros below $ROS_HOME, which is ~/.ros.",
        fixed=True,
    )
    frame_id: str = setting(
        "map", "TF frame of a loaded map, in which relocalised_pose is published."
    )


@dataclass(frozen=True)
class OutputsConfig:
    """What is published."""

    descriptors: str = setting(
        "none",
        "Descriptors in the topic ~/features: none, float16 or float32.",
        choices=("none", "float16", "float32"),
    )


@dataclass(frozen=True)
class NodeConfig:
    """All settings of the node that are not the pipeline's."""

    autostart: bool = setting(
        False, "Configure and activate at start, without a lifecycle manager.", fixed=True
    )
    warm_up: bool = setting(
        True,
        "Run the networks once while configuring: the first frame is as fast as the rest.",
        fixed=True,
    )
    overlap: str = setting(
        "auto",
        "Extract the next image while this one is matched, for more frames per second: always, "
        "never, or auto, on a GPU or where torch's threads leave half of the processors idle. "
        "Under load each result comes later.",
        choices=("auto", "always", "never"),
        fixed=True,
    )
    image_transport: str = setting(
        "raw",
        "Images come as sensor_msgs/Image on image (raw) or as sensor_msgs/CompressedImage on "
        "image/compressed (compressed).",
        choices=("raw", "compressed"),
        fixed=True,
    )
    cameras: str = setting(
        "",
        "Names of the cameras of a rig, separated by commas: topics NAME/image, NAME/camera_info "
        "and so on, camera_index in this order; empty = one camera, topic image.",
        fixed=True,
    )
    inputs: InputsConfig = field(default_factory=InputsConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    intake: IntakeConfig = field(default_factory=IntakeConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)
    maps: MapsConfig = field(default_factory=MapsConfig)
    outputs: OutputsConfig = field(default_factory=OutputsConfig)

    def __post_init__(self) -> None:
        names = self.camera_names
        for name in names:
            unnamed = not name and len(names) == 1
            if not unnamed and not _TOPIC_NAME.fullmatch(name):
                raise ConfigError(f"cameras holds {name!r}, which cannot be part of a topic's name")
        if len(set(names)) < len(names):
            raise ConfigError(f"cameras names one camera twice: {self.cameras!r}")
        if self.inputs.stereo and self.inputs.camera_info == "none":
            raise ConfigError(
                "inputs.stereo needs the calibration of both cameras: set inputs.camera_info to "
                "synchronised or latest"
            )
        if len(self.mask_files) != len(names):
            raise ConfigError(
                f"inputs.mask_file names {len(self.mask_files)} files for {len(names)} cameras: "
                f"give one for each, separated by commas"
            )
        if not _FRAME_NAME.fullmatch(self.maps.frame_id):
            raise ConfigError(
                f"maps.frame_id {self.maps.frame_id[:100]!r} is no name of a TF frame: give one "
                f"such as map, without a slash before it"
            )
        if self.inputs.stereo and self.inputs.depth:
            raise ConfigError("inputs.stereo and inputs.depth both give depth: set one of them")

    @property
    def mask_files(self) -> tuple[str, ...]:
        """The static mask of each camera in the order of their index, "" = none."""
        if not self.inputs.mask_file:
            return ("",) * len(self.camera_names)
        return tuple(name.strip() for name in self.inputs.mask_file.split(","))

    @property
    def camera_names(self) -> tuple[str, ...]:
        """The cameras in the order of their index; one empty name where there is one camera."""
        return tuple(name.strip() for name in self.cameras.split(","))
