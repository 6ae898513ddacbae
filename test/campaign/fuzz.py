"""`make fuzz`: hostile messages, files and frames, counted by what they did.

    make fuzz                                            ten minutes
    make fuzz ARGS="--minutes 600 --live 4000"           a million messages, 100,000 files
    make fuzz ARGS="--only weights --files 5000"         targets by name

A case that breaks a promise is kept under ``test/campaign/regressions``, which the tests replay;
the exit code is 1 then. The counts go to ``report.json`` in the output folder.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import torch
from file_targets import file_targets
from frame_targets import frame_targets
from judging import ACCEPTED
from keeping import FOLDER, keep
from live import attack_live
from message_targets import message_targets
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from targets import Target
from worker import Tally, attack

GROUPS = ("messages", "files", "frames")
LIVE = "live"
_COLUMNS = (
    TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("inputs"),
    TimeElapsedColumn(), TimeRemainingColumn(),
)  # fmt: skip


def all_targets() -> list[Target]:
    """Every place where input comes in; see docs/reliability.md."""
    return [*message_targets(), *file_targets(), *frame_targets()]


def budgets(targets: Sequence[Target], counts: Mapping[str, int]) -> dict[str, int]:
    """Inputs for each target by name: its share of those of its group."""
    whole = {g: sum(t.share for t in targets if t.group == g) for g in GROUPS}
    return {t.name: -int(-counts[t.group] * t.share // whole[t.group]) for t in targets}


def campaign(
    targets: Sequence[Target], counts: Mapping[str, int], seed: int, seconds: float
) -> dict[str, Tally]:
    """Attack every target in turn, with a progress bar; what each one's inputs did, by name."""
    numbers = budgets(targets, counts)
    targets = [target for target in targets if numbers[target.name]]
    tallies: dict[str, Tally] = {}
    end = time.monotonic() + seconds
    with Progress(*_COLUMNS, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=sum(numbers.values()))
        done = 0
        for place, target in enumerate(targets):
            share = (end - time.monotonic()) / (len(targets) - place)
            for tally in attack(target, numbers[target.name], seed, share):
                bad = sum(len(t.failures) for t in tallies.values()) + len(tally.failures)
                progress.update(
                    bar,
                    completed=done + tally.tried,
                    description=f"{target.name}" + (f" [red]{bad} bad" if bad else ""),
                )
            tallies[target.name] = tally
            done += numbers[target.name]
            if not progress.console.is_terminal:
                progress.console.print(f"{target.name}: {tally.tried} in {tally.seconds:.0f} s")
    return tallies


def campaign_live(count: int, seed: int) -> dict[str, Tally]:
    """Attack a matcher process over DDS, with a progress bar."""
    tallies: dict[str, Tally] = {}
    with Progress(*_COLUMNS, console=Console(stderr=True)) as progress:
        bar = progress.add_task("over DDS", total=count)
        for tallies in attack_live(count, seed):
            progress.update(bar, completed=sum(tally.tried for tally in tallies.values()))
    return tallies


def table(tallies: Mapping[str, Tally]) -> Table:
    """The counts for people."""
    out = Table("target", "tried", "accepted", "refused", "bad", "errors", title="Hostile input")
    for name, tally in tallies.items():
        accepted, bad = tally.counts[ACCEPTED], len(tally.failures)
        refused = tally.tried - accepted - bad
        errors = ", ".join(f"{k} {v}" for k, v in tally.counts.most_common() if k != ACCEPTED)
        out.add_row(
            name, f"{tally.tried}", f"{accepted}", f"{refused}",
            f"[red]{bad}" if bad else "0", errors,
        )  # fmt: skip
    return out


def report(tallies: Mapping[str, Tally], targets: Sequence[Target], seed: int) -> dict:
    """The counts for programs."""
    groups = dict.fromkeys(tallies, LIVE) | {t.name: t.group for t in targets}
    return {
        "seed": seed,
        "tried": {
            g: sum(t.tried for n, t in tallies.items() if groups[n] == g) for g in (*GROUPS, LIVE)
        },
        "bad": sum(len(t.failures) for t in tallies.values()),
        "targets": {
            name: {
                "group": groups[name],
                "tried": tally.tried,
                "seconds": round(tally.seconds, 1),
                "outcomes": dict(tally.counts.most_common()),
            }
            for name, tally in tallies.items()
        },
    }


def main(words: Sequence[str] | None = None) -> int:
    """The command; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=1_000_000, help="inputs of messages")
    parser.add_argument("--files", type=int, default=100_000, help="inputs of files")
    parser.add_argument("--frames", type=int, default=20_000, help="frames through the pipeline")
    parser.add_argument("--live", type=int, default=400, help="messages and requests over DDS")
    parser.add_argument("--minutes", type=float, default=10, help="at most, without --live")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="targets whose name contains this")
    parser.add_argument("--output", type=Path, default=Path("fuzz_output"), help="of report.json")
    parser.add_argument("--keep", type=Path, default=FOLDER, help="folder of regression cases")
    args = parser.parse_args(words)
    torch.set_num_threads(1)  # processes are forked: no threads before
    cv2.setNumThreads(1)
    targets = [t for t in all_targets() if args.only in t.name]
    counts = {group: getattr(args, group) for group in GROUPS}
    tallies = campaign(targets, counts, args.seed, 60 * args.minutes)
    if args.live:
        os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(10, 210))
        tallies |= campaign_live(args.live, args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    found = report(tallies, targets, args.seed)
    file = args.output / "report.json"
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    console = Console()
    console.print(table(tallies))
    failures = [failure for tally in tallies.values() for failure in tally.failures]
    folders = {keep(failure, args.keep) for failure in failures if failure.files}
    for folder in sorted(folders):
        console.print(f"[red]kept[/] {folder}")
    for failure in {f.outcome.place: f for f in failures}.values():
        console.print(f"\n{failure.target}: {failure.outcome.kind}\n{failure.outcome.detail}")
    tried = ", ".join(f"{number} {group}" for group, number in found["tried"].items())
    console.print(f"tried {tried}; {found['bad']} bad; counts in {file}")
    return 1 if found["bad"] else 0


if __name__ == "__main__":
    sys.exit(main())
