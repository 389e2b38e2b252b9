# SPDX-License-Identifier: Apache-2.0
"""Tables, conclusions, JSON and charts, from records with known figures."""

from __future__ import annotations

import copy
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from patchsetlib.measure import memory, report
from patchsetlib.measure.memory import SCHEDULER, SERVE_LOGS, WORKER_BUSY, WORKER_IDLE, Reading, Sample

MIB = 2**20


def sample(time: float, workers: int, uss: int | None, role: str = WORKER_IDLE) -> Sample:
    """Return a tree with scheduler (PSS 50 MiB), serve-logs (40) and workers (``uss`` and 10 more)."""
    readings = [Reading(1, SCHEDULER, 30 * MIB, 50 * MIB), Reading(2, SERVE_LOGS, 30 * MIB, 40 * MIB)]
    for pid in range(3, 3 + workers):
        readings.append(Reading(pid, role, *((None, None) if uss is None else (uss * MIB, (uss + 10) * MIB))))
    return Sample(time, 0.01, tuple(readings))


def record(name: str, idle: int, uss: int | None, *, succeeded: int = 8, seconds: float = 20.0) -> dict:
    """Return a run with ``idle`` workers before the tasks, and 4 with ``uss`` MiB after them."""
    samples = [sample(0, idle, 3), sample(10, 4, 40, WORKER_BUSY), sample(20, 4, uss)]

    def snapshot(at: int) -> dict:
        return {"time": samples[at].time, "settled": True, "roles": memory.tree_summary(samples[at])}

    return {
        "name": name,
        "events": {"ready": 9.0, "triggered": 1.0, "finished": 19.0},
        "dag_run": {
            "state": "success",
            "seconds": seconds,
            "tasks": 8,
            "succeeded": succeeded,
            "states": {"success": succeeded, "failed": 8 - succeeded},
        },
        "snapshots": {"idle": snapshot(0), "peak": snapshot(1), "after": snapshot(2)},
        "sampling": {"interval": 10.0, "unreadable": max(s.unreadable for s in samples)},
        "samples": [s.as_json() for s in samples],
    }


NAMES = ["stock", "patched"]


@pytest.fixture
def runs() -> list[dict]:
    return [record("stock", 0, 22), record("patched", 4, 6)]


def find(rows: list[report.Figure], when: str, what: str, unit: str) -> report.Figure:
    (row,) = [row for row in rows if (row.when, row.what) == (when, what) and row.unit.startswith(unit)]
    return row


def test_figures_side_by_side(runs):
    rows = report.figures(runs)

    assert find(rows, "after the tasks", "workers", "processes").values == (4, 4)
    assert find(rows, "after the tasks", "workers", "USS per").values == (22, 6)
    assert find(rows, "after the tasks", "workers", "PSS per").values == (32, 16)
    assert find(rows, "after the tasks", "workers", "PSS total").values == (128, 64)
    assert find(rows, "after the tasks", "whole tree", "PSS total").values == (90 + 128, 90 + 64)
    assert find(rows, "at the peak", "whole tree", "PSS total").values == (290, 290)
    assert find(rows, "run", "tasks succeeded", "of 8").values == (8, 8)


def test_no_workers_on_stock_is_none_and_not_zero(runs):
    row = find(report.figures(runs), "before any task", "workers", "USS per")

    assert row.values == (None, 3)
    assert row.text(0) == "none"
    assert row.ratio(1) is None
    assert row.verdict(1) == "worse"


@pytest.mark.parametrize(
    ("values", "better", "verdict"),
    [
        ((100.0, 50.0), "less", "better"),
        ((100.0, 150.0), "less", "worse"),
        ((100.0, 109.0), "less", "same"),
        ((100.0, 91.0), "less", "same"),
        ((96.0, 95.0), "more", "same"),
        ((96.0, 48.0), "more", "worse"),
        ((48.0, 96.0), "more", "better"),
        ((None, 5.0), "less", "worse"),
        ((5.0, None), "less", ""),
        ((0.0, 5.0), "less", "worse"),
        ((0.0, 5.0), "more", "better"),
        ((1.0, 5.0), None, ""),
    ],
)
def test_verdict(values, better, verdict):
    assert report.Figure("", "", "", values, better).verdict(1) == verdict


def test_one_lost_task_is_worse():
    rows = report.figures([record("stock", 0, 22), record("patched", 0, 22, succeeded=7)])

    assert find(rows, "run", "tasks succeeded", "of 8").verdict(1) == "worse"


