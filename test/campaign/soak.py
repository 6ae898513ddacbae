"""`make soak`: a matcher process over DDS for hours, with faults, and its memory watched.

    make soak ARGS="--frames 10000 --faults-every 100"
    make soak ARGS="--hours 8 --signals 100"

Every frame that is sent must be accounted for as matched, refused or dropped, every fault survived,
memory, threads and handles flat, and every signal answered with exit code 0. The report, with a
plot, goes to the output folder; the exit code is 1 where a promise is broken.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from faults import FAULTS, SIZES, Fault, LimitedFiles, MountedDisk, node_is_killed
from judging import resident_mib
from matcher_process import QUICK, TEXTURE, Matcher, Peer, camera_info, image_message
from rich.console import Console
from rich.progress import track
from signal_sweep import sweep
from soak_report import write_report

from superglue_ros.data.sequences.base import SequenceItem
from superglue_ros.geometry.camera import Camera
from superglue_ros.msg import Matches

AHEAD = 20  # frames sent before their results are waited for
PARAMETERS = {
    **QUICK, "front_end.max_keypoints": 150, "matcher.name": "ratio", "intake.mode": "lossless",
    "keyframes.max_keyframes": 20, "autostart": True,
}  # fmt: skip
MAX_GROWTH = 0.05
"""Of the resident memory, of the last tenth over that after the warm-up."""
WARM_UP = 0.3
"""Part of the samples of the last life before which nothing is compared."""
MORE_THREADS, MORE_HANDLES = 4, 24
"""Peers that were killed are known for 20 s: until their lease ends."""
KILLED_UNTIL = 0.3
"""Part of a run in which the node itself is killed: the rest is one life, to see its memory."""


@dataclass(frozen=True)
class Sample:
    """The node's process after a number of frames."""

    frames: int
    seconds: float
    life: int
    memory_mib: float
    threads: int
    handles: int


