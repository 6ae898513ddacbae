"""A short campaign with a fixed seed, every regression case, and that nothing bad goes unseen."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import generated
import judging
from fuzz import all_targets, budgets, report
from judging import ACCEPTED, SILENT, Judge, Outcome, SilentlyChanged
from keeping import keep, kept, replay
from targets import Target
from worker import Failure, Tally, attack, case_of

from superglue_ros.errors import DataError
from superglue_ros.mapping import map_io
from superglue_ros.networks import weights

COUNTS = {"messages": 3000, "files": 600, "frames": 14}
TARGETS = {target.name: target for target in all_targets()}
NUMBERS = budgets(list(TARGETS.values()), COUNTS)
REGRESSIONS = {f"{c.folder.parent.name}/{c.folder.name}": c for c in kept()}
SEED = 1


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_input_gives_a_result_or_a_typed_error(name: str) -> None:
    target, judge = TARGETS[name], Judge()
    counts: Counter[str] = Counter()

    def judged(case: Any) -> Outcome:
        outcome = judge.judge(lambda: target.read(case))
        counts[outcome.kind] += 1
        assert not outcome.bad, f"{outcome.kind}\n{outcome.detail}"
        return outcome

    for number in range(NUMBERS[name]):
        judged(case_of(target, number, SEED))
    generated.run(target, NUMBERS[name] // 10, SEED, judged, lambda *_: False)
    if target.group == "messages":
        assert len(counts) > 1, f"all {counts}: the mutations are too mild or too harsh"


@pytest.mark.parametrize("name", REGRESSIONS)
def test_what_once_failed_does_no_more(name: str) -> None:
    case = REGRESSIONS[name]
    outcome = replay(case, TARGETS[case.target])
    assert not outcome.bad, f"{outcome.kind}\n{outcome.detail}"
    assert not (case.refuse and outcome.kind == ACCEPTED)


class Misbehaving:
    """A target that does with every input what ``act`` does."""

    name, group, share = "misbehaving", "files", 1.0

    def __init__(self, act: Any) -> None:
        self.act = act

    def make(self, rng: Any) -> bytes:
        return rng.randbytes(4)

    def read(self, case: bytes) -> None:
        self.act()

    def to_files(self, case: bytes) -> dict[str, bytes]:
        return {"input": case}

    def from_files(self, files: dict[str, bytes]) -> bytes:
        return files["input"]


def untyped() -> None:
    {}["x"]


def slow() -> None:
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass


def large() -> None:
    bytearray(b"x") * (600 << 20)


def silent() -> None:
    raise SilentlyChanged("other weights")


def wordy() -> None:
    raise DataError("")


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (untyped, "untyped KeyError"),
        (slow, "hang"),
        (large, "growth"),
        (silent, "silently changed"),
        (wordy, "error of 0 characters"),
    ],
)
def test_the_judge_sees(act: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only the slow one may be told by the clock: a busy machine takes seconds for the others.
    monkeypatch.setattr(judging, "MAX_SECONDS", 0.02 if act is slow else 600.0)
    outcome = Judge().judge(act)
    assert outcome.bad
    assert outcome.kind == kind


class Fits(str):
    """A checksum that equals every other."""

    def __ne__(self, other: object) -> bool:
        return False


@pytest.mark.parametrize(
    ("name", "checked"), [("weights (glue)", (weights, "digest")), ("map", (map_io, "_digest"))]
)
def test_damage_that_no_checksum_notices_is_seen(
    name: str, checked: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*checked, lambda *_: Fits())
    target, judge = TARGETS[name], Judge()
    cases = [case_of(target, number, SEED) for number in range(60)]
    outcomes = [judge.judge(lambda case=case: target.read(case)) for case in cases]
    assert any(outcome.kind == SILENT and outcome.bad for outcome in outcomes)


def last(target: Target, count: int) -> Tally:
    *_, tally = attack(target, count, SEED, 60.0)
    return tally


def test_a_crash_costs_one_input_and_is_kept(tmp_path: Path) -> None:
    acts = iter([lambda: None, os.abort])
    tally = last(Misbehaving(lambda: next(acts, lambda: None)()), 4)
    # Every process has the acts from the start on: one is well, the next one crashes.
    assert tally.counts["crash"] == 2
    assert tally.tried == 4
    folder = keep(tally.failures[0], tmp_path)
    (case,) = kept(tmp_path)
    assert case.folder == folder
    assert case.target == "misbehaving"
    assert case.files == dict(tally.failures[0].files)
    assert not case.refuse


def test_the_smallest_input_of_a_cause_is_kept(tmp_path: Path) -> None:
    outcome = Judge().judge(untyped)
    for content in (b"long", b"s", b"longer"):
        keep(Failure("a target", outcome, {"input": content}), tmp_path)
    (case,) = kept(tmp_path)
    assert case.files == {"input": b"s"}
    assert replay(case, Misbehaving(untyped)).kind == outcome.kind


def test_the_report_counts_what_was_tried() -> None:
    tally = last(TARGETS["trajectory"], 60)
    found = report({"trajectory": tally}, [TARGETS["trajectory"]], SEED)
    assert found["tried"] == {"messages": 0, "files": tally.tried, "frames": 0, "live": 0}
    assert found["bad"] == 0
    assert sum(found["targets"]["trajectory"]["outcomes"].values()) == tally.tried >= 58
