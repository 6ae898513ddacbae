"""docs/elements.md: every setting, command, file and test that its tables name exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from superglue_ros.cli import build_parser
from superglue_ros.config import Config
from superglue_ros.training.recipes import SuperGlueRecipe

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "elements.md"


def rows() -> list[list[str]]:
    """Cells of the tables: element, source, settings or commands, tests."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    return [row for row in cells if row[0] != "element" and not set(row[0]) <= {"-"}]


def names(kind: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of a tree of settings; entries of tuples of dataclasses are numbers."""
    for item in fields(kind):
        hint = get_type_hints(kind)[item.name]
        yield prefix + item.name
        for inner in (hint, *get_args(hint)):
            if is_dataclass(inner):
                place = (
                    f"{item.name}." if inner is hint or "None" in str(hint) else f"{item.name}.0."
                )
                yield from names(inner, prefix + place)


def subcommands(parser: Any) -> dict[str, Any]:
    found = [a for a in parser._actions if a.__class__.__name__ == "_SubParsersAction"]
    return dict(found[0].choices) if found else {}


SETTINGS = {*names(Config), *names(SuperGlueRecipe)}
ROWS = rows()


def missing(place: str) -> bool:
    """Whether a setting, command or file does not exist."""
    if place.startswith("superglue-ros "):
        words = place.split()[1:]
        parser = build_parser(words[0])
        for word in words:
            if word not in subcommands(parser):
                return True
            parser = subcommands(parser)[word]
        return False
    if place.startswith("make "):
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        return re.search(rf"^{place.split()[1]}:", makefile, re.MULTILINE) is None
    return not (ROOT / place).is_file() if "/" in place else place not in SETTINGS


def has_test(name: str) -> bool:
    file, _, function = name.partition("::")
    if not (ROOT / file).is_file():
        return False
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return any(isinstance(n, ast.FunctionDef) and n.name == function for n in ast.walk(tree))


def test_the_tables_are_whole() -> None:
    assert len(ROWS) > 40
    assert not [row for row in ROWS if len(row) != 4 or not all(row)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_an_element_has_a_setting_or_command_and_a_test(row: list[str]) -> None:
    places, tests = (re.findall(r"`([^`]+)`", cell) for cell in row[2:])
    assert places
    assert tests
    assert not [place for place in places if missing(place)]
    assert not [name for name in tests if not has_test(name)]


@pytest.mark.parametrize(
    "place", ["network.edge", "superglue-ros train nothing", "make nothing", "config/no.yaml"]
)
def test_a_name_that_does_not_exist_is_noticed(place: str) -> None:
    assert missing(place)


def test_every_option_of_the_network_is_listed() -> None:
    from superglue_ros.networks.superglue_config import OPTIONS

    for page in (PAGE, PAGE.with_name("options.md")):
        text = page.read_text(encoding="utf-8")
        assert not [
            name for name in OPTIONS if f"`network.{name}`" not in text and name not in AIDS
        ]


AIDS = {"top_k_block", "neighbour_cosine"}  # of another option
