"""What the campaign attacks: a target makes inputs and reads them as the package does."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from judging import SilentlyChanged
from mutation import Mutator, mutate_message
from rclpy.serialization import deserialize_message, serialize_message

Files = Mapping[str, bytes]
"""A case as it is kept: the content of each file by name."""
MESSAGE = "message.cdr"


class Target(Protocol):
    """One place where input comes in."""

    name: str
    group: str
    """``messages``, ``files`` or ``frames``: what the budget is given for."""
    share: float
    """Of the budget of its group, relative to the other targets."""

    def make(self, rng: random.Random) -> Any:
        """A mutated input."""
        ...

    def read(self, case: Any) -> None:
        """Read it as the package does; raises what that raises, and :class:`SilentlyChanged`."""
        ...

    def to_files(self, case: Any) -> Files:
        """The input, to be kept as a regression case."""
        ...

    def from_files(self, files: Files) -> Any:
        """The input of a regression case."""
        ...


@dataclass
class MessageTarget:
    """Messages: ``seeds`` make valid ones, ``reader`` converts them."""

    name: str
    seeds: Sequence[Callable[[], Any]]
    reader: Callable[[Any], Any]
    share: float = 1.0
    group: str = "messages"

    def make(self, rng: random.Random) -> Any:
        """One to five fields of a seed changed."""
        message = rng.choice(self.seeds)()
        for _ in range(rng.choice([1, 1, 2, 5])):
            mutate_message(message, rng)
        return message

    def read(self, case: Any) -> None:
        """See :class:`Target`."""
        self.reader(case)

    def to_files(self, case: Any) -> Files:
        """See :class:`Target`."""
        return {MESSAGE: serialize_message(case)}

    def from_files(self, files: Files) -> Any:
        """See :class:`Target`."""
        return deserialize_message(files[MESSAGE], type(self.seeds[0]()))


@dataclass(frozen=True)
class FileCase:
    """Files, and what a reader may make of them: ``expected``, or an error; None = anything."""

    files: Files
    expected: Any = None


@dataclass
class FileTarget:
    """Files in a folder: ``reader`` reads the folder.

    ``mutators`` damage one of the files of a seed, by its name's ending ("" = any). Where
    ``facts`` is given, damage must be noticed: what it returns of the reader's result is that of
    the undamaged seed, or the reader raises. ``forgers`` change the content together with its
    checksums, as an attacker would: any result is right.
    """

    name: str
    seeds: Sequence[Files]
    reader: Callable[[Path], Any]
    mutators: Mapping[str, Sequence[Mutator]]
    facts: Callable[[Any], Any] | None = None
    forgers: Sequence[Mutator] = ()
    share: float = 1.0
    group: str = "files"
    _facts_of_seeds: dict[int, Any] = field(default_factory=dict)

    def make(self, rng: random.Random) -> FileCase:
        """One file of a seed changed."""
        number = rng.randrange(len(self.seeds))
        seed = self.seeds[number]
        name = rng.choice(sorted(seed))
        known = [*self.mutators.get(Path(name).suffix, ()), *self.mutators.get("", ())]
        forge = bool(self.forgers) and (not known or rng.random() < 0.3)
        mutate = rng.choice(self.forgers if forge else known)
        changed = mutate(seed[name], rng)
        same = changed == seed[name]
        expected = None
        if self.facts is not None and (same or not forge):
            expected = self._expected(number)
        return FileCase({**seed, name: changed}, expected)

    def _expected(self, number: int) -> Any:
        assert self.facts is not None
        if number not in self._facts_of_seeds:
            with folder_of(self.seeds[number]) as folder:
                self._facts_of_seeds[number] = self.facts(self.reader(folder))
        return self._facts_of_seeds[number]

    def read(self, case: FileCase) -> None:
        """See :class:`Target`."""
        with folder_of(case.files) as folder:
            found = self.reader(folder)
        if case.expected is not None:
            assert self.facts is not None
            if (facts := self.facts(found)) != case.expected:
                raise SilentlyChanged(f"{self.name} gave {facts}, undamaged {case.expected}"[:500])

    def to_files(self, case: FileCase) -> Files:
        """See :class:`Target`."""
        return case.files

    def from_files(self, files: Files) -> FileCase:
        """See :class:`Target`."""
        return FileCase(files)


@contextlib.contextmanager
def folder_of(files: Files) -> Iterator[Path]:
    """A temporary folder with these files, in memory where there is such a file system."""
    memory = Path("/dev/shm")
    parent = memory if memory.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="campaign-", dir=parent))
    try:
        for name, content in files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
