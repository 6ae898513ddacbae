"""Hooks of MkDocs: pages that are generated from the code, and links that lead out of docs/.

README.md is the first page, so that nothing is written twice. Generated are one page of the API for
every room, the messages, and the command line as ``--help`` tells it.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS, PACKAGE = ROOT / "docs", ROOT / "superglue_ros"
OF_THE_ROOT = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "security_policy.md": "SECURITY.md",
}
REFERENCE = "reference"
_LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)\s#]+)(#[^)\s]*)?(?=\))")
_HELP_WIDTH = "100"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie in docs/."""
    pages = {site: (ROOT / name).read_text(encoding="utf-8") for site, name in OF_THE_ROOT.items()}
    pages |= {
        f"{REFERENCE}/messages.md": messages(),
        f"{REFERENCE}/commands.md": commands(),
        f"{REFERENCE}/api.md": overview(),
    }
    pages |= {f"{REFERENCE}/{room}.md": api_page(room) for room in rooms()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links of a page to files of the repository become links to pages, or to the repository."""
    del files
    site = page.file.src_uri
    if site.startswith(REFERENCE):
        return markdown
    source = ROOT / OF_THE_ROOT[site] if site in OF_THE_ROOT else DOCS / site

    def lead(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(source.parent / match[1]))
        name = target.relative_to(ROOT).as_posix()
        if not target.exists():
            raise PluginError(f"{source.relative_to(ROOT)} links to {name}, which does not exist")
        by_source = {there: here for here, there in OF_THE_ROOT.items()}
        if DOCS in target.parents:
            page_name = target.relative_to(DOCS).as_posix()
        elif name in by_source:
            page_name = by_source[name]
        else:
            return f"{config.repo_url}/blob/main/{name}{match[2] or ''}"
        return os.path.relpath(page_name, Path(site).parent) + (match[2] or "")

    parts = re.split(r"(^```.*?^```)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _LINK.sub(lead, part) for part in parts)


# -- what is generated ---------------------------------------------------------------------------


def rooms() -> list[str]:
    """The folders of the package that hold code, and ``core`` for the modules beside them."""
    found = [folder.parent for folder in sorted(PACKAGE.glob("*/__init__.py"))]
    return ["core", *(folder.name for folder in found)]


def modules(room: str) -> list[str]:
    """Full names of a room's modules that have something to say."""
    files = PACKAGE.glob("*.py") if room == "core" else (PACKAGE / room).rglob("*.py")
    names = (file.relative_to(ROOT).with_suffix("") for file in sorted(files))
    return [".".join(name.parts) for name in names if name.name not in ("__init__", "__main__")]


def summary(room: str) -> str:
    """The first sentence about a room."""
    if room == "core":
        return "The pipeline, what passes between the rooms, settings, errors, the command line."
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text("utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def overview() -> str:
    """The page that leads to those of the rooms."""
    rows = [f"| [`{room}`]({room}.md) | {summary(room)} |" for room in rooms()]
    return "\n".join(["# Python API", "", "| room | |", "|---|---|", *rows, ""])


def api_page(room: str) -> str:
    """Everything public of a room, from its docstrings."""
    lines = [f"# {room}", "", summary(room), ""]
    return "\n".join(lines + [f"::: {name}\n" for name in modules(room)])


def messages() -> str:
    """Messages and services as they stand in their files, which say all about them."""
    lines = ["# Messages and services"]
    for file in [*sorted(ROOT.glob("msg/*.msg")), *sorted(ROOT.glob("srv/*.srv"))]:
        text = file.read_text(encoding="utf-8").strip()
        lines += ["", f"## {file.stem}", "", f"`superglue_ros/{file.parent.name}/{file.stem}`"]
        lines += ["", "```text", text, "```"]
    return "\n".join(lines) + "\n"


def commands() -> str:
    """``--help`` of every command, from its parser."""
    from superglue_ros.cli import AREAS, build_parser

    os.environ["COLUMNS"] = _HELP_WIDTH
    lines = ["# Command line"]
    for area in AREAS:
        top = build_parser(area)
        for name, parser in sub_parsers(top):
            if name.split()[0] == area:
                lines += ["", f"## superglue-ros {name}", "", "```text"]
                lines += [parser.format_help().strip(), "```"]
    return "\n".join(lines) + "\n"


def sub_parsers(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command below a parser by its words, from the outside in."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield name, inner
                for words, deeper in sub_parsers(inner):
                    yield f"{name} {words}", deeper
