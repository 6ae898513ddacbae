"""Every kind of file that is read, with seeds made here: small, but whole."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
import yaml
from message_targets import ENDINGS, encoded
from mutation import (
    damage,
    flip_bits,
    mutate_json,
    mutate_safetensors,
    mutate_text,
    mutate_tree,
    mutate_zip,
)
from targets import Files, FileTarget, folder_of

from superglue_ros.config import Config, KeyframesConfig
from superglue_ros.data import decoding
from superglue_ros.data.bag_sequences import BagSequence, write_bag
from superglue_ros.data.bags import BagReader
from superglue_ros.data.imu import read_euroc_readings
from superglue_ros.data.imu_calibration import read_imu_calibration
from superglue_ros.data.sequences.base import SequenceItem, open_sequence
from superglue_ros.data.trajectories import read_trajectory
from superglue_ros.evaluation.pairs.homography import HPatchesCase
from superglue_ros.evaluation.pairs.images import listed_images, read_grey
from superglue_ros.evaluation.pairs.keypoint_files import read_keypoints
from superglue_ros.evaluation.pairs.pairs_file import PosePair, read_pairs, write_pairs
from superglue_ros.evaluation.pairs.predictions import Prediction, PredictionStore
from superglue_ros.evaluation.reports.confidence_curves import Curves, read_curves, write_curves
from superglue_ros.evaluation.reports.results import read_results
from superglue_ros.geometry.camera import Camera
from superglue_ros.geometry.uncertain_pose import UncertainPose
from superglue_ros.mapping import map_io
from superglue_ros.mapping.keyframes import Keyframe, KeyframeStore
from superglue_ros.networks import weights
from superglue_ros.networks.match_filter import MatchFilter, MatchFilterConfig
from superglue_ros.networks.places import PlaceAggregation, PlacesConfig
from superglue_ros.networks.refinement import PatchRegistration, PatchRegistrationConfig
from superglue_ros.networks.superglue import SuperGlue, SuperGlueConfig
from superglue_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superglue_ros.ros.parameters import settings_from_flat
from superglue_ros.settings import load, read_yaml
from superglue_ros.synthetic.worlds.archives import GameFiles
from superglue_ros.synthetic.worlds.tracks import read_track
from superglue_ros.training.checkpoint import load_checkpoint, save_checkpoint
from superglue_ros.training.data.cache import Shard, read_cache, write_shard
from superglue_ros.training.data.corpus import CorpusImage, read_list
from superglue_ros.training.recipes import SuperGlueRecipe
from superglue_ros.types import Features, FrameId

ROOT = Path(__file__).resolve().parents[2]
BYTES = (damage, flip_bits)
TEXT = (mutate_text, mutate_text, damage)
SEED = "a"  # the name of most files, before the ending


def file_targets() -> list[FileTarget]:
    """All of them."""
    return [*_weights(), *_maps(), *_bags(), *_settings(), *_images(), *_evaluation(), *_training()]


def made(write: Callable[[Path], Any]) -> Files:
    """The files that ``write`` puts into a folder."""
    with folder_of({}) as folder:
        write(folder)
        return {
            str(file.relative_to(folder)): file.read_bytes()
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }


# -- weights and maps ----------------------------------------------------------------------------

POINT = SuperPoint(SuperPointConfig((2, 2, 4, 4), 4, 8, batch_norm=True, exact_sampling=True))
GLUE = SuperGlue(SuperGlueConfig(8, 8, 1, 2, (4, 5)))
PATCHES = PatchRegistration(PatchRegistrationConfig(5, 2, (3,)))
FILTER = MatchFilter(MatchFilterConfig(4, 2, clusters=3, cluster_blocks=1, stages=2))
PLACES = PlaceAggregation(PlacesConfig(descriptor_dim=8, clusters=3, ghosts=1, width=2))
_OWN = {".safetensors": (damage, flip_bits, flip_bits, mutate_safetensors)}
_LOADERS = {"point": weights.load_superpoint, "glue": weights.load_superglue,
            "patches": weights.load_refinement,
            "filter": lambda file: weights.load_match_filter("oanet", file),
            "places": weights.load_places}  # fmt: skip


def _weights() -> Iterator[FileTarget]:
    torch.manual_seed(0)
    networks = (("point", POINT), ("glue", GLUE), ("patches", PATCHES), ("filter", FILTER),
                ("places", PLACES))  # fmt: skip
    for name, network in networks:
        own = [
            made(
                lambda f, n=network, half=half: weights.save(n, f / "a.safetensors", "x", "y", half)
            )
            for half in (False, True)
        ]
        yield FileTarget(
            f"weights ({name})",
            own,
            lambda folder, n=name: _LOADERS[n](folder / "a.safetensors"),
            _OWN,
            facts=_weights_facts,
            forgers=[_forge_weights],
            share=3,
        )
    state = {k: v for k, v in POINT.state_dict().items() if "num_batches" not in k}
    yield FileTarget(
        "weights of others",
        [
            made(lambda f: torch.save(state, f / "a.pth")),
            made(lambda f: torch.save(_original_superpoint(), f / "a.pth")),
            made(lambda f: safetensors.torch.save_file(state, f / "a.safetensors")),
        ],
        lambda folder: weights.load_superpoint(next(folder.iterdir())),
        {".pth": (damage, flip_bits, mutate_zip, mutate_zip), **_OWN},
        share=2,
    )


def _original_superpoint() -> dict[str, torch.Tensor]:
    """The keys of the original layout, with few channels."""
    layers = {
        "1a": (1, 2), "1b": (2, 2), "2a": (2, 2), "2b": (2, 2), "3a": (2, 4), "3b": (4, 4),
        "4a": (4, 4), "4b": (4, 4), "Pa": (4, 4), "Pb": (4, 65), "Da": (4, 4), "Db": (4, 8),
    }  # fmt: skip
    state = {}
    for name, (inner, outer) in layers.items():
        kernel = 1 if name in ("Pb", "Db") else 3
        state[f"conv{name}.weight"] = torch.randn(outer, inner, kernel, kernel)
        state[f"conv{name}.bias"] = torch.zeros(outer)
    return state


def _weights_facts(loaded: Any) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(loaded.network.state_dict().items()):
        digest.update(key.encode() + value.numpy().tobytes())
    kind = getattr(loaded, "kind", getattr(loaded, "descriptor_kind", ""))
    return f"{digest.hexdigest()} {loaded.network.config} {kind} {loaded.provenance}"


def _forge_weights(data: bytes, rng: random.Random) -> bytes:
    """Another content with a checksum that fits."""
    with folder_of({"x": data}) as folder, safetensors.safe_open(folder / "x", "pt") as file:
        metadata, state = dict(file.metadata()), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    if rng.random() < 0.6:
        name = rng.choice(["architecture", "architecture", "architecture", *metadata])
        metadata[name] = mutate_json(metadata[name].encode(), rng).decode(errors="replace")
    else:
        name = rng.choice(sorted(state))
        values = state[name]
        state[name] = rng.choice(
            [values * float("nan"), values * 1e30, values * 0, values.double(), values.flatten(),
             values.reshape(1, *values.shape), values.to(torch.int8)]
        )  # fmt: skip
    metadata["sha256"] = weights.digest(state, metadata)
    return safetensors.torch.save({k: v.contiguous() for k, v in state.items()}, metadata)


def example_map() -> KeyframeStore:
    """Three keyframes with everything that a keyframe can have."""
    store, rng = KeyframeStore(KeyframesConfig()), np.random.default_rng(0)
    camera = Camera(64, 48, np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]]), np.full(5, 0.01))
    for number in range(1, 4):
        points = rng.uniform((0, 0), (63, 47), (12, 2)).astype(np.float32)
        features = Features(
            keypoints=points,
            scores=rng.random(12, np.float32),
            width=64,
            height=48,
            detector="sift-root",
            descriptors=rng.random((12, 8), np.float32),
            track_ids=np.arange(12) + 4 * number,
        )
        depth = None if number == 2 else rng.uniform(1, 5, 12).astype(np.float32)
        pose = UncertainPose(np.eye(3), np.full(3, float(number)), 0.01 * np.eye(6))
        store.insert(
            Keyframe(
                FrameId(number, number * 10**9, "camera"), features, None,
                camera=camera, depth=depth, depth_sigma=depth,
                pose=None if number == 2 else pose,
            )
        )  # fmt: skip
    return store


def _maps() -> Iterator[FileTarget]:
    seed = made(lambda f: map_io.save(f / "a.safetensors", example_map(), 9, 99))
    yield FileTarget(
        "map", [seed], lambda folder: map_io.load(folder / "a.safetensors"), _OWN,
        facts=_map_facts, forgers=[forge_map], share=8,
    )  # fmt: skip


def _map_facts(stored: map_io.StoredMap) -> str:
    digest = hashlib.sha256(f"{stored.last_frame} {stored.next_landmark}".encode())
    for entry in stored.keyframes:
        k, f = entry.keyframe, entry.keyframe.features
        digest.update(
            f"{k.id} {entry.part} {k.rectified} {f.width} {f.height} {f.detector}".encode()
        )
        if k.camera is not None:
            camera = k.camera
            digest.update(f"{camera.width} {camera.height} {camera.model}".encode())
            digest.update(camera.matrix.tobytes() + camera.distortion.tobytes())
        for values in (f.keypoints, f.scores, f.descriptors, f.sigma_px, f.track_ids, k.depth,
                       k.depth_sigma):  # fmt: skip
            digest.update(b"-" if values is None else values.tobytes())
        if k.pose is not None:
            for values in (k.pose.rotation, k.pose.translation, k.pose.covariance):
                digest.update(values.tobytes())
    return digest.hexdigest()


def forge_map(data: bytes, rng: random.Random) -> bytes:
    """Another content with a checksum that fits."""
    with folder_of({"x": data}) as folder, safetensors.safe_open(folder / "x", "np") as file:
        metadata, arrays = dict(file.metadata()), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    content = {name: json.loads(metadata[name]) for name in ("keyframes", "counters")}
    if rng.random() < 0.6:
        name = rng.choice(["keyframes", "keyframes", "keyframes", "counters"])
        content[name] = mutate_tree(content[name], rng)
    else:
        name = rng.choice(sorted(arrays))
        values = arrays[name].copy()
        if rng.random() < 0.5 and values.size:
            place = rng.randrange(values.size)
            other = [0, -1, 1e30, np.nan] if values.dtype == np.float32 else [0, -1, -5, 2**62]
            values.reshape(-1)[place] = rng.choice(other)
        else:
            values = rng.choice(
                [values[:-1], np.concatenate([values, values[:1]]), values.astype(np.float64),
                 values.reshape(-1), values[None]]
            )  # fmt: skip
        arrays[name] = values
    facts = {"entries": content["keyframes"], "counters": content["counters"]}
    metadata |= {name: json.dumps(value) for name, value in content.items()}
    metadata["sha256"] = map_io._digest(arrays, facts)
    return safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, metadata)


# -- bags, settings, images ----------------------------------------------------------------------


class _Walk:
    """Three frames of a moving camera."""

    name = "walk"

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[SequenceItem]:
        camera = Camera(16, 12, np.array([[20.0, 0, 8], [0, 20, 6], [0, 0, 1]]), np.zeros(5))
        for number in range(3):
            pose = np.eye(4)
            pose[0, 3] = number
            yield SequenceItem(
                stamp_ns=(number + 1) * 10**9,
                image=np.full((12, 16), 40 * number, np.uint8),
                camera=camera,
                depth=np.full((12, 16), 1.5, np.float32),
                T_world_camera=pose,
            )


def _bags() -> Iterator[FileTarget]:
    damages = {"": BYTES, ".yaml": TEXT}
    mcap = made(lambda f: write_bag(_Walk(), f / "b"))
    sqlite3 = made(lambda f: write_bag(_Walk(), f / "b", storage="sqlite3"))
    yield FileTarget("bag (mcap)", [mcap, _alone(mcap)], _read_bag, damages, facts=len, share=2)
    yield FileTarget("bag (sqlite3)", [sqlite3], _read_bag, damages, facts=len, share=2)
    # SQLite has no checksums, and only the metadata say how many messages there are.
    yield FileTarget("sqlite3 file alone", [_alone(sqlite3)], _read_bag, damages)
    compressed = made(lambda f: write_bag(_Walk(), f / "b", jpeg_quality=90))
    yield FileTarget(
        "sequence of a bag",
        [mcap, sqlite3, compressed],
        lambda folder: list(BagSequence(folder / "b")),
        damages,
    )


def _alone(bag: Files) -> Files:
    return {Path(name).name: data for name, data in bag.items() if not name.endswith(".yaml")}


def _bag_in(folder: Path) -> Path:
    return folder / "b" if (folder / "b").is_dir() else next(folder.iterdir())


def _read_bag(folder: Path) -> list[Any]:
    with BagReader(_bag_in(folder)) as bag:
        return list(bag.messages(list(bag.topics)))


def _settings() -> Iterator[FileTarget]:
    own = {
        "front_end": {"name": "sift", "max_keypoints": 100, "threshold": 1e-4},
        "matcher": {"name": "ratio", "ratio": 0.8},
        "geometry": {"threshold_px": 1.5, "seed": 3},
        "keyframes": {"window": 2, "sequential": True},
    }
    yield FileTarget(
        "settings",
        [{"a.yaml": yaml.safe_dump(own).encode()}],
        lambda folder: load(folder / "a.yaml", Config),
        {".yaml": TEXT},
        share=2,
    )
    yield FileTarget(
        "parameters of the node",
        [{"a.yaml": (ROOT / "config" / "matcher.yaml").read_bytes()}],
        _read_parameters,
        {".yaml": TEXT},
    )
    yield FileTarget(
        "recipe of a training",
        [{"a.yaml": (ROOT / "config" / "train" / "superglue.yaml").read_bytes()}],
        lambda folder: load(folder / "a.yaml", SuperGlueRecipe),
        {".yaml": TEXT},
    )


def _read_parameters(folder: Path) -> None:
    """As a launch file gives them: the values of the first node, with dotted names."""
    tree: Any = read_yaml(folder / "a.yaml")
    for _ in range(2):  # node name, ros__parameters
        tree = next(iter(tree.values()), {}) if isinstance(tree, dict) else {}
    settings_from_flat(dict(_flat(tree if isinstance(tree, dict) else {})))


def _flat(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _images() -> Iterator[FileTarget]:
    def read(folder: Path) -> None:
        file = next(folder.iterdir())
        decoding.read(file, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        decoding.read(file, cv2.IMREAD_UNCHANGED)
        read_grey(file)

    for ending in ENDINGS:
        yield FileTarget(f"image ({ending})", [{SEED + ending: encoded(ending)}], read, {"": BYTES})


# -- evaluation ----------------------------------------------------------------------------------

CALIBRATION = "# width height fx fy cx cy k1 k2 p1 p2\n8 6 10 11 3.5 2.5 0.1 0 0 0\n"
EUROC = """T_BS:
  data: [0, -1, 0, 0.1, 1, 0, 0, 0.2, 0, 0, 1, 0.3, 0, 0, 0, 1]
