"""What reviews would otherwise have to look for."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "superglue_ros"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
TREES = {file: ast.parse(file.read_text()) for file in sorted(PACKAGE.rglob("*.py"))}
FEW = 4


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)


def large_dataclasses() -> dict[tuple[str, str], int]:
    """(module, name) of every dataclass with more than a few fields, and their number."""
    found = {}
    for file, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and any(
                "dataclass" in ast.unparse(decorator) for decorator in node.decorator_list
            ):
                count = sum(isinstance(item, ast.AnnAssign) for item in node.body)
                if count > FEW:
                    found[module_of(file), node.name] = count
    return found


def test_dataclasses_with_many_fields_are_built_by_keyword() -> None:
    large = large_dataclasses()
    assert len(large) > 40
    positional = []
    for file, tree in TREES.items():
        own = {name for module, name in large if module == module_of(file)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                own |= {
                    alias.asname or alias.name
                    for alias in node.names
                    if (node.module, alias.name) in large
                }
        positional += [
            f"{file.relative_to(PACKAGE)}:{node.lineno} {node.func.id}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in own
            and any(not isinstance(argument, ast.Starred) for argument in node.args)
        ]
    assert not positional


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_prose_of_the_documentation_has_short_lines(page: Path) -> None:
    code, long = False, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        code ^= line.lstrip().startswith("```")
        if len(line) > 120 and not code and not line.startswith(("|", "![")):
            long.append(f"{page.name}:{number}")
    assert not long


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_the_documentation_refers_to_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    missing = [
        link
        for link in links
        if link and not link.startswith("http") and not (page.parent / link).exists()
    ]
    named = re.findall(r"`((?:superglue_ros|test|config|scripts|docs)/[\w./-]+\.\w+)`", text)
    missing += [name for name in named if not (ROOT / name).exists()]
    assert not [name for name in missing if "brute_force" not in name]
