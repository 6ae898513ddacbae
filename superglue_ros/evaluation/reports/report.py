"""One self-contained HTML file per result folder: numbers, pictures, configuration."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from superglue_ros.evaluation.reports.results import Results

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #8884 }
th:first-child, td:first-child { text-align: left }
figure { margin: 1rem 0 } figcaption { color: #777; font-size: .9rem }
img { max-width: 100%; height: auto; background: #fff }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem }
.wide { grid-column: 1 / -1 }
pre { overflow-x: auto; background: #8881; padding: .7rem; font-size: .85rem }
.scroll { overflow-x: auto }
"""


@dataclass(frozen=True)
class Picture:
    """A picture of a report; ``wide`` ones take the full width."""

    path: Path
    caption: str
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """A table of a report, cells already as text."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_report(
    path: Path,
    title: str,
    lead: str,
    tables: Sequence[Table],
    pictures: Sequence[Picture],
    details: Mapping[str, Any],
) -> None:
    """Write the file; ``details`` are shown as JSON, strings as they are."""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>{html.escape(title)}</h1><p>{html.escape(lead)}</p>",
    ]
    parts += [_table(table) for table in tables]
    if pictures:
        parts.append("<h2>Pictures</h2><div class='pictures'>")
        parts += [_picture(picture) for picture in pictures]
        parts.append("</div>")
    for name, content in details.items():
        text = content if isinstance(content, str) else json.dumps(content, indent=2)
        parts.append(f"<h2>{html.escape(name)}</h2><pre>{html.escape(text)}</pre>")
    temporary = path.with_name(path.name + ".part")
    temporary.write_text("\n".join(parts) + "</html>\n", encoding="utf-8")
    temporary.replace(path)


def run_details(results: Results) -> dict[str, Any]:
    """The last part of every run's report: missing data, times, configuration, versions."""
    missing = (results.folder / "missing.txt").read_text(encoding="utf-8").strip()
    details: dict[str, Any] = {"Missing": missing} if missing else {}
    for name in ("timing", "config", "versions"):
        details[name.capitalize()] = json.loads(
            (results.folder / f"{name}.json").read_text(encoding="utf-8")
        )
    return details


def number(value: Any, digits: int = 2) -> str:
    """A number for a table; a dash where it is unknown."""
    return "–" if value is None else f"{float(value):.{digits}f}"


def with_interval(value: Any, interval: Sequence[Any]) -> str:
    """A number with its confidence interval."""
    return f"{number(value)} [{number(interval[0], 1)}, {number(interval[1], 1)}]"


def auc_cell(part: Mapping[str, Any], degrees: str) -> str:
    """AUC of a pose summary with the deviation of one repeat, where repeated, and its interval."""
    text = with_interval(part["auc"][degrees], part["auc_interval"][degrees])
    deviation = part.get("auc_deviation", {}).get(degrees)
    if deviation is None:
        return text
    value, rest = text.split(" ", 1)
    return f"{value} ± {number(deviation, 1)} {rest}"


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    return (
        f"<h2>{html.escape(table.caption)}</h2><div class='scroll'>"
        f"<table><tr>{head}</tr>{rows}</table></div>"
    )


def _picture(picture: Picture) -> str:
    kind = "jpeg" if picture.path.suffix == ".jpg" else "png"
    data = base64.b64encode(picture.path.read_bytes()).decode()
    caption = html.escape(picture.caption)
    wide = " class='wide'" if picture.wide else ""
    return (
        f"<figure{wide}><img alt='{caption}' src='data:image/{kind};base64,{data}'>"
        f"<figcaption>{caption}</figcaption></figure>"
    )
