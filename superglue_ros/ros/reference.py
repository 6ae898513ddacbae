"""Generates ``config/matcher.yaml`` and the tables of ``docs/node.md`` from the code.

Run ``scripts/run python -m superglue_ros.ros.reference`` after a setting changed; a test compares.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from superglue_ros.registry import FRONT_ENDS, MATCHERS
from superglue_ros.ros.parameters import all_settings

PARAMETERS = (
    "<!-- parameters: written by superglue_ros.ros.reference -->",
    "<!-- end of parameters -->",
)
CHOICES = (
    "<!-- choices: written by superglue_ros.ros.reference -->",
    "<!-- end of choices -->",
)

_YAML_HEAD = """\
# All parameters of the matcher node, with their defaults. Pass your own copy to the launch file:
#   ros2 launch superglue_ros matcher.launch.py params_file:=my_matcher.yaml
# Those marked [fixed] can only be changed while the node is unconfigured; the others take effect on
# the next frame (ros2 param set /matcher NAME VALUE).
# Written by superglue_ros.ros.reference from the settings in the code.
/**:
  ros__parameters:
"""


def yaml_text() -> str:
    """The whole of ``config/matcher.yaml``."""
    lines = [_YAML_HEAD]
    open_groups: list[str] = []
    for name, item, kind in all_settings():
        *groups, leaf = name.split(".")
        if groups != open_groups:
            lines.append("\n")
            for depth, group in enumerate(groups):
                lines.append(f"{'  ' * (depth + 2)}{group}:\n")
            open_groups = groups
        indent = "  " * (len(groups) + 2)
        comment = item.metadata["description"] + _constraint(item, kind)
        for line in textwrap.wrap(comment, 100 - len(indent) - 2):
            lines.append(f"{indent}# {line}\n")
        lines.append(f"{indent}{leaf}: {json.dumps(item.default)}\n")
    return "".join(lines)


def parameter_table() -> str:
    """The Markdown table of all parameters."""
    rows = ["| parameter | default | range | meaning |", "|---|---|---|---|"]
    for name, item, kind in all_settings():
        meaning = item.metadata["description"].replace("|", "\\|")
        fixed = " *Fixed.*" if item.metadata["fixed"] else ""
        values = _range(item, kind) or kind.__name__
        rows.append(f"| `{name}` | `{json.dumps(item.default)}` | {values} | {meaning}{fixed} |")
    return "\n".join(rows)


def choice_table() -> str:
    """The Markdown table of front-ends and matchers, with the settings that each reads."""
    rows = ["| setting | value | what | reads |", "|---|---|---|---|"]
    for section, registry in (("front_end", FRONT_ENDS), ("matcher", MATCHERS)):
        for name, choice in registry.items():
            settings = ", ".join(f"`{leaf}`" for leaf in choice.settings)
            rows.append(f"| `{section}.name` | `{name}` | {choice.description} | {settings} |")
    return "\n".join(rows)


def with_tables(document: str) -> str:
    """``document`` with updated tables."""
    for (begin, end), table in ((CHOICES, choice_table()), (PARAMETERS, parameter_table())):
        before, rest = document.split(begin)
        _, after = rest.split(end)
        document = f"{before}{begin}\n{table}\n{end}{after}"
    return document


def _range(item: dataclasses.Field[Any], kind: type) -> str:
    meta = item.metadata
    if meta["choices"]:
        return ", ".join(meta["choices"])
    if meta["low"] is None:
        return "true, false" if kind is bool else ""
    return f"{meta['low']:g} to {meta['high']:.10g}"


def _constraint(item: dataclasses.Field[Any], kind: type) -> str:
    parts = [] if kind is bool else [_range(item, kind)]
    parts += ["fixed"] if item.metadata["fixed"] else []
    said = "; ".join(part for part in parts if part)
    return f" [{said}]" if said else ""


def main() -> int:
    """Update both files in the repository of this module."""
    root = Path(__file__).resolve().parents[2]
    (root / "config" / "matcher.yaml").write_text(yaml_text(), encoding="utf-8")
    page = root / "docs" / "node.md"
    page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
