"""Regression cases: inputs that once did what must not be, a folder each, replayed by the tests.

``regressions/TARGET/NAME/`` holds the files of the input (a message as CDR) and ``case.json`` with
what it did and whether it must be refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from judging import SILENT, Judge, Outcome
from targets import Files, Target
from worker import Failure

FOLDER = Path(__file__).parent / "regressions"
_CASE = "case.json"


@dataclass(frozen=True)
class Kept:
    """A regression case: ``refuse`` where it must not be accepted."""

    folder: Path
    target: str
    files: Files
    refuse: bool


def keep(failure: Failure, folder: Path = FOLDER) -> Path:
    """Write a failure as a regression case; one for each cause, the smallest."""
    cause = f"{failure.outcome.kind} {failure.outcome.place}"
    place = folder / _slug(failure.target) / _slug(cause)
    if place.exists():
        older = [f.stat().st_size for f in place.rglob("*") if f.is_file() and f.name != _CASE]
        if sum(map(len, failure.files.values())) >= sum(older):
            return place
        for old in sorted(place.rglob("*"), reverse=True):
            old.unlink() if old.is_file() else old.rmdir()
    for name, content in failure.files.items():
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    place.mkdir(parents=True, exist_ok=True)
    facts = {"target": failure.target, "did": cause, "refuse": failure.outcome.kind == SILENT}
    (place / _CASE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return place


def kept(folder: Path = FOLDER) -> Iterator[Kept]:
    """All regression cases, in the order of their names."""
    for file in sorted(folder.glob(f"*/*/{_CASE}")):
        facts = json.loads(file.read_text(encoding="utf-8"))
        files = {
            str(path.relative_to(file.parent)): path.read_bytes()
            for path in sorted(file.parent.rglob("*"))
            if path.is_file() and path != file
        }
        yield Kept(file.parent, facts["target"], files, facts["refuse"])


def replay(case: Kept, target: Target) -> Outcome:
    """What a regression case does now."""
    return Judge().judge(lambda: target.read(target.from_files(case.files)))


def _slug(text: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return slug if len(slug) < 80 else slug[:60] + hashlib.sha256(slug.encode()).hexdigest()[:12]