class Run:
    """A matcher process, its camera, and what is expected of the node's counters."""

    def __init__(
        self, folder: Path, matcher: Matcher | None = None, disk: Any = None, seed: int = 0
    ) -> None:
        self.folder = folder
        self.maps = folder / "maps"
        self.maps.mkdir(exist_ok=True)
        self.disk: Any = disk or (
            MountedDisk(self.maps) if MountedDisk.possible(self.maps) else LimitedFiles()
        )
        self.samples: list[Sample] = []
        self.faults: list[tuple[int, str]] = []
        self.violations: list[str] = []
        self.totals: Counter[str] = Counter()
        self.number = 0  # of frames of the run, good or bad
        self.life = 0
        self.lost_with_the_node = 0
        self.size = SIZES[0]
        self.pictures: Any = None
        self.start_clock = self.clock = 100.0
        self.bag_clock = 50.0
        self.seed = seed
        self.base: Any = None
        self._started = time.monotonic()
        self._shifts = np.random.default_rng(seed).integers(0, 30, 4096)
        if matcher is None:
            self.peer: Peer | None = None
            self.start_node()
        else:
            self.matcher = matcher
            self.clock = self.start_clock = matcher.clock + 1.0
            self.bag_clock = self.start_clock - 50.0
            self.begin_life()

    # -- the node ------------------------------------------------------------------------------

    def start_node(self) -> None:
        """A new process; ends when a good frame is answered."""
        self.life += 1
        self.matcher = Matcher(
            self.folder / f"matcher{self.life}.log",
            {**PARAMETERS, "maps.folder": self.maps},
            within=self.disk.within,
            peer=self.peer,
        )
        self.peer = self.matcher.peer
        self.begin_life()

    def begin_again(self) -> None:
        """After a violation: another process and another peer, to see the rest of the run."""
        self.matcher.kill()
        self.peer = self.pictures = None
        self.start_node()

    def begin_life(self) -> None:
        """The node counts from zero: send until it answers, and count from there on."""
        self.base = None
        self.matcher.clock = self.clock
        for messages in self.matcher.peer.received.values():
            messages.clear()
        self.matcher.prime(image=self.image, camera_info=lambda at: camera_info(at, *self.size))
        self.clock = self.matcher.clock
        self.rebase()

    def settle(self) -> None:
        """After frames of others: wait until a frame of ours is answered, and count anew."""
        self.send()  # after a leap of the stamps the first is in doubt until the second
        self.good_frame()
        self.rebase()

    def rebase(self) -> None:
        """Take the node's counters, which add up, as those from which to count on."""
        status = self.wait_until_accounted()
        self._account_totals(status)
        self.base = status
        self.sent = self.expected_refusals = self.expected_resets = 0
        self.refusals_unknown = self.unsynchronised = False

    def wait_until_accounted(self) -> Any:
        """The newest status, in which every frame that was received is done with."""

        def accounted() -> Any:
            newest = self.matcher.peer.received["status"][-1]
            done = newest.matched + newest.dropped + newest.refused
            return newest if newest.received == done else None

        return self.matcher.peer.wait(accounted, "every frame received to be accounted for")

    def _account_totals(self, status: Any) -> None:
        for name in ("received", "matched", "refused", "dropped"):
            before = 0 if self.base is None else getattr(self.base, name)
            self.totals[name] += getattr(status, name) - before

    # -- frames --------------------------------------------------------------------------------

    def tick(self) -> float:
        """The stamp of the next frame."""
        self.clock = round(self.clock + 0.1, 3)
        return self.clock

    def image(self, at: float) -> Any:
        """The image of that time: a view of one texture, of the size of the moment."""
        width, height = self.size
        shift = int(self._shifts[round(at * 10) % len(self._shifts)])
        return image_message(self._view(shift, width, height), at)

    @staticmethod
    def _view(shift: int, width: int, height: int) -> np.ndarray:
        return np.ascontiguousarray(TEXTURE[:height, shift : shift + width])

    def send(self) -> float:
        """A good frame."""
        at = self.tick()
        info = camera_info(at, *self.size)
        self.matcher.peer.send(at, image=self.image(at), camera_info=info)
        self.sent += 1
        return at

    def good_frame(self) -> float:
        """A good frame is answered; :meth:`check` sees whether it was refused."""
        at = self.send()
        self.matcher.peer.output("status", at)
        return at

    def count_lost(self) -> None:
        """The node is dead: what it had not answered is lost."""
        status = self.matcher.peer.received["status"][-1]
        self._account_totals(status)
        self.lost_with_the_node += max(0, self.sent - (status.received - self.base.received))

    def check(self) -> None:
        """Wait for everything that was sent; every frame is accounted for, and as expected."""
        peer, base = self.matcher.peer, self.base
        sent = self.sent
        peer.wait(
            lambda: peer.received["status"][-1].received - base.received >= sent, f"{sent} frames"
        )
        status = self.wait_until_accounted()
        found = {name: getattr(status, name) - getattr(base, name)
                 for name in ("received", "refused", "dropped", "resets")}  # fmt: skip
        expected = {"received": sent, "refused": self.expected_refusals, "dropped": 0,
                    "resets": self.expected_resets}  # fmt: skip
        if self.refusals_unknown:
            expected["refused"] = found["refused"]
        assert found == expected, f"the node counts {found}, expected are {expected}"
        if not self.unsynchronised:
            assert status.unsynchronised == base.unsynchronised, "frames found no partner"
        assert status.keyframes <= PARAMETERS["keyframes.max_keyframes"]
        self.rebase()
        for messages in peer.received.values():
            messages.clear()
        peer.received["status"].append(status)

    def batch(self, count: int) -> None:
        """Send and check ``count`` good frames, and look at the process."""
        for _ in range(count):
            self.send()
        self.number += count
        self.check()
        self.look()

    def look(self) -> None:
        """Sample the process's memory, threads and handles."""
        process = self.matcher.process.pid
        self.samples.append(
            Sample(
                frames=self.number,
                seconds=time.monotonic() - self._started,
                life=self.life,
                memory_mib=resident_mib(process),
                threads=len(os.listdir(f"/proc/{process}/task")),
                handles=len(os.listdir(f"/proc/{process}/fd")),
            )
        )

    def strike(self, fault: Fault) -> None:
        """Let a fault happen; the frame after it is answered, and the next one is matched."""
        self.faults.append((self.number, fault.__name__))
        fault(self)
        self.good_frame()
        at = self.good_frame()
        found = self.matcher.peer.output("matches", at)
        assert found.status == Matches.OK, f"the second frame has status {found.status}"
        self.check()

    # -- a bag of its own, for the player ---------------------------------------------------------

    name = "soak"

    def __len__(self) -> int:
        return 40

    def __iter__(self) -> Iterator[SequenceItem]:
        width, height = SIZES[0]
        matrix = np.array([[200.0, 0, width / 2], [0, 200.0, height / 2], [0, 0, 1]])
        for number in range(len(self)):
            yield SequenceItem(
                stamp_ns=round((self.bag_clock + 0.1 * number) * 1e9),
                image=self._view(number % 30, width, height),
                camera=Camera(width, height, matrix, np.zeros(5)),
                depth=None,
                T_world_camera=None,
            )


