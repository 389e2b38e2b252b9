# SPDX-License-Identifier: Apache-2.0
"""Rows, tables, conclusions, JSON, charts and index, from records with known figures."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from patchsetlib.measure import figures, report
from patchsetlib.measure.figures import Figure, Row
from patchsetlib.measure.runner import Benchmark
from patchsetlib.measure.subjects import Subject

LABELS = ["stock", "patched"]


def row(*samples: tuple[float, ...], better: str | None = "less") -> Row:
    return Row(Figure("now", "x", "s", None, better), samples)


@pytest.mark.parametrize(
    ("stock", "patched", "better", "verdict"),
    [
        ((100,), (50,), "less", "better"),
        ((100,), (150,), "less", "worse"),
        ((100,), (109,), "less", "same"),
        ((96,), (48,), "more", "worse"),
        ((48,), (96,), "more", "better"),
        ((), (5,), "less", "worse"),
        ((5,), (), "less", ""),
        ((0,), (5,), "more", "better"),
        ((0.01,), (0.04,), "less", "same"),
        ((1,), (5,), None, ""),
        # What the repeats do not tell apart is the same.
        ((9, 10, 11), (4, 5, 6), "less", "better"),
        ((5, 10, 11), (4, 5, 6), "less", "same"),
        ((9, 10, 20), (14, 15, 16), "less", "same"),
    ],
)
def test_verdict(stock, patched, better, verdict):
    assert row(stock, patched, better=better).verdict(1) == verdict


def test_table_has_medians_and_ranges():
    runs = [{"label": "stock", "x": x} for x in (3.0, 1.0, 7.0)]
    runs += [{"label": "patched", "x": None}, {"label": "patched", "x": 2.0}, {"label": "x", "error": "!"}]

    def of(record: dict) -> list[Figure]:
        later = [Figure("now", "y", "s", 1)] if record["label"] == "patched" else []
        return [Figure("now", "x", "s", record["x"]), Figure("then", "x", "s", 0), *later]

    rows = figures.table([*LABELS, "3.3.2"], runs, of)

    assert [rows[0].text(subject) for subject in range(3)] == ["3.0 (1.0-7.0)", "2.0", "none"]
    # What only a later subject has stands with its moment.
    assert [(each.figure.when, each.figure.what) for each in rows] == [
        ("now", "x"),
        ("now", "y"),
        ("then", "x"),
    ]


def test_many_subjects_are_shown_and_only_patched_is_compared():
    labels = ["stock", "patch 1", "patches 1-2", "patched", "3.3.2"]

    assert figures.compared(labels) == [3]
    assert figures.compared(labels[:4]) == [1, 2, 3]
    text = report.render(labels, [row((4,), (5,), (6,), (1,), (7,))], terminal=False)
    assert re.split(r" *\| *", text.splitlines()[-1])[1:-1] == [
        *("now", "x", "s", "4.0", "5.0", "6.0", "1.0", "7.0", "0.25 better")
    ]


def test_terminal_shows_the_same_figures_in_colour():
    rows = [row((22,), (6,)), row((), (3,))]
    plain, coloured = (report.render(LABELS, rows, terminal=terminal) for terminal in (False, True))

    assert "\x1b" in coloured
    assert "\x1b" not in plain
    numbers = re.findall(r"\d+\.\d+", re.sub(r"\x1b\[[\d;]*m", "", coloured))
    assert numbers == re.findall(r"\d+\.\d+", plain) == ["22.0", "6.0", "0.27", "3.0"]


def test_what_got_worse_is_said_and_so_is_when_nothing_did():
    better, worse = row((22,), (6,)), Row(Figure("then", "y", "MiB", None), ((10,), (30,)))

    lines = report.conclusions(LABELS, [better, worse], [("x", "s")])
    assert lines[0] == "patched: now: x, s: 22.0 -> 6.0 (0.27 of stock)"
    assert lines[1] == "patched: worse than stock: then: y, MiB: 10.0 -> 30.0 (3.00 of stock)"
    assert "patched: nothing in the table is worse than stock" in report.conclusions(LABELS, [better], [])


def test_json_comes_back_as_it_was(tmp_path: Path):
    data = {"text": "[\n 1,\n  2 ]", "list": ["[ a ]", "b\n c"], "nested": [[1, 2], []]}

    report.write_json(tmp_path / "x.json", data)

    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == data
    assert "[1, 2]" in text


def test_files_of_a_benchmark(tmp_path: Path):
    benchmark = Benchmark(
        "memory", "", (), lambda run: {}, lambda record: [Figure("now", "x", "s", record["x"])], (("x", "s"),)
    )
    subjects = [
        Subject("stock", Path(), {"python": "3.12.1", "airflow": "3.1.3", "distributions": {"a": "1"}}),
        Subject(
            "patched", Path(), {"python": "3.12.1", "airflow": "3.1.3", "distributions": {"a": "2", "b": "1"}}
        ),
    ]
    data = {
        "benchmark": "memory",
        "base": "3.1.3",
        "created": "2026-11-22",
        "options": {"tasks": 96, "concurrency": 0, "slots": [4, 16]},
        "repeats": 2,
        "machine": report.describe_machine(),
        "subjects": {subject.label: subject.as_json(subjects[0]) for subject in subjects},
        "runs": [{"label": "stock", "x": 8}, {"label": "stock", "x": 11}, {"label": "patched", "x": 1}],
    }
    data["runs"].append({"label": "patched", "repeat": 2, "error": "it broke"})
    raw = tmp_path / "memory.json"
    report.write_json(raw, data)

    written, chart = report.write(benchmark, raw, tmp_path)
    first = chart.read_text()
    report.write(benchmark, raw, tmp_path)
    report.write_index(tmp_path, {"memory": benchmark})

    # The same bytes: in version control, it changes only with its data.
    assert chart.read_text() == first
    texts = {
        element.text for element in ElementTree.fromstring(first).iter("{http://www.w3.org/2000/svg}text")
    }
    assert {"memory, Airflow 3.1.3: tasks 96, slots 4 and 16", "x: s", "stock", "9.5"} <= texts
    patched = json.loads(written.read_text())["subjects"]["patched"]
    assert patched["distributions"] == {"unlike stock": {"a": "2", "b": "1"}}
    index = (tmp_path / "README.md").read_text()
    assert "Failed: patched, run 2: it broke" in index
    assert "](memory.svg)" in index