resolution: [8, 6]
intrinsics: [10, 11, 3.5, 2.5]
distortion_model: radial-tangential
distortion_coefficients: [-0.28, 0.07, 0.0002, 0.00002]
"""
IMU_NOISE = (
    "accelerometer_noise_density", "accelerometer_random_walk",
    "gyroscope_noise_density", "gyroscope_random_walk",
)  # fmt: skip
TRUTH = "0 0 0 0 0 0 0 1\n0.1 1 0 0 0 0 0 1\n0.2 2 0 0 0 0 0 1\n"


def _read_imu(folder: Path) -> None:
    read_imu_calibration(folder / "imu0" / "sensor.yaml")
    read_imu_calibration(folder / "camchain-imucam.yaml")
    read_euroc_readings(folder / "imu0" / "data.csv").between(1000, 2000)


def _evaluation() -> Iterator[FileTarget]:
    text = {".txt": TEXT, ".tum": TEXT}
    pair = PosePair(
        "a.jpg", "b.jpg", 0, 1, np.diag([50.0, 51, 1]), np.diag([50.0, 51, 1]), np.eye(4)
    )
    yield FileTarget(
        "pairs",
        [made(lambda f: write_pairs(f / "a.txt", [pair] * 3))],
        lambda folder: read_pairs(folder / "a.txt"), text, share=2,
    )  # fmt: skip
    yield FileTarget(
        "trajectory", [{"a.txt": TRUTH.encode()}],
        lambda folder: _interpolated(folder / "a.txt"), text, share=2,
    )  # fmt: skip
    png, depth = _png(np.uint8), _png(np.uint16)
    plain = {
        "images.txt": b"".join(b"0.%d c.png d.png\n" % i for i in range(3)),
        "intrinsics.txt": CALIBRATION.encode(), "groundtruth.tum": TRUTH.encode(),
        "c.png": png, "d.png": depth,
    }  # fmt: skip
    tum = {
        "rgb.txt": b"0.1 c.png\n0.2 c.png\n", "depth.txt": b"0.11 d.png\n", "c.png": png,
        "d.png": depth, "groundtruth.txt": TRUTH.encode(), "intrinsics.txt": CALIBRATION.encode(),
    }  # fmt: skip
    scannet = {
        "color/0.jpg": cv2.imencode(".jpg", np.zeros((6, 8), np.uint8))[1].tobytes(),
        "depth/0.png": depth, "pose/0.txt": b"1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n",
        "intrinsic/intrinsic_color.txt": b"50 0 4 0\n0 51 3 0\n0 0 1 0\n0 0 0 1\n",
    }  # fmt: skip
    euroc = {
        "mav0/cam0/data.csv": b"#t,file\n1403636579763555584,a.png\n",
        "mav0/cam0/data/a.png": png, "mav0/cam0/sensor.yaml": EUROC.encode(),
        "mav0/state_groundtruth_estimate0/data.csv": b"1403636579763555584,4,5,6,1,0,0,0,0\n",
    }  # fmt: skip
    yield FileTarget(
        "sequence", [plain, tum, scannet, euroc], lambda folder: list(open_sequence(folder)),
        {**text, ".png": BYTES, ".jpg": BYTES, ".csv": TEXT, ".yaml": TEXT}, share=2,
    )  # fmt: skip
    noise = b"".join(b"%s: 0.001\n" % name.encode() for name in IMU_NOISE)
    imu = {
        "cam0/sensor.yaml": EUROC.encode(), "imu0/sensor.yaml": EUROC.encode() + noise,
        "imu0/data.csv": b"1000,1,2,3,4,5,6\n2000,1,2,3,4,5,7\n",
        "camchain-imucam.yaml": b"cam0:\n  timeshift_cam_imu: 0.01\n"
        b"  T_cam_imu: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]\n",
        "imu.yaml": noise,
    }  # fmt: skip
    yield FileTarget("files of an imu", [imu], _read_imu, {".csv": TEXT, ".yaml": TEXT})
    places = {
        "TrainSplit.txt": (
            {"TrainSplit.txt": b"sequence1\n", "seq-01/frame-0.color.png": png,
             "seq-01/frame-0.pose.txt": b"1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"}
        ),
        "dataset_test.txt": {"dataset_test.txt": b"a\nb\n\nc.png 1 2 3 1 0 0 0\n", "c.png": png},
        "q_with_intrinsics.txt": {
            "q_with_intrinsics.txt": b"c.png SIMPLE_RADIAL 8 6 9 4 3 0.1\n", "c.png": png,
        },
    }  # fmt: skip
    for name, files in places.items():
        yield FileTarget(
            f"places, {name}", [files],
            lambda folder, name=name: list(open_sequence(folder / name)),
            {**text, ".png": BYTES}, share=0.5,
        )  # fmt: skip
    kitti = {
        "sequences/0/calib.txt": b"P0: 9 0 4 0 0 9 3 0 0 0 1 0\nP1: 9 0 4 -3 0 9 3 0 0 0 1 0\n",
        "sequences/0/times.txt": b"0.0\n0.1\n", "poses/0.txt": b"1 0 0 0 0 1 0 0 0 0 1 0\n" * 2,
        **{f"sequences/0/image_{k}/00000{i}.png": png for k in (0, 1) for i in (0, 1)},
    }  # fmt: skip
    yield FileTarget(
        "KITTI sequence", [kitti], lambda folder: _stereo(folder / "sequences" / "0"),
        {**text, ".png": BYTES},
    )  # fmt: skip
    yield FileTarget(
        "curves of confidence", [made(lambda f: write_curves(f, _curves()))], read_curves,
        {".csv": TEXT}, share=0.5,
    )  # fmt: skip
    yield FileTarget(
        "MegaDepth scene", [made(_megadepth)],
        lambda folder: list(open_sequence(folder / "scene_info" / "0.npz")),
        {"": BYTES, ".npz": (damage, mutate_zip)},
    )  # fmt: skip
    yield FileTarget(
        "prediction", [made(_prediction)], _read_prediction,
        {".npz": (damage, mutate_zip, mutate_zip), ".json": (mutate_json, *TEXT)}, share=2,
    )  # fmt: skip
    points = np.array([[1, 2, 0.5], [3, 4, 0.7]], np.float32)
    yield FileTarget(
        "file of keypoints",
        [
            made(lambda f: np.savetxt(f / "a.txt", points)),
            made(lambda f: np.savetxt(f / "a.csv", points, delimiter=",")),
            made(lambda f: np.savez(f / "a.npz", keypoints=points[:, :2], scores=points[:, 2],
                                    descriptors=points, detector="x")),
        ],
        lambda folder: read_keypoints(folder, "a"),
        {".txt": TEXT, ".csv": TEXT, ".npz": (damage, mutate_zip, mutate_zip)},
    )  # fmt: skip
    yield FileTarget(
        "keypoints of other networks",
        [made(lambda f: _keypoints_hdf5(f / "a.contextdesc", points))],
        lambda folder: read_keypoints(folder, "a"),
        {".contextdesc": BYTES},
    )
    yield FileTarget(
        "homography", [{"H_1_2": b"1 0 0\n0 1 0\n0 0 1\n"}],
        lambda folder: HPatchesCase(folder, 2, "x").homography(), {"": TEXT},
    )  # fmt: skip
    yield FileTarget(
        "list of images", [{"a.txt": b"# images\na.jpg\nb/c.png\n"}],
        lambda folder: listed_images(folder, folder / "a.txt"), text, share=0.5,
    )  # fmt: skip
    yield FileTarget(
        "results",
        [{
            "config.json": b'{"label": "x", "pairs": 2}', "summary.json": b'{"auc": [1.0, 2.0]}',
            "records.csv": b"index,error\n0,1.5\n1,2.5\n",
            "estimates.csv": b"index,estimator,error\n0,a,1\n1,a,2\n0,b,1\n",
        }],
        _read_results,
        {".json": (mutate_json, *TEXT), ".csv": TEXT},
    )  # fmt: skip


def _interpolated(path: Path) -> None:
    trajectory = read_trajectory(path)
    trajectory.at(50_000_000)
    trajectory.at(int(trajectory.stamps_ns[-1]))


def _png(dtype: type) -> bytes:
    return cv2.imencode(".png", np.full((6, 8), 200, dtype))[1].tobytes()


def _megadepth(folder: Path) -> None:
    (folder / "scene_info").mkdir()
    np.savez(
        folder / "scene_info" / "0.npz",
        image_paths=np.array([None, "a.png"], object),
        depth_paths=np.array(["b.h5", "a.h5"], object),
        intrinsics=np.array([None, np.diag([30.0, 31, 1])], object),
        poses=np.array([None, np.eye(4)], object),
    )
    (folder / "a.png").write_bytes(_png(np.uint8))
    with h5py.File(folder / "a.h5", "w") as file:
        file["depth"] = np.ones((6, 8), np.float32)


FINGERPRINT = {"matcher": "x", "data": {"pairs": 3}}


def _stereo(folder: Path) -> list[Any]:
    sequence = open_sequence(folder)
    return [*sequence, *(sequence.right_image(i) for i in range(len(sequence)))]


def _curves() -> Curves:
    return Curves(**{name: np.linspace(0, 1, 4) for name in Curves.__dataclass_fields__})


def _keypoints_hdf5(path: Path, points: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["keypoints"], file["descriptors"] = points[:, :2], points


def _prediction(folder: Path) -> None:
    points = np.ones((3, 2), np.float32)
    PredictionStore(folder / "p", FINGERPRINT).put(
        0,
        Prediction(
            keypoints0=points, keypoints1=points, matches=np.zeros((1, 2), np.int32),
            confidence=np.ones(1, np.float32), seconds=np.zeros(3), size0=(8, 6), size1=(8, 6),
        ),
    )  # fmt: skip


def _read_prediction(folder: Path) -> None:
    PredictionStore(folder / "p", FINGERPRINT).get(0)


def _read_results(folder: Path) -> None:
    results = read_results(folder)
    results.column("error")
    results.repeated("error")
    str(results.label)


# -- training ------------------------------------------------------------------------------------


def _training() -> Iterator[FileTarget]:
    shape = {"w": 8}
    content = {"architecture": shape, "w": torch.ones(3)}
    yield FileTarget(
        "checkpoint",
        [made(lambda f: save_checkpoint(f / "a.ckpt", content))],
        lambda folder: load_checkpoint(folder / "a.ckpt", shape),
        {"": (damage, mutate_zip, mutate_zip)},
    )  # fmt: skip
    shard = Shard(
        keypoints=torch.zeros(2, 3, 2), scores=torch.zeros(2, 3),
        descriptors=torch.zeros(2, 3, 4, dtype=torch.float16),
        counts=torch.tensor([3, 3], dtype=torch.int32), sizes=torch.ones(2, 2),
        pairs=torch.zeros(1, 2, dtype=torch.int32),
        matches0=torch.zeros(1, 3, dtype=torch.int16),
        matches1=torch.zeros(1, 3, dtype=torch.int16),
    )  # fmt: skip
    yield FileTarget(
        "cached features", [made(lambda f: write_shard(shard, f / "a.safetensors", "x", '"y"'))],
        read_cache, _OWN,
    )  # fmt: skip
    image = json.dumps(_corpus_image()).encode()
    yield FileTarget(
        "list of a corpus", [{"a.jsonl": image + b"\n" + image + b"\n"}],
        lambda folder: read_list(folder / "a.jsonl", CorpusImage, "image"),
        {"": (mutate_json, *TEXT)},
    )  # fmt: skip

    folder = "tracks/a"
    yield FileTarget(
        "track of a game",
        [
            {
                f"{folder}/scene.xml": b'<scene><track model="a.spm"><static-object model="a.spm" '
                b'xyz="1 0 0" hpr="0 30 0" scale="1 1 1"/></track><sun ambient="9 9 9"/></scene>',
                f"{folder}/quads.xml": b'<quads><quad p0="1 0 1" p1="2 0 1" p2="2 0 2" p3="1 0 2"/>'
                b'<quad p0="0:3" p1="0:2" p2="2 0 3" p3="1 0 3"/></quads>',
                f"{folder}/materials.xml": b'<materials><material name="a" shader="grass"/>'
                b"</materials>",
                f"{folder}/a.spm": _model(),
            }
        ],
        lambda place: read_track(GameFiles([place]), "a", side=8),
        {".xml": TEXT, ".spm": BYTES},
        share=2,
    )


def _model() -> bytes:
    """An SPM model: a square of 8 m with normals and colours, all at y = 0."""
    content = struct.pack(
        "<2s2B6fHB1sBHHIIH", b"SP", 10, 3, *[0.0] * 6, 1, 1, b"a", 0, 1, 1, 4, 6, 0
    )
    for x, z in ((-4, -4), (4, -4), (4, 4), (-4, 4)):
        content += struct.pack("<3fI4B2e", x, 0, z, 511 << 10, 255, 90, 60, 30, x, z)
    return content + bytes([0, 1, 2, 0, 2, 3])


def _corpus_image() -> dict[str, Any]:
    import dataclasses

    values: dict[str, Any] = {"str": "x", "int": 64, "float": 1.0, "bool": True}
    return {f.name: values.get(str(f.type), "x") for f in dataclasses.fields(CorpusImage)}
