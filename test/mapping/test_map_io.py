"""A map comes back as it was; anything else is refused by name, and nothing changes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from superglue_ros.config import Config
from superglue_ros.errors import DataError, DescriptorKindError
from superglue_ros.mapping import map_io
from superglue_ros.mapping.global_descriptor import learned
from superglue_ros.mapping.keyframes import KeyframeStore
from superglue_ros.networks.places import PlaceAggregation, PlacesConfig
from superglue_ros.networks.weights import load_places, save
from superglue_ros.pipeline import Pipeline
from superglue_ros.rig import Rig
from superglue_ros.settings import from_flat
from superglue_ros.types import MatchKind, PoseStatus

from ..landmark_world import LandmarkWorld, heading

CONFIG = from_flat(
    Config,
    {"device": "cpu", "front_end.name": "sift", "matcher.name": "ratio"},
)


def drive(pipeline: Pipeline, world: LandmarkWorld, degrees, first: int = 0, **options):
    results = []
    for number, angle in enumerate(degrees, first):
        rotation = heading(angle)
        frame, _ = world.frame(number, rotation, rotation @ [0, 0, 1.0], **options)
        results.append(pipeline.process(frame))
    return results


@pytest.fixture(scope="module")
def mapped():
    """A pipeline that saw 90 degrees of the world, and the world."""
    world, pipeline = LandmarkWorld(), Pipeline(CONFIG)
    drive(pipeline, world, range(0, 90, 6), with_depth=True)
    assert len(pipeline.keyframes) >= 3
    return pipeline, world


@pytest.fixture
def saved(mapped, tmp_path):
    path = tmp_path / "map.safetensors"
    assert mapped[0].save_map(path) == len(mapped[0].keyframes)
    return path


def test_everything_comes_back_exactly(mapped, saved):
    for stored, original in zip(map_io.load(saved).keyframes, mapped[0].keyframes, strict=True):
        loaded = stored.keyframe
        assert (loaded.id, loaded.rectified) == (original.id, original.rectified)
        for name in ("keypoints", "scores", "descriptors", "sigma_px", "track_ids"):
            np.testing.assert_array_equal(
                getattr(loaded.features, name), getattr(original.features, name)
            )
        assert loaded.features.detector == original.features.detector
        np.testing.assert_array_equal(loaded.depth, original.depth)
        np.testing.assert_array_equal(loaded.camera.matrix, original.camera.matrix)
        assert stored.part == mapped[0].keyframes.part(original.id)


def test_counting_goes_on_above_all_that_was_given_before_the_map_was_saved(mapped, tmp_path):
    """Not only above what the kept keyframes carry."""
    pipeline = mapped[0]
    pipeline.save_map(tmp_path / "map", last_frame=4321)
    given = pipeline.rig.tracks.next_id
    kept = max(int(k.features.track_ids.max()) for k in pipeline.keyframes)
    small = dataclasses.replace(CONFIG.keyframes, max_keyframes=1)
    other = Pipeline(dataclasses.replace(CONFIG, keyframes=small))
    stored = other.read_map(tmp_path / "map")
    assert len(other.keyframes) == 0
    assert stored.last_frame == 4321
    assert other.take_map(stored) == 1
    assert other.rig.tracks.next_id >= given > kept
    # Never below the map's own frames, whatever was handed over.
    pipeline.save_map(tmp_path / "map")
    assert map_io.load(tmp_path / "map").last_frame == max(k.id.id for k in pipeline.keyframes)


def test_the_depths_of_a_stereo_camera_keep_their_uncertainty(mapped, tmp_path):
    store = KeyframeStore(CONFIG.keyframes)
    first, second = list(mapped[0].keyframes)[:2]
    sigma = np.linspace(0, 1, len(first.features), dtype=np.float32)
    store.insert(dataclasses.replace(first, depth_sigma=sigma))
    store.insert(dataclasses.replace(second, depth=None))
    map_io.save(tmp_path / "map", store)
    loaded = [entry.keyframe for entry in map_io.load(tmp_path / "map").keyframes]
    np.testing.assert_array_equal(loaded[0].depth_sigma, sigma)
    assert (loaded[1].depth, loaded[1].depth_sigma) == (None, None)


def test_another_process_relocalises_in_the_loaded_map(mapped, saved):
    other = Pipeline(CONFIG)
    assert other.load_map(saved) == len(mapped[0].keyframes)
    (result,) = drive(other, mapped[1], [8.0], first=500)
    assert result.pairs[0].matches.kind is MatchKind.RELOCALISE
    assert result.pairs[0].pose.status is PoseStatus.VALID
    assert set(result.pairs[0].matches.track_ids.tolist()) <= {
        int(i) for k in mapped[0].keyframes for i in k.features.track_ids
    } | {-1}
    assert other.rig.tracks.next_id >= mapped[0].rig.tracks.next_id


def test_the_first_frame_in_a_loaded_map_is_relocalised_and_not_tracked(mapped, saved):
    """Nothing is known of where it is: no keyframe is tried as if it were tracked."""
    other = Pipeline(CONFIG)
    other.load_map(saved)
    (stranger,) = drive(other, LandmarkWorld(seed=9), [0.0], first=500)
    (pair,) = stranger.pairs
    assert (pair.matches.kind, pair.pose.status) == (MatchKind.RELOCALISE, PoseStatus.LOST)
    assert not stranger.is_keyframe
    last = mapped[0].keyframes.newest.id
    found, tracked = drive(other, mapped[1], [6.0 * last.id, 6.0 * last.id - 1], first=501)
    assert [(p.matches.kind, p.matches.reference) for p in found.pairs] == [
        (MatchKind.RELOCALISE, last)
    ]
    assert found.pairs[0].pose.status is PoseStatus.VALID
    assert tracked.pairs[0].matches.kind is MatchKind.KEYFRAME
    assert tracked.pairs[0].matches.reference == last


def test_a_map_is_found_by_the_global_descriptors_of_whoever_loads_it(mapped, saved, tmp_path):
    torch.manual_seed(0)
    own = tmp_path / "own.safetensors"
    save(PlaceAggregation(PlacesConfig(64, 8)), own, "landmark-world", "")
    other = Pipeline(dataclasses.replace(CONFIG, place_weights=str(own)))
    other.load_map(saved)
    for keyframe in other.keyframes:
        expected = learned(keyframe.features.descriptors, load_places(own).network)
        np.testing.assert_array_equal(keyframe.global_descriptor, expected)
    (result,) = drive(other, mapped[1], [8.0], first=500)
    assert result.pairs[0].pose.status is PoseStatus.VALID


def test_frames_that_a_loaded_map_does_not_show_begin_a_part_of_their_own(mapped, saved):
    other = Pipeline(CONFIG)
    kept = other.load_map(saved)
    strangers = drive(other, LandmarkWorld(seed=9), [0.0, 2.0, 4.0], first=500)
    assert [result.is_keyframe for result in strangers] == [False, True, False]
    assert len(other.keyframes) == kept + 1
    assert strangers[2].pairs[0].tracked
    assert strangers[2].pairs[0].matches.reference.id == 501


@pytest.mark.parametrize("kept", [0, 7, 100, 0.5, 0.999])
def test_a_truncated_file_is_refused(saved, kept):
    data = saved.read_bytes()
    saved.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(DataError, match=r"map\.safetensors"):
        map_io.load(saved)


@pytest.mark.parametrize("where", [0.3, 0.6, 0.95])
def test_a_flipped_bit_is_noticed(saved, where):
    data = bytearray(saved.read_bytes())
    data[int(where * len(data))] ^= 0x10
    saved.write_bytes(bytes(data))
    with pytest.raises(DataError, match="damaged"):
        map_io.load(saved)


def rewrite(path, **metadata) -> None:
    with safe_open(path, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        save_file(arrays, path, {**file.metadata(), **metadata})


def test_another_version_is_refused(saved):
    rewrite(saved, version="99")
    with pytest.raises(DataError, match="version 99, this program reads 2 and 3"):
        map_io.load(saved)


def test_another_safetensors_file_is_refused(tmp_path):
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match="no map"):
        map_io.load(tmp_path / "weights.safetensors")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.map"):
        map_io.load(tmp_path / "nothing.map")


NONSENSE = {
    "camera": {"width": 3},
    "width": 5,
    "part": "a",
    "rectified": "no",
    "has_depth": 7,
    "id": {"x": 1},
    "frame_id": {"id": 1, "frame_id": 5},
    "fraction": {"id": 1.5},
    "negative": {"id": -5},
    "beyond": {"id": 2**64 - 1},
    "stamp": {"id": 1, "stamp_ns": 2**70},
    "robot": {"id": 1, "robot": "x" * 10_000},
}
EXACT = {
    "rotation": np.eye(3).tolist(),
    "translation": [0.0, 0.0, 0.0],
    "covariance": np.zeros((6, 6)).tolist(),
}
NO_POSE = {
    "nothing": {},
    "a word": {**EXACT, "translation": ["x", 0.0, 0.0]},
    "two numbers": {**EXACT, "translation": [0.0, 0.0]},
    "not a number": {**EXACT, "translation": [float("nan"), 0.0, 0.0]},
    "far away": {**EXACT, "translation": [1e200, 0.0, 0.0]},
    "beyond all floats": {**EXACT, "translation": [10**400, 0.0, 0.0]},
    "a huge rotation": {**EXACT, "rotation": np.full((3, 3), 1e300).tolist()},
    "a mirror": {**EXACT, "rotation": np.diag([1.0, 1.0, -1.0]).tolist()},
    "stretched": {**EXACT, "rotation": (1.01 * np.eye(3)).tolist()},
    "a negative variance": {**EXACT, "covariance": np.diag([1.0] * 5 + [-1.0]).tolist()},
    "not symmetric": {**EXACT, "covariance": np.triu(np.ones((6, 6))).tolist()},
    "an infinite variance": {**EXACT, "covariance": np.full((6, 6), np.inf).tolist()},
}


def rewrite_consistently(path, change) -> None:
    """Change the entries and counters of a map file, and its checksum."""
    with safe_open(path, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        entries, counters = (json.loads(file.metadata()[n]) for n in ("keyframes", "counters"))
    change(entries, counters)
    sha256 = map_io._digest(arrays, {"entries": entries, "counters": counters})
    rewrite(path, keyframes=json.dumps(entries), counters=json.dumps(counters), sha256=sha256)


@pytest.mark.parametrize("pose", NO_POSE)
def test_a_pose_that_is_none_is_refused(saved, pose):
    rewrite_consistently(saved, lambda entries, _: entries[0].update(pose=NO_POSE[pose]))
    with pytest.raises(DataError, match="inconsistent"):
        map_io.load(saved)


def test_a_map_of_version_2_is_one_without_poses(mapped, saved):
    rewrite_consistently(saved, lambda entries, _: [entry.pop("pose") for entry in entries])
    rewrite(saved, version="2")
    other = Pipeline(CONFIG)
    assert other.load_map(saved) == len(mapped[0].keyframes)
    assert other.keyframes.placed == 0
    (result,) = drive(other, mapped[1], [8.0], first=500)
    assert result.pairs[0].pose.status is PoseStatus.VALID
    assert (result.map_pose, result.unplaced) == (None, "")


@pytest.mark.parametrize("change", [*NONSENSE, "last_frame", "next_landmark"])
def test_consistent_checksum_but_nonsense_is_refused(saved, change):
    def spoil(entries, counters):
        if change in counters:
            counters[change] = 2**64 - 1
        else:
            field = change if change in entries[0] else "id"
            entries[0][field] = NONSENSE[change]

    rewrite_consistently(saved, spoil)
    with pytest.raises(DataError, match="inconsistent"):
        map_io.load(saved)


def test_a_refused_map_leaves_the_pipeline_as_it_was(mapped, saved):
    other = Pipeline(CONFIG)
    drive(other, mapped[1], [0.0, 10.0], first=100)
    before = [k.id for k in other.keyframes]
    rewrite(saved, version="0")
    with pytest.raises(DataError):
        other.load_map(saved)
    assert [k.id for k in other.keyframes] == before


class OtherNetwork:
    """A matcher made for other descriptors than those of the map."""

    descriptor_kind = "other"


def test_features_of_another_network_are_refused(saved):
    other = Pipeline(CONFIG, Rig(CONFIG, matcher=OtherNetwork()))
    with pytest.raises(DescriptorKindError) as refused:
        other.load_map(saved)
    assert str(refused.value) == (
        f"{saved} is a map of landmark-world descriptors, frames have other: configure the "
        f"front-end and weights that made the map, or make it again with these"
    )
    assert len(other.keyframes) == 0
    # A matcher that takes any: by what the frames will have.
    with pytest.raises(DescriptorKindError, match="frames have sift-root"):
        Pipeline(CONFIG).read_map(saved, "sift-root")


def test_nothing_to_save_and_no_folder_are_said(mapped, tmp_path):
    with pytest.raises(DataError, match="nothing to save"):
        map_io.save(tmp_path / "m", KeyframeStore(CONFIG.keyframes))
    with pytest.raises(DataError, match="does not exist"):
        mapped[0].save_map(tmp_path / "no" / "m")


def test_the_bound_of_the_map_holds_on_load(saved):
    small = dataclasses.replace(CONFIG.keyframes, max_keyframes=2)
    other = Pipeline(dataclasses.replace(CONFIG, keyframes=small))
    assert other.load_map(saved) == 2


def test_a_fifo_is_refused_at_once(tmp_path):
    """Opening it for reading would wait for a writer."""
    os.mkfifo(tmp_path / "map")
    with pytest.raises(DataError, match="no regular file"):
        map_io.load(tmp_path / "map")


@pytest.mark.parametrize("made", ["file", "link", "folder", "fifo"])
def test_only_a_map_is_ever_replaced(mapped, tmp_path, made):
    path, other = tmp_path / "map", tmp_path / "other"
    other.write_text("precious")
    if made == "file":
        path.write_text("precious")
    elif made == "link":
        path.symlink_to(other)
    elif made == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(DataError, match="cannot write"):
        mapped[0].save_map(path)
    assert other.read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map", "other"]
    if made == "file":
        assert path.read_text() == "precious"


def test_permissions_are_not_widened(mapped, saved):
    assert saved.stat().st_mode & 0o777 == 0o600
    saved.chmod(0o640)
    mapped[0].save_map(saved)
    assert saved.stat().st_mode & 0o777 == 0o640


def test_a_sparse_file_of_four_gibibytes_is_refused_before_it_is_read(tmp_path):
    size = 4 << 30
    header = json.dumps(
        {
            "__metadata__": {"format": map_io.FORMAT, "version": map_io.VERSION},
            "keypoints": {"dtype": "F32", "shape": [size // 8, 2], "data_offsets": [0, size]},
        }
    ).encode()
    with open(tmp_path / "map", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    with pytest.raises(DataError, match="more than the limit"):
        map_io.load(tmp_path / "map")


SAVE_TWICE = """
import os, resource, signal, sys
import numpy as np
from superglue_ros.config import KeyframesConfig
from superglue_ros.errors import DataError
from superglue_ros.mapping import map_io
from superglue_ros.mapping.keyframes import Keyframe, KeyframeStore
from superglue_ros.types import Features, FrameId
path, limit, said = sys.argv[1], int(sys.argv[2]), sys.argv[3]
store = KeyframeStore(KeyframesConfig())
points = np.full((5000, 2), 5.0, np.float32)
store.insert(Keyframe(FrameId(1), Features(points, points[:, 0], 9, 9, "x"), None))
map_io.save(path, store)
old = open(path, "rb").read()
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    map_io.save(path, store)
except DataError as error:
    assert f"cannot write {path}" in str(error), error
    assert said in str(error), error
else:
    raise AssertionError("written")
assert open(path, "rb").read() == old
assert os.listdir(os.path.dirname(path)) == ["m"]
print("old map kept")
"""


def test_a_full_disk_leaves_the_old_map(tmp_path):
    """A real one, in a mount namespace of its own: there is room for one map, not for two."""
    mount = f'mount -t tmpfs -o size=256k none {tmp_path} && echo mounted && exec "$@"'
    unshare = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, "sh"]
    try:
        done = subprocess.run(
            [*unshare, sys.executable, "-c", SAVE_TWICE, str(tmp_path / "m"), "0", "No space left"],
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if "mounted" not in done.stdout:
        pytest.skip(f"no file system may be mounted here: {done.stderr}")
    assert "old map kept" in done.stdout, done.stderr


def test_a_limit_of_the_size_of_files_leaves_the_old_map(tmp_path):
    """The same without a mount; the kernel refuses to write as on a full disk."""
    subprocess.run(
        [sys.executable, "-c", SAVE_TWICE, str(tmp_path / "m"), "4096", "File too large"],
        check=True,
    )
