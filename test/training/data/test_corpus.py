import hashlib
import itertools
import json
import os
import resource
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from superglue_ros.errors import DataError
from superglue_ros.training.data.corpus import (
    MANIFEST,
    Source,
    collect,
    debian_sources,
    read_grey,
    read_manifest,
    split_of,
)
from superglue_ros.training.data.debian import licence_names, unpack_package

from ..conftest import textured


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "images"
    (source / "deep").mkdir(parents=True)
    for seed in range(3):
        cv2.imwrite(str(source / "deep" / f"{seed}.png"), textured(seed, 700, 520))
    return source


def collected(folder, tmp_path, **kwargs):
    return collect([Source("mine", folder, "CC0", **kwargs)], tmp_path / "corpus")


def test_provenance_and_size_are_written(folder, tmp_path):
    collected(folder, tmp_path)
    images = read_manifest(tmp_path / "corpus")
    assert len(images) == 3
    assert {(i.width, i.height, i.source, i.licence) for i in images} == {(700, 520, "mine", "CC0")}
    assert len({i.sha256 for i in images}) == 3


def test_near_duplicates_are_dropped_and_the_larger_stays(folder, tmp_path):
    again = cv2.resize(textured(0, 700, 520), (1400, 1040), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(folder / "again.jpg"), np.clip(again * 0.9 + 8, 0, 255).astype(np.uint8))
    images = collected(folder, tmp_path)
    assert len(images) == 3
    assert {i.width for i in images} == {700, 1400}


def test_small_flat_cut_out_and_unreadable_images_are_left_out(folder, tmp_path):
    cv2.imwrite(str(folder / "small.png"), textured(7, 700, 400))
    cv2.imwrite(str(folder / "flat.bmp"), np.full((600, 800), 90, np.uint8))
    cut_out = np.dstack([textured(8, 700, 520)] * 4)
    cv2.imwrite(str(folder / "cutout.png"), cut_out)
    cv2.imwrite(str(folder / "wall_norm.png"), textured(9, 700, 520))
    (folder / "broken.jpg").write_bytes(os.urandom(50_000))
    assert len(collected(folder, tmp_path)) == 3


def test_image_bombs_are_left_out_and_take_no_memory(folder, tmp_path, caplog):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    bomb = folder / "bomb.png"
    header = struct.pack(">IIBBBBB", 32000, 32000, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(50_000_000), 9)  # as large as a photograph's file
    end = chunk(b"IEND", b"")
    bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + end)
    assert bomb.stat().st_size > 40_000  # smaller files are not looked at
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(collected(folder, tmp_path)) == 3
    with pytest.raises(DataError, match=r"bomb\.png.*too large.*remove it from the corpus"):
        read_grey(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 * 1024
    assert "bomb.png" in caplog.text


def test_grey_images_are_read_as_opencv_does(folder):
    file = folder / "deep" / "0.png"
    assert np.array_equal(read_grey(file), textured(0, 700, 520))
    assert read_grey(str(file), cv2.IMREAD_REDUCED_GRAYSCALE_4).shape == (130, 175)


def test_the_split_depends_on_the_content_alone():
    assert split_of("00000000ff", "photographs") == "test"
    assert split_of("00000001ff", "photographs") == "train"
    assert split_of("00000000ff", "training-photographs") == "train"
    assert split_of("00000000ff", "textures") == "train"
    shares = [split_of(f"{i:08x}", "photographs") for i in range(600)]
    assert shares.count("test") == 100


def test_a_corpus_without_usable_images_says_what_is_needed(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"no usable image found: images need 480 pixels"):
        collected(tmp_path / "images", tmp_path)


def test_missing_and_damaged_manifests_are_named(tmp_path):
    with pytest.raises(DataError, match=r"collect a corpus with 'superglue-ros train corpus'"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps({"path": "a"}) + "\n")
    with pytest.raises(DataError, match=r"line 1, is not a corpus image"):
        read_manifest(tmp_path)


def test_a_split_without_images_is_refused(folder, tmp_path):
    collected(folder, tmp_path, kind="textures")
    assert len(read_manifest(tmp_path / "corpus", "train")) == 3
    with pytest.raises(DataError, match=r"no image of the split 'test'"):
        read_manifest(tmp_path / "corpus", "test")


def test_photographs_that_only_train_leave_the_test_split_as_it_was(folder, tmp_path):
    for seed in itertools.count(100):  # to a picture whose hash puts it into the test split
        cv2.imwrite(str(folder / "one.png"), textured(seed, 700, 520))
        if split_of(sha256_of(folder / "one.png"), "photographs") == "test":
            break
    images = collected(folder, tmp_path)
    assert {i.split for i in images} == {"train", "test"}
    images = collected(folder, tmp_path, kind="training-photographs")
    assert {(i.split, i.photograph) for i in images} == {("train", True)}


def sha256_of(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_licences_come_from_the_copyright_file(tmp_path):
    file = tmp_path / "usr/share/doc/pkg/copyright"
    file.parent.mkdir(parents=True)
    file.write_text("Files: *\nLicense: CC0-1.0\n text\nLicense: GPL-2+\nLicense: CC0-1.0\n")
    assert licence_names(tmp_path, "pkg") == "CC0-1.0, GPL-2+"
    assert licence_names(tmp_path, "other") == "see the package"


def test_machines_without_apt_are_told_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"apt-get is not on this machine"):
        unpack_package("some-package", tmp_path / "x")
    with pytest.raises(DataError, match=r"no package of the list could be had"):
        debian_sources([("some-package", "photographs")], tmp_path)


@pytest.fixture
def apt_repository(tmp_path, monkeypatch):
    """A repository of one package, ``pictures``, for the real apt-get; gives the image in it."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        pytest.skip("needs apt-get and dpkg-deb")
    pool = tmp_path / "pool"
    tree = pool / "tree"
    image = tree / "usr/share/backgrounds/garden.png"
    for folder in (image.parent, tree / "DEBIAN"):
        folder.mkdir(parents=True)
    cv2.imwrite(str(image), textured(0, 700, 520))
    fields = "Package: pictures\nVersion: 1\nArchitecture: all\nMaintainer: t <t@example.org>\n"
    (tree / "DEBIAN/control").write_text(fields + "Description: a picture\n")
    archive = pool / "pictures_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", tree, archive], check=True, capture_output=True)
    content = archive.read_bytes()
    (pool / "Packages").write_text(
        f"{fields}Filename: ./{archive.name}\nSize: {len(content)}\n"
        f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
    )
    for folder in ("lists/partial", "cache/archives/partial"):
        (tmp_path / "apt" / folder).mkdir(parents=True)
    (tmp_path / "apt/sources.list").write_text(f"deb [trusted=yes] file:{pool} ./\n")
    (tmp_path / "apt/apt.conf").write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/apt/sources.list";\nDir::Etc::sourceparts "-";\n'
        f'Dir::State::lists "{tmp_path}/apt/lists";\nDir::Cache "{tmp_path}/apt/cache";\n'
        'APT::Sandbox::User "";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt/apt.conf"))
    subprocess.run(["apt-get", "update"], check=True, capture_output=True)
    return image


def test_a_package_is_collected_into_a_relative_folder(apt_repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sources = debian_sources([("pictures", "photographs")], Path("corpus"))
    kept = collect(sources, Path("corpus"))
    assert [Path(image.path).name for image in kept] == ["garden.png"]
    assert kept[0].sha256 == hashlib.sha256(apt_repository.read_bytes()).hexdigest()
    assert list(Path("corpus/packages").iterdir()) == [Path("corpus/packages/pictures")]
