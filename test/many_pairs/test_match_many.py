"""``superglue-ros match-many`` with real processes: killed, hung, and gone on with."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from pyarrow import dataset
from skimage import data

from superglue_ros.cli import main
from superglue_ros.config import Config
from superglue_ros.image_pairs.matching import ImageMatcher
from superglue_ros.settings import build

IMAGES, SHARD = 45, 10
SHARDS = IMAGES * (IMAGES - 1) // 2 // SHARD
SETTINGS = {
    "front_end.name": "sift",
    "front_end.max_keypoints": "400",
    "matcher.name": "mutual",
    "refinement": "none",
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    photograph = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY)
    for number in range(IMAGES):
        cv2.imwrite(str(folder / f"{number:02d}.png"), photograph[4 * number :][:240, :320])
    return folder


class Driver:
    """The command as a process of its own; what it says goes to a file."""

    def __init__(self, images: Path, output: Path, log: Path) -> None:
        self._log = log
        words = ["--verbose", "match-many", str(images), "--output", str(output), "--workers", "2"]
        words += ["--shard", str(SHARD), "--batch", "5", "--timeout", "5", "--attempts", "9"]
        words += [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "superglue_ros.cli", *words], stdout=file, stderr=file
            )

    def said(self) -> str:
        return self._log.read_text()

    def workers(self) -> list[int]:
        return [int(one) for one in re.findall(r"worker (\d+) is ready", self.said())]

    def wait(self, until: Callable[[], bool]) -> None:
        end = time.monotonic() + 120
        while not until():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.01)


def alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_pair_is_matched_once_whatever_dies(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"

    def done() -> dict[str, int]:
        return {f.name: f.stat().st_mtime_ns for f in output.glob("matches/[0-9]*.parquet")}

    driver = Driver(images, output, tmp_path / "first.log")
    try:
        driver.wait(lambda: len(done()) >= 2)
        first, second = driver.workers()
        os.kill(first, signal.SIGKILL)
        driver.wait(lambda: "its worker died" in driver.said())
        before = len(done())
        assert before < SHARDS
        driver.wait(lambda: len(done()) >= before + 2)
        os.kill(second, signal.SIGSTOP)  # hangs
        assert len(done()) < SHARDS
        driver.wait(lambda: "nothing was done for 5 s" in driver.said())
        driver.wait(lambda: not alive(second))
    finally:
        driver.process.kill()
        driver.process.wait()
    kept = done()
    # The workers end with their driver; what they may still write is whole.
    end = time.monotonic() + 60
    while any(alive(one) for one in driver.workers()) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(alive(one) for one in driver.workers())

    assert Driver(images, output, tmp_path / "second.log").process.wait() == 0
    after = done()
    assert len(after) == SHARDS
    assert {name: after[name] for name in kept} == kept  # nothing is done twice

    rows = dataset.dataset(output / "matches").to_table().to_pylist()
    names = sorted(file.name for file in images.iterdir())
    found = {(row["image0"], row["image1"]): row for row in rows}
    assert len(rows) == len(found)
    assert found.keys() == set(combinations(names, 2))
    config = build(
        Config,
        {
            "front_end": {"name": "sift", "max_keypoints": 400},
            "matcher": {"name": "mutual"},
            "refinement": "none",
        },
    )
    grey = [cv2.imread(str(images / name), cv2.IMREAD_GRAYSCALE) for name in names]
    pairs = list(combinations(range(IMAGES), 2))[::20]
    for (i, j), pair in zip(pairs, ImageMatcher(config).match_pairs(grey, pairs), strict=True):
        row = found[names[i], names[j]]
        assert row["index0"] == pair.index0.tolist()
        assert row["index1"] == pair.index1.tolist()
        np.testing.assert_allclose(row["score"], pair.scores, atol=1e-5)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--shard", "0"], "--shard 0 must be 1 or more"),
        (["--timeout", "0"], "must not be negative"),
        (["--pairs", "none.txt"], "none.txt does not exist"),
        (["--calibration", "a.yaml", "b.yaml"], "a.yaml"),
    ],
)
def test_bad_options_are_named(
    images: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["match-many", str(images), "--output", str(tmp_path / "out"), *words]) == 1
    assert message in capsys.readouterr().err
