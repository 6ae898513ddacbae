"""Inputs made from their definition alone, by hypothesis, which also shrinks what fails.

The mutations find what is wrong near valid input; these find what nobody thinks of.
"""

from __future__ import annotations

import array
import contextlib
import re
from collections.abc import Callable
from typing import Any

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from judging import Outcome
from mutation import TEXTS
from targets import FileCase, FileTarget, MessageTarget, Target

_CODES = {
    "uint8": "B", "int8": "b", "uint16": "H", "int16": "h", "uint32": "I", "int32": "i",
    "uint64": "Q", "int64": "q", "float": "f", "double": "d", "octet": "B",
}  # fmt: skip
_LONGEST = 40


def strategy_of(target: Target) -> SearchStrategy | None:
    """Inputs of a target; None where there is no definition to make them from."""
    if isinstance(target, MessageTarget):
        return messages(type(target.seeds[0]()))
    if isinstance(target, FileTarget) and target.group == "files":
        names = sorted({(n, name) for n, seed in enumerate(target.seeds) for name in seed})
        content = st.one_of(
            st.binary(max_size=300),
            st.text(max_size=300).map(lambda t: t.encode("utf-8", "ignore")),
        )
        return st.tuples(st.sampled_from(names), content).map(
            lambda drawn: FileCase({**target.seeds[drawn[0][0]], drawn[0][1]: drawn[1]})
        )
    return None


def messages(kind: type) -> SearchStrategy:
    """Messages of a type, each field by itself."""
    fields = {n: _field(t) for n, t in kind.get_fields_and_field_types().items()}  # type: ignore[attr-defined]

    def make(values: dict[str, Any]) -> Any:
        message = kind()
        for name, value in values.items():
            setattr(message, name, value)
        return message

    return st.fixed_dictionaries(fields).map(make)


def _field(kind: str) -> SearchStrategy:
    if found := re.fullmatch(r"sequence<(\w+)(?:, \d+)?>", kind):
        code = _CODES[found[1]]
        return st.lists(_scalar(found[1]), max_size=_LONGEST).map(lambda v: array.array(code, v))
    if found := re.fullmatch(r"(\w+)\[(\d+)\]", kind):
        size = int(found[2])
        return st.lists(_scalar(found[1]), min_size=size, max_size=size).map(np.array)
    if "/" in kind:
        return messages(_type_of(kind))
    return _scalar(kind)


def _scalar(kind: str) -> SearchStrategy:
    if kind == "boolean":
        return st.booleans()
    if kind == "string":
        return st.one_of(st.sampled_from(TEXTS), st.text(st.characters(exclude_categories=["Cs"])))
    if kind in ("float", "double"):
        return st.floats(width=32 if kind == "float" else 64)
    bits = int("".join(c for c in kind if c.isdigit()))
    low, high = (0, 2**bits - 1) if kind[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return st.one_of(st.integers(low, min(high, 64)), st.integers(low, high))


def _type_of(name: str) -> type:
    package, message = name.split("/")
    module = __import__(f"{package}.msg", fromlist=[message])
    return getattr(module, message)


class _New(Exception):
    """A failure that was not seen before."""


def run(
    target: Target,
    count: int,
    seed: int,
    judge: Callable[[Any], Outcome],
    failed: Callable[[Any, Outcome], bool],
) -> None:
    """Judge up to ``count`` generated inputs.

    ``failed`` is told every bad one with its outcome, and returns whether it is new; new ones are
    shrunk, and told again with each smaller input.
    """
    strategy = strategy_of(target)
    if strategy is None or not count:
        return
    shrinking = ""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count, database=None, deadline=None, phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip
    @hypothesis.given(strategy)
    def attack(case: Any) -> None:
        nonlocal shrinking
        outcome = judge(case)
        if outcome.bad and (failed(case, outcome) or outcome.place == shrinking):
            shrinking = outcome.place
            raise _New

    with contextlib.suppress(_New):  # one shrunk failure a run is enough: its fix shows the next
        attack()
