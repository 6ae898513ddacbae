"""What reviews would otherwise have to look for."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "superglue_ros"
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
