"""Registries of everything that is chosen by name, with its factory.

A new front-end, matcher, estimator or layout of sequences is one new file and one line here.
Settings, command lines, the contract suites and the tables of the documentation take their choices
from these registries; code from outside adds its own with :meth:`Registry.register`.

Nothing is imported before it is made: an unused choice costs nothing, and its package need
not be installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from superglue_ros.errors import ConfigError


@dataclass(frozen=True)
class Choice:
    """One entry of a registry.

    ``factory`` makes it: a callable, or ``module:callable``, imported when it is first needed.
    ``label`` is its name in tables and legends, ``description`` one line of documentation,
    ``settings`` the leaves of its section of the configuration that it reads. ``one_to_one``: a
    matcher gives no keypoint two partners, which the node needs. ``confidence``: the setting of a
    matcher below which it drops matches, if it has one.
    """

    name: str
    factory: Callable[..., Any] | str
    label: str
    description: str
    settings: tuple[str, ...] = ()
    one_to_one: bool = True
    confidence: str = ""

    def load(self) -> Callable[..., Any]:
        """The factory itself."""
        if not isinstance(self.factory, str):
            return self.factory
        module, _, function = self.factory.partition(":")
        loaded: Callable[..., Any] = getattr(importlib.import_module(module), function)
        return loaded


class Registry(Mapping[str, Choice]):
    """Choices of one kind by name, in the order of their registration."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._choices: dict[str, Choice] = {}

    def register(
        self,
        name: str,
        factory: Callable[..., Any] | str,
        label: str,
        description: str,
        settings: tuple[str, ...] = (),
        one_to_one: bool = True,
        confidence: str = "",
    ) -> None:
        """Add a choice; see :class:`Choice`. Raises ValueError where the name is taken."""
        if name in self._choices:
            raise ValueError(f"there is a {self.kind} {name!r} already: take another name")
        self._choices[name] = Choice(
            name=name,
            factory=factory,
            label=label,
            description=description,
            settings=settings,
            one_to_one=one_to_one,
            confidence=confidence,
        )

    def unregister(self, name: str) -> None:
        """Remove a choice."""
        del self._choices[name]

    def choose(self, name: str) -> Choice:
        """The choice of that name; raises :class:`ConfigError` with all names if there is none."""
        if name not in self._choices:
            raise ConfigError(
                f"unknown {self.kind} {name!r}: choose one of {', '.join(self._choices)}"
            )
        return self._choices[name]

    def make(self, name: str, *arguments: Any) -> Any:
        """Call the factory of ``name`` with ``arguments``."""
        return self.choose(name).load()(*arguments)

    def __getitem__(self, name: str) -> Choice:
        return self._choices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._choices)

    def __len__(self) -> int:
        return len(self._choices)


# Factories take (Config, torch.device) and return a frontends.base.FrontEnd.
FRONT_ENDS = Registry("front-end")
_room = "superglue_ros.frontends"
_sizes = ("max_keypoints", "max_size")
FRONT_ENDS.register(
    "superpoint", f"{_room}.superpoint:make", "SuperPoint", "SuperPoint (DeTone et al., 2018).",
    (*_sizes, "weights", "threshold", "nms_radius", "subpixel", "border"),
)  # fmt: skip
FRONT_ENDS.register("sift", f"{_room}.sift:make", "SIFT", "OpenCV SIFT, root-normalised.", _sizes)
FRONT_ENDS.register("orb", f"{_room}.orb:make", "ORB", "OpenCV ORB.", _sizes)
FRONT_ENDS.register(
    "aliked", f"{_room}.aliked:make", "ALIKED", "ALIKED of the LightGlue package.", _sizes
)
FRONT_ENDS.register("disk", f"{_room}.disk:make", "DISK", "DISK of the LightGlue package.", _sizes)

