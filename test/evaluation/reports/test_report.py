from __future__ import annotations

from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from superglue_ros.errors import DataError
from superglue_ros.evaluation.reports import figures
from superglue_ros.evaluation.reports.report import (
    Picture,
    Table,
    number,
    with_interval,
    write_report,
)
from superglue_ros.evaluation.reports.results import (
    read_results,
    timing_summary,
    write_json,
    write_records,
)


class Page(HTMLParser):
    """Collects tags and text; complains about what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [value for key, value in attrs if key in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_a_report_is_one_whole_file_and_escapes_what_it_is_given(tmp_path):
    cv2.imwrite(str(tmp_path / "p.png"), np.zeros((4, 4), np.uint8))
    write_report(
        tmp_path / "r.html",
        "a <b> & c",
        "lead",
        [Table("numbers", ["x", "y"], [["1 < 2", "3"]])],
        [Picture(tmp_path / "p.png", "caption <script>")],
        {"Config": {"key": 1}, "Note": "plain </pre>"},
    )
    page = Page((tmp_path / "r.html").read_text())
    assert page.open == []
    assert "a <b> & c" in page.text
    assert "1 < 2" in page.text
    assert '"key": 1' in page.text
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert len(page.sources) == 1


def test_numbers_for_tables():
    assert number(None) == "–"
    assert number(3.14159) == "3.14"
    assert with_interval(50.0, [40.123, None]) == "50.00 [40.1, –]"


def test_json_has_no_infinities_and_times_are_percentiles(tmp_path):
    write_json(tmp_path / "s.json", {"a": np.inf, "b": np.float32(0.5), "c": [np.int64(3)]})
    assert (tmp_path / "s.json").read_text() == (
        '{\n  "a": null,\n  "b": 0.5,\n  "c": [\n    3\n  ]\n}\n'
    )
    summary = timing_summary({"extract": [0.0, 0.1, 0.3], "match": [0.0]})
    assert summary["extract"]["count"] == 2
    assert summary["extract"]["p50_ms"] == pytest.approx(200)
    assert "match" not in summary


def test_damaged_folders_are_told(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        read_results(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "summary.json").write_text("{}")
    write_records(tmp_path / "records.csv", [{"a": 1.5, "b": "x"}])
    results = read_results(tmp_path)
    np.testing.assert_array_equal(results.column("a"), [1.5])
    with pytest.raises(DataError, match="no numeric column b"):
        results.column("b")


def test_figures_are_pictures_whose_bytes_depend_on_the_data_alone(tmp_path):
    errors = {"one": [1.0, 2.0, np.inf], "two": [0.5]}
    for name in ("a.png", "b.png"):
        figures.error_curves(tmp_path / name, "title", errors, 10.0, "px")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    figures.bars(tmp_path / "bars.png", "t", {"m": 5.0}, {"m": (4.0, 7.0)}, "AUC")
    figures.bands(tmp_path / "bands.png", "t", {"self": (np.ones(3), np.ones(3))}, "x", "y")
    many = {f"variant {k}": (np.ones(2), np.ones(2)) for k in range(30)}
    figures.bands(tmp_path / "many.png", "t", many, "x", "y")
    sizes = [cv2.imread(str(tmp_path / name)).shape for name in ("bands.png", "many.png")]
    assert sizes[1][0] > sizes[0][0]  # all 30 have their line in the legend
    spread = [[0.9, 1.2], [1.8, 2.5]]
    figures.stacked_times(tmp_path / "times.png", "t", [128, 256], {"graph": [1.0, 2.0]}, spread)
    figures.lines(tmp_path / "lines.png", "t", {"m": ([1, 2], [3, 4])}, "x", "y", {"m": (1, 3)})
    for name in ("bars", "bands", "times", "lines"):
        assert cv2.imread(str(tmp_path / f"{name}.png")).std() > 5
