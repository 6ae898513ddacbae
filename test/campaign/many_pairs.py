"""`make pairs`: very many pairs through Ray, while workers and the driver are killed.

    make pairs ARGS="--pairs 20000"
    make pairs ARGS="--pairs 1000000 --kill-every 60"

Small images, few keypoints, the small matcher. Every so often a worker gets SIGKILL, every fourth
time SIGSTOP, so that it hangs; half-way the driver gets SIGKILL and the same command is run again.
Every pair must then be there once, and equal to what direct matching gives. The report goes to the
output folder; the exit code is 1 where a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from pyarrow import dataset
from rich.console import Console
from skimage import data

from superglue_ros.config import Config
from superglue_ros.image_pairs.matching import ImageMatcher
from superglue_ros.settings import build, override

SHARD = 200
CHECKED = 300
"""Pairs that are compared with direct matching."""
HANG_S = 60
console = Console(stderr=True)


def write_images(folder: Path, count: int, rng: np.random.Generator) -> None:
    """Crops of photographs, so that many pairs overlap and many do not."""
    photographs = [
        cv2.cvtColor(one(), cv2.COLOR_RGB2GRAY)
        for one in (data.astronaut, data.coffee, data.chelsea, data.rocket)
    ]
    folder.mkdir(parents=True)
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        height, width = photograph.shape
        top, left = rng.integers(0, height - 240), rng.integers(0, width - 320)
        crop = photograph[top : top + 240, left : left + 320]
        small = cv2.resize(crop, (160, 120), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / f"{number:05d}.png"), small)


class Command:
    """The driver, started again with the same words; all it says goes to one log."""

    def __init__(self, words: Sequence[str], log: Path) -> None:
        self.log = log
        self.words = [sys.executable, "-m", "superglue_ros.cli", "--verbose", "match-many", *words]
        self.start()

    def start(self) -> None:
        self._said_before = len(self.said())
        with self.log.open("a") as file:
            self.process = subprocess.Popen(self.words, stdout=file, stderr=file)

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def workers(self) -> list[int]:
        """Workers of this life of the driver that are alive and have loaded their networks."""
        said = self.said()[self._said_before :]
        return [w for w in map(int, re.findall(r"worker (\d+) is ready", said)) if running(w)]


def running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZXT"


def check(matches: Path, images: Path, expected: int, config: Config) -> list[str]:
    """What is wrong with the results."""
    found = dataset.dataset(matches)
    if not found.files:
        return ["there are no results"]
    names = found.to_table(["image0", "image1", "status"])
    keys = set(zip(names["image0"].to_pylist(), names["image1"].to_pylist(), strict=True))
    wrong = []
    if not len(names) == len(keys) == expected:
        wrong.append(f"{len(names)} rows, {len(keys)} different pairs, expected are {expected}")
    if "ERROR" in names["status"].unique().to_pylist():
        wrong.append("pairs have status ERROR")
    files = random.Random(0).sample(found.files, min(len(found.files), 30))
    rows = random.Random(1).sample(
        [row for file in files for row in dataset.dataset(file).to_table().to_pylist()], CHECKED
    )
    involved = sorted({row[side] for row in rows for side in ("image0", "image1")})
    grey = [cv2.imread(str(images / name), cv2.IMREAD_GRAYSCALE) for name in involved]
    pairs = [(involved.index(row["image0"]), involved.index(row["image1"])) for row in rows]
    direct = ImageMatcher(config).match_pairs(grey, pairs)
    for row, pair in zip(rows, direct, strict=True):
        mine = set(zip(row["index0"], row["index1"], strict=True))
        other = set(zip(pair.index0.tolist(), pair.index1.tolist(), strict=True))
        score = dict(zip(pair.index0.tolist(), pair.scores.tolist(), strict=True))
        # A match at the threshold may fall on either side of it: batches are rounded differently.
        if any(abs(score.get(i, 0.2) - 0.2) > 1e-3 for i, _ in mine ^ other):
            wrong.append(f"{row['image0']} {row['image1']} differ from direct matching")
    return wrong


def main(words: Sequence[str] | None = None) -> int:
    """The command; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--keypoints", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--kill-every", type=float, default=60.0, help="[s]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("pairs_output"))
    args = parser.parse_args(words)
    rng = np.random.default_rng(args.seed)
    shutil.rmtree(args.output, ignore_errors=True)
    images, output = args.output / "images", args.output / "run"
    count = next(n for n in range(2, 100_000) if n * (n - 1) // 2 >= args.pairs)
    write_images(images, count, rng)
    total = count * (count - 1) // 2
    settings = {
        "front_end.max_keypoints": args.keypoints,
        "matcher.weights": "small",
        "refinement": "none",
        "precision": "float32",
        "device": "cpu",
    }
    sets = [f"{name}={value}" for name, value in settings.items()]
    options = ["--workers", args.workers, "--batch", args.batch, "--shard", SHARD]
    options += ["--timeout", HANG_S, "--attempts", 20, *(w for one in sets for w in ("--set", one))]
    started = time.monotonic()
    command = Command([str(w) for w in (images, "--output", output, *options)], args.output / "log")
    killed = hung = 0
    driver_killed = False
    last = said = started
    while command.process.poll() is None:
        time.sleep(0.5)
        now = time.monotonic()
        shards = len(list(output.glob("matches/[0-9]*.parquet")))
        if now - said > 60:
            said = now
            console.print(f"{shards * SHARD} of {total} pairs, {killed} killed, {hung} hung")
        if not driver_killed and shards * SHARD * 2 > total:
            driver_killed = True
            command.process.kill()
            command.process.wait()
            command.start()
            last = now
        workers = command.workers()
        if now - last > args.kill_every and workers:
            last = now
            hangs = (killed + hung) % 4 == 3
            os.kill(int(rng.choice(workers)), signal.SIGSTOP if hangs else signal.SIGKILL)
            killed, hung = killed + (not hangs), hung + hangs
    seconds = time.monotonic() - started
    wrong = check(output / "matches", images, total, build(Config, override({}, sets)))
    if command.process.returncode:
        wrong.append(f"the driver ended with {command.process.returncode}: see {command.log}")
    found = {
        "pairs": total,
        "images": count,
        "keypoints": args.keypoints,
        "workers": args.workers,
        "seconds": round(seconds, 1),
        "pairs_per_second": round(total / seconds, 1),
        "workers_killed": killed,
        "workers_stopped": hung,
        "driver_killed": driver_killed,
        "megabytes": round(sum(f.stat().st_size for f in output.rglob("*.parquet")) / 1e6, 1),
        "wrong": wrong[:20],
    }
    (args.output / "pairs.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    console.print(found)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