# Factories take (Config, torch.device) and return a matchers.base.Matcher.
MATCHERS = Registry("matcher")
_room = "superglue_ros.matchers"
MATCHERS.register(
    "superglue", f"{_room}.superglue:make", "SuperGlue", "SuperGlue (Sarlin et al., 2020).",
    ("weights", "threshold", "verification", "sinkhorn_iterations"), confidence="threshold",
)  # fmt: skip
MATCHERS.register(
    "nn", f"{_room}.nearest:make", "NN",
    "Nearest neighbour of every reference keypoint; where several share one, the closest has it.",
)  # fmt: skip
MATCHERS.register(
    "mutual", f"{_room}.nearest:make", "NN + mutual", "Nearest neighbours in both directions."
)
MATCHERS.register(
    "ratio", f"{_room}.nearest:make", "NN + ratio",
    "Mutual, and clearly nearer than the second best in both directions.", ("ratio",),
)  # fmt: skip
MATCHERS.register(
    "distance", f"{_room}.nearest:make", "NN + distance",
    "Mutual, and nearer than a fixed distance.", ("max_distance",),
)  # fmt: skip
MATCHERS.register(
    "paper-nn", f"{_room}.nearest:make", "NN, many-to-one",
    "The tables' nearest neighbour: several reference keypoints may share one. Evaluation only.",
    one_to_one=False,
)  # fmt: skip
MATCHERS.register(
    "paper-ratio", f"{_room}.nearest:make", "NN + one-way ratio",
    "The tables' ratio test: from reference to query only, many-to-one. Evaluation only.",
    ("ratio",), one_to_one=False,
)  # fmt: skip
MATCHERS.register(
    "gms", f"{_room}.gms:make", "NN + GMS",
    "Nearest neighbours filtered by grid-based motion statistics (OpenCV contrib).",
)  # fmt: skip
for _name, _label, _text in (
    ("pointcn", "NN + PointCN", "Nearest neighbours filtered by PointCN (Yi et al., 2018)."),
    ("oanet", "NN + OANet", "Nearest neighbours filtered by OANet (Zhang et al., 2019)."),
):
    MATCHERS.register(
        _name, f"{_room}.learned_filters:make", _label, _text,
        ("weights", "filter_threshold"), confidence="filter_threshold",
    )  # fmt: skip
MATCHERS.register(
    "lightglue", f"{_room}.lightglue:make", "LightGlue",
    "LightGlue (Lindenberger et al., 2023) on ALIKED or DISK, from the LightGlue package.",
)  # fmt: skip

# Factories take nothing and return a geometry.estimators.Estimator.
ESTIMATORS = Registry("estimator")
_room = "superglue_ros.geometry.estimators"
ESTIMATORS.register("poselib", f"{_room}:PoseLib", "PoseLib", "PoseLib's LO-RANSAC.")
ESTIMATORS.register(
    "guided", f"{_room}:GuidedPoseLib", "guided",
    "PoseLib's LO-RANSAC that samples confident matches first (PROSAC).",
)  # fmt: skip
ESTIMATORS.register(
    "usac-magsac", f"{_room}:UsacMagsac", "MAGSAC++", "OpenCV's USAC with MAGSAC++ scores."
)
ESTIMATORS.register(
    "opencv-ransac", f"{_room}:OpenCvRansac", "OpenCV RANSAC", "OpenCV's classical RANSAC."
)

# Factories take nothing and return a geometry.refinement.Refiner.
REFINERS = Registry("refinement of matches")
_room = "superglue_ros.geometry.refinement"
REFINERS.register("none", f"{_room}:NoRefinement", "none", "Pixels as the detector gives them.")
REFINERS.register(
    "lk", f"{_room}:LucasKanade", "Lucas-Kanade", "Registration of the patches around both pixels."
)
REFINERS.register(
    "network", "superglue_ros.engines.refinement:make", "network",
    "Registration of the patches by a small network, which states each match's covariance.",
)  # fmt: skip

# Factories take nothing and return a data.sequences.base.Layout; the first that recognises a folder
# opens it.
SEQUENCES = Registry("sequence layout")
_room = "superglue_ros.data.sequences"
SEQUENCES.register(
    "plain", f"{_room}.plain:PlainLayout", "plain",
    "images.txt (timestamp colour depth), intrinsics.txt, groundtruth.tum",
)  # fmt: skip
SEQUENCES.register(
    "tum", f"{_room}.tum:TumLayout", "TUM RGB-D", "rgb.txt, depth.txt, groundtruth.txt"
)
SEQUENCES.register(
    "scannet", f"{_room}.scannet:ScanNetLayout", "ScanNet", "color/, depth/, pose/, intrinsic/"
)
SEQUENCES.register(
    "kitti", f"{_room}.kitti:KittiLayout", "KITTI odometry",
    "sequences/NN with image_0 or image_2, times.txt, calib.txt; poses/NN.txt",
)  # fmt: skip
SEQUENCES.register(
    "euroc", f"{_room}.euroc:EurocLayout", "EuRoC MAV",
    "mav0/cam0 with data.csv, sensor.yaml; state_groundtruth_estimate0",
)  # fmt: skip
SEQUENCES.register(
    "megadepth", f"{_room}.megadepth:MegaDepthLayout", "MegaDepth",
    "a scene file, scene_info/NNNN.npz",
)  # fmt: skip
SEQUENCES.register(
    "7scenes", f"{_room}.seven_scenes:SevenScenesLayout", "7-Scenes",
    "TrainSplit.txt or TestSplit.txt of a scene, or one of its folders seq-NN",
)  # fmt: skip
SEQUENCES.register(
    "cambridge", f"{_room}.cambridge:CambridgeLayout", "Cambridge Landmarks",
    "dataset_train.txt or dataset_test.txt of a scene",
)  # fmt: skip
SEQUENCES.register(
    "aachen", f"{_room}.aachen:AachenLayout", "Aachen Day-Night",
    "a list of queries, *_with_intrinsics.txt",
)  # fmt: skip