def test_what_got_worse_is_said(runs):
    lines = report.conclusions(NAMES, report.figures(runs))
    worse = "patched: worse than stock: before any task: "

    tree = "218.0 -> 154.0 MiB PSS (0.71 of stock)"
    assert f"patched: scheduler's process tree after the tasks: {tree}" in lines
    assert f"{worse}whole tree, PSS total, MiB: 90.0 -> 142.0 (x 1.58)" in lines
    assert f"{worse}workers, USS per process, MiB: none -> 3.0" in lines


def test_nothing_worse_is_said_too():
    runs = [record("stock", 4, 22), record("patched", 4, 6)]

    lines = report.conclusions(NAMES, report.figures(runs))

    assert "patched: nothing in the table is worse than stock" in lines
    assert not [line for line in lines if "worse than stock:" in line]


def test_table_for_a_file_is_markdown_without_colour(runs):
    text = report.render(NAMES, report.figures(runs), terminal=False)

    lines = text.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["when", "what", "figure", "stock", "patched", "patched / stock"]
    assert ["after the tasks", "workers", "USS per process, MiB", "22.0", "6.0", "0.27 better"] in cells
    assert ["before any task", "workers", "USS per process, MiB", "none", "3.0", "worse"] in cells
    assert {len(line) for line in cells} == {6}
    assert "\x1b" not in text
    assert "" not in lines


def test_table_for_a_terminal_has_the_same_figures(runs):
    plain = report.render(NAMES, report.figures(runs), terminal=False)
    coloured = report.render(NAMES, report.figures(runs), terminal=True)

    def numbers(text: str) -> list[str]:
        return re.findall(r"\d+\.\d+", re.sub(r"\x1b\[[\d;]*m", "", text))

    assert "\x1b" in coloured
    assert numbers(coloured) == numbers(plain)


def test_three_runs_stand_in_one_table(runs):
    third = record("upstream", 4, 44)

    text = report.render([*NAMES, "upstream"], report.figures([*runs, third]), terminal=False)

    assert "| patched / stock | upstream / stock |" in text
    assert "0.27 better" in text
    assert "2.00 worse" in text


def test_later_snapshots_are_in_the_table(runs):
    for run in runs:
        run["snapshots"]["after 60 s"] = copy.deepcopy(run["snapshots"]["after"])

    assert find(report.figures(runs), "after 60 s", "workers", "USS per").values == (22, 6)


def test_unreadable_processes_are_said():
    runs = [record("stock", 0, 22), record("upstream", 0, None)]
    rows = report.figures(runs)

    assert find(rows, "after the tasks", "whole tree (without 4 unreadable)", "PSS").values == (218, 90)
    assert find(rows, "after the tasks", "workers (without 4 unreadable)", "USS per").values == (22, None)
    assert [line for line in report.caveats(runs) if "upstream: up to 4 processes could not be read" in line]


def test_caveats_name_failed_tasks_and_unsettled_snapshots():
    run = record("patched", 0, 6, succeeded=5)
    run["snapshots"]["after"]["settled"] = False

    assert report.caveats([run]) == [
        "patched: the process tree was not at rest for the snapshot 'after'",
        "patched: not all tasks succeeded: {'success': 5, 'failed': 3}",
    ]
    assert report.caveats([record("stock", 0, 22)]) == []


def test_json_comes_back_as_it_was(tmp_path: Path, runs):
    data = {"runs": runs, "text": "[\n 1,\n  2 ]", "list": ["[ a ]", "b\n c"], "nested": [[1], []]}

    report.write_json(tmp_path / "x.json", data)

    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(data))
    assert f'[1, "scheduler", {30 * MIB}, {50 * MIB}]' in text


def test_chart_shows_every_run_and_is_reproducible(tmp_path: Path, runs):
    for name in ("one", "two"):
        report.chart(runs, "Title of it", [tmp_path / f"{name}.png", tmp_path / f"{name}.svg"])

    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "one.svg").read_text()
    ElementTree.fromstring(svg)
    for word in ("stock", "patched", "Title of it"):
        assert f"<!-- {word} -->" in svg
    assert svg == (tmp_path / "two.svg").read_text()


def test_machine_is_described_without_names():
    machine = report.describe_machine()

    assert machine["cpus"] >= 1
    assert machine["memory"] > 2**28
    assert set(machine) == {
        "system",
        "kernel",
        "architecture",
        "cpus",
        "cpus_usable",
        "memory",
        "load_before",
        "root",
    }