def soak(run: Run, frames: int, hours: float, faults_every: int) -> None:
    """Frames and faults until ``frames`` or ``hours`` are reached; violations are collected."""
    end = time.monotonic() + 3600 * hours
    console = Console(stderr=True)
    batches = track(range(0, frames, AHEAD), "frames", console=console)
    struck = 0
    for done in batches:
        if time.monotonic() > end:
            break
        try:
            run.batch(min(AHEAD, frames - done))
            if done // faults_every >= struck + 1 or (done and faults_every <= AHEAD):
                struck += 1
                if not console.is_terminal:
                    console.print(f"{run.number} frames, {len(run.violations)} violations")
                run.strike(FAULTS[(struck - 1) % len(FAULTS)])
                if struck % 4 == 0 and struck < frames // faults_every * KILLED_UNTIL:
                    run.strike(node_is_killed)
        except AssertionError as error:
            after = run.faults[-1][1] if run.faults else "the start"
            run.violations.append(f"frame {run.number}, after {after}: {error}")
            if run.matcher.process.poll() is not None:
                run.violations.append(f"the node ended: {run.matcher.process.returncode}")
            run.begin_again()


def judge_growth(run: Run) -> dict[str, float]:
    """Memory, threads and handles of the last life; adds to the violations."""
    samples = [sample for sample in run.samples if sample.life == run.life]
    settled = samples[round(len(samples) * WARM_UP) :]
    tenth = max(1, len(samples) // 10)
    first, last = settled[:tenth], settled[-tenth:]
    found: dict[str, float] = {"life_frames": samples[-1].frames - samples[0].frames}
    for name in ("memory_mib", "threads", "handles"):
        found[f"{name}_warm"] = float(np.median([getattr(s, name) for s in first]))
        found[f"{name}_end"] = float(np.median([getattr(s, name) for s in last]))
    found["growth"] = found["memory_mib_end"] / found["memory_mib_warm"] - 1
    if found["growth"] > MAX_GROWTH:
        run.violations.append(f"memory grew by {found['growth']:.1%} after the warm-up")
    for name, more in (("threads", MORE_THREADS), ("handles", MORE_HANDLES)):
        if found[f"{name}_end"] > found[f"{name}_warm"] + more:
            run.violations.append(f"{name} grew: {found[f'{name}_warm']} to {found[f'{name}_end']}")
    return found


def main(words: Sequence[str] | None = None) -> int:
    """The command; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--hours", type=float, default=1e6, help="at most")
    parser.add_argument("--faults-every", type=int, default=100, help="frames between faults")
    parser.add_argument(
        "--signals", type=int, default=40, help="signals at random moments; 0: none"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("soak_output"))
    args = parser.parse_args(words)
    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(10, 210))
    cv2.setNumThreads(1)
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        run = Run(Path(name), seed=args.seed)
        soak(run, args.frames, args.hours, args.faults_every)
        growth = judge_growth(run)
        code = run.matcher.stop()
        if code:
            run.violations.append(f"exit code {code} at the end")
        logs = "".join(f.read_text(errors="replace") for f in Path(name).glob("matcher*.log"))
        if "Traceback" in logs or "unforeseen" in logs:
            (args.output / "matcher.log").write_text(logs)
            run.violations.append("tracebacks in the log: see matcher.log")
        signals = sweep(Path(name), args.signals, args.seed)
        run.violations += [str(outcome) for outcome in signals if not outcome.good]
    return write_report(args.output, run, growth, signals)


if __name__ == "__main__":
    sys.exit(main())
