# SPDX-License-Identifier: Apache-2.0
"""The benchmarks: their arithmetic on known figures, and two of them, small, on the real thing."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from patchsetlib import cli
from patchsetlib.measure import bench, report
from patchsetlib.measure.benchmarks import airflow as benchairflow
from patchsetlib.measure.benchmarks import dispatch as benchdispatch
from patchsetlib.measure.benchmarks import driver as benchdriver
from patchsetlib.measure.benchmarks import gc as benchgc
from patchsetlib.measure.benchmarks import growth as benchgrowth
from patchsetlib.measure.benchmarks import memory as benchmemory
from patchsetlib.measure.benchmarks import postgres as benchpostgres
from patchsetlib.measure.benchmarks import report as benchreport
from patchsetlib.measure.benchmarks import subjects as benchsubjects
from patchsetlib.measure.benchmarks import throughput as benchthroughput
from patchsetlib.measure.benchmarks.subjects import Subject
from patchsetlib.measure.memory import SCHEDULER, SERVE_LOGS, TASK, WORKER_BUSY, WORKER_IDLE, Reading, Sample
from patchsetlib.measure.report import Figure
from patchsetlib.patches import base as bases
from patchsetlib.patches import series, source
from patchsetlib.shell import processes
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import ROOT

MIB = 2**20
LABELS = ["stock", "patched"]


def values(rows: list[Figure]) -> dict[tuple[str, str, str], float | None]:
    return {(row.when, row.what, row.unit): row.values[0] for row in rows}


# Interleaving, medians, records


def test_every_second_round_goes_backwards():
    assert list(bench.schedule(["a", "b", "c"], 3)) == [
        *((1, "a"), (1, "b"), (1, "c")),
        *((2, "c"), (2, "b"), (2, "a")),
        *((3, "a"), (3, "b"), (3, "c")),
    ]


def test_table_has_medians_and_ranges():
    module = SimpleNamespace(figures=lambda record: [Figure("now", "x", "s", (record["x"],))])
    runs = [{"label": "stock", "x": x} for x in (3.0, 1.0, 7.0)]
    runs += [
        {"label": "patched", "x": None},
        {"label": "patched", "x": 2.0},
        {"label": "patched", "error": "!"},
    ]

    (row,) = bench.rows(module, [*LABELS, "3.3.2"], runs)

    assert row.values == (3.0, 2.0, None)
    assert row.ranges == ((1.0, 7.0), (2.0, 2.0), None)
    assert [row.text(run) for run in range(3)] == ["3.0 (1.0-7.0)", "2.0", "none"]


@pytest.mark.parametrize(
    ("stock", "patched", "verdict"),
    [
        ((9.0, 10.0, 11.0), (4.0, 5.0, 6.0), "better"),
        ((9.0, 10.0, 11.0), (14.0, 15.0, 16.0), "worse"),
        ((5.0, 10.0, 11.0), (4.0, 5.0, 6.0), "same"),
        ((9.0, 10.0, 20.0), (14.0, 15.0, 16.0), "same"),
    ],
)
def test_what_the_repeats_do_not_tell_apart_is_the_same(stock, patched, verdict):
    figure = Figure(
        "", "", "", (stock[1], patched[1]), ranges=((stock[0], stock[2]), (patched[0], patched[2]))
    )

    assert figure.verdict(1) == verdict


def subject(label: str, **description) -> Subject:
    found = {"python": "3.12.1", "airflow": "3.1.3", "content": "c", "distributions": {"a": "1"}}
    return Subject(label, Path(sys.executable), found | description, commits=("1" * 40,) * (label != "stock"))


@pytest.fixture
def unchanging(monkeypatch):
    monkeypatch.setattr(benchsubjects, "describe_python", lambda python: subject("x").description)


class Fake:
    """A benchmark that writes files, and fails where it is told."""

    PANELS = (("x", "s"),)

    def __init__(self, failing: tuple[str, ...] = ()):
        self.failing = failing

    @contextlib.contextmanager
    def runner(self, subjects, options, directory):
        def one(subject: Subject, home: Path) -> dict:
            home.mkdir()
            (home / "log").write_text("what happened")
            home.with_name(f"{home.name}-dags").mkdir()
            if home.name in self.failing:
                raise PatchsetError("it broke", "mend it")
            return {"x": 1.0}

        yield one

    @staticmethod
    def figures(record: dict) -> list[Figure]:
        return [Figure("now", "x", "s", (record["x"],))]


@pytest.mark.usefixtures("unchanging")
def test_failed_run_is_recorded_and_its_files_are_kept(tmp_path: Path, capsys):
    saved: list[int] = []
    subjects = [subject("stock"), subject("patches 1-2")]

    runs = bench.run(
        Fake(("1.2-patches-1-2",)), subjects, {}, 2, tmp_path, lambda runs: saved.append(len(runs))
    )

    assert [(run["label"], run["repeat"], run.get("error")) for run in runs] == [
        ("stock", 1, None),
        ("patches 1-2", 1, "it broke"),
        ("patches 1-2", 2, None),
        ("stock", 2, None),
    ]
    assert saved == [1, 2, 3, 4]
    assert bench.failures(runs) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.2-patches-1-2", "1.2-patches-1-2-dags"]
    assert "patches 1-2: run 1 failed: it broke; mend it" in capsys.readouterr().err


def test_airflow_that_changes_meanwhile_ends_the_benchmark(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(
        benchsubjects, "describe_python", lambda python: subject("x", content="d").description
    )

    with pytest.raises(PatchsetError, match="stock: what is installed there has changed"):
        bench.run(Fake(), [subject("stock")], {}, 1, tmp_path)


def test_what_is_written(tmp_path: Path, monkeypatch, capsys):
    subjects = [subject("stock"), subject("patched", distributions={"a": "2", "b": "1"})]
    runs = [
        {"label": label, "repeat": repeat, "x": x + repeat}
        for label, x in (("stock", 8), ("patched", 1))
        for repeat in (1, 2)
    ]
    runs.append({"label": "patched", "repeat": 3, "error": "it broke"})
    machine = report.describe_machine()
    options = {"tasks": 96, "concurrency": 0, "slots": [4, 16]}
    result = bench.result("memory", "3.1.3", subjects, options, 3, machine, runs)
    monkeypatch.setitem(sys.modules, "patchsetlib.measure.benchmarks.memory", Fake)
    files = benchreport.Files(tmp_path, "memory-each")

    benchreport.write(Fake, result, files)
    first = files.charts[1].read_bytes()
    (tmp_path / "other.json").write_text("{}")
    older = result | {"runs": [{"label": "stock", "repeat": 1, "seconds": 9}]}
    (tmp_path / "older.json").write_text(json.dumps(older))
    benchreport.write(Fake, result, files)
    index = (tmp_path / "README.md").read_text()

    assert files.charts[1].read_bytes() == first
    ElementTree.fromstring(first)
    assert files.charts[0].stat().st_size > 3000
    data = json.loads(files.data.read_text())
    assert data["subjects"]["patched"]["distributions"] == {"unlike stock": {"a": "2", "b": "1"}}
    assert str(ROOT) not in files.data.read_text() + index
    assert "## memory, Airflow 3.1.3: tasks 96, slots 4 and 16\n" in index
    assert "- patched: Airflow 3.1.3 with 1 patch, commit `111111111111`" in index
    assert "Failed: patched, run 3: it broke" in index
    assert "| now  | x    | s      | 9.5 (9.0-10.0) | 2.5 (2.0-3.0) |     0.26 better |" in index
    assert "](memory-each.svg)" in index
    assert "older.json" not in index
    assert "older.json is left out" in capsys.readouterr().err


# Subjects


@pytest.fixture
def three(tmp_path: Path, monkeypatch) -> bases.Base:
    """Return a base with a series of three patches."""
    monkeypatch.setenv("PATCHSET_WORK", str(tmp_path / "work"))
    directory = tmp_path / "base"
    directory.mkdir()
    names = [f"000{n}-a.patch" for n in (1, 2, 3)]
    for name in names:
        (directory / name).write_text(f"text of {name}")
    (directory / "series").write_text("# Comment\n\n" + "".join(f"{name}\n" for name in names))
    (directory / "constraints.txt").write_text("a==1\n")
    return dataclasses.replace(bases.load("3.1.3"), directory=directory)


def test_beginning_of_a_series(three: bases.Base):
    first, second = (benchsubjects.beginning(three, length) for length in (1, 2))

    assert series.names(first) == ["0001-a.patch"]
    assert series.names(second) == ["0001-a.patch", "0002-a.patch"]
    assert len({source.key(base, patched=True) for base in (first, second, three)}) == 3
    assert len({base.name for base in (first, second, three)}) == 3
    assert second.constraints.read_text() == "a==1\n"
    key = source.key(second, patched=True)
    (three.directory / "0002-a.patch").write_text("changed")
    assert source.key(second, patched=True) == key


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("/no/such/python", "no such file"),
        ("new=/no/such/python", "no such file"),
        (f"={sys.executable}", "no label"),
        (sys.executable, "has no apache-airflow-core"),
    ],
)
def test_bad_against_is_said_before_anything_is_built(three: bases.Base, text: str, problem: str):
    with pytest.raises(PatchsetError, match=problem):
        benchsubjects.subjects(three, against=[text])

    assert not list((three.directory.parent / "work").glob("*"))


@pytest.mark.parametrize("text", ["forkserver", "a=b=", "core.x", ".x=1", "label=x=1"])
def test_bad_variant_is_said_before_anything_is_built(three: bases.Base, text: str):
    with pytest.raises(PatchsetError, match=r"SECTION\.OPTION=VALUE"):
        benchsubjects.subjects(three, variants=[text])

    assert not list((three.directory.parent / "work").glob("*"))


def test_variants_are_the_patched_one_with_another_configuration(three: bases.Base, monkeypatch):
    monkeypatch.setattr(benchsubjects, "_of", lambda base, label, patched, python_version: subject(label))

    found = benchsubjects.subjects(three, variants=["core.mp_start_method=spawn", "no pool=a.b=0"])

    assert [(each.label, dict(each.config)) for each in found] == [
        ("stock", {}),
        ("patched", {}),
        ("spawn", {"core.mp_start_method": "spawn"}),
        ("no pool", {"a.b": "0"}),
    ]
    assert found[1].python == found[3].python
    assert "config" not in found[1].as_json()
    assert found[3].as_json()["config"] == {"a.b": "0"}


def test_configuration_of_a_variant_gets_to_the_deployment(tmp_path: Path, monkeypatch):
    seen = {}
    monkeypatch.setattr(benchairflow.workload, "migrate", lambda python, place: place)
    monkeypatch.setattr(
        benchairflow.workload,
        "measure",
        lambda *args, config, **how: seen.setdefault("config", config) and {},
    )
    variant = dataclasses.replace(subject("one", airflow="3.1.3"), config={"a.b": "0"})

    benchairflow.Deployments(tmp_path).measure(variant, tmp_path, None, config={"c.d": "1"})

    assert seen["config"] == {"c.d": "1", "a.b": "0"}


@pytest.mark.parametrize(
    "line",
    [
        "memory --parallelism 0",
        "memory --concurrency 17",
        "memory --settle -1",
        "memory --database oracle",
        "growth --tasks 3",
        "dispatch --workloads 0",
        "throughput --parallelism 4,x",
        "gc --objects 1e6",
        "gc --repeats 0",
        "gc --against",
        "speed",
        "",
    ],
)
def test_bad_options_are_one_line(line: str, capsys, monkeypatch):
    # Called in this process, it must not take over the signals of the test run.
    monkeypatch.setattr(cli, "_catch_signals", lambda: None)
    assert cli.main(["bench", *line.split()]) == 2

    assert len(capsys.readouterr().err.splitlines()) == 1


def test_options_say_what_is_recorded():
    parser = argparse.ArgumentParser()
    benchmemory.add_arguments(parser)

    args = parser.parse_args(["--concurrency", "4", "--database", "postgresql"])

    assert benchmemory.options(args) == {
        **{"parallelism": 16, "tasks_per_worker": 6, "concurrency": 4},
        **{"seconds": 2.0, "settle": 60.0, "database": "postgresql"},
    }
    assert benchmemory.variant(args) == ["concurrency-4", "postgresql"]


# Memory


def sample(time: float, idle: int, busy: int, uss: int = 5) -> list:
    """Return a tree with scheduler (PSS 50 MiB), serve-logs (40), workers, and a task for each busy one."""
    readings = [Reading(1, SCHEDULER, 30 * MIB, 50 * MIB), Reading(2, SERVE_LOGS, 30 * MIB, 40 * MIB)]
    readings += [Reading(10 + n, WORKER_IDLE, uss * MIB, (uss + 10) * MIB) for n in range(idle)]
    readings += [Reading(20 + n, WORKER_BUSY, uss * MIB, (uss + 10) * MIB) for n in range(busy)]
    readings += [Reading(30 + n, TASK, MIB, 2 * MIB) for n in range(busy)]
    return Sample(time, 0.01, tuple(readings)).as_json()


def test_moments_of_a_run():
    samples = [sample(1, 4, 0), sample(5, 2, 2, 90), sample(8, 0, 4, 20), sample(9, 0, 4, 25)]
    samples += [sample(11, 3, 1, 30), sample(12, 4, 0, 28), sample(15, 4, 0, 15), sample(70, 4, 0, 6)]
    run = {"state": "success", "seconds": 9.0, "tasks": 8, "succeeded": 8, "states": {"success": 8}}
    record = {
        "events": {"ready": 0.5, "triggered": 2.0, "finished": 10.0, "end": 70.0},
        "cpu": {"ready": 3.0, "triggered": 4.0, "finished": 9.5, "end": 10.25},
        "dag_run": run,
        "sampling": {},
        "config": {},
        "snapshots": {"idle": {"time": 1.0}, "after": {"time": 15.0}, "after 60 s": {"time": 70.0}},
        "samples": samples,
    }

    condensed = benchmemory.condense(record, 60.0)

    assert {name: moment["time"] for name, moment in condensed["moments"].items()} == {
        "before any task": 1,
        "at the peak": 9,  # the largest of those with all slots in use
        "at once after": 12,
        "60 s after": 70,
    }
    assert len(condensed["course"]["rows"]) == len(samples)
    found = values(benchmemory.figures(json.loads(json.dumps(condensed))))
    assert found["before any task", "workers", report.USS_EACH] == 5
    assert found["at the peak", "workers", "busy"] == 4
    assert found["at the peak", "task", report.USS_EACH] == 1
    assert found["at once after", "workers", report.USS_EACH] == 28
    assert found["60 s after", "workers", report.USS_EACH] == 6
    assert found["60 s after", "whole tree", report.PSS_TOTAL] == 50 + 40 + 4 * 16
    assert found["run", "tasks succeeded", "of 8"] == 8
    assert found["run", "CPU of the tree", "during the tasks, s"] == 5.5
    assert found["run", "CPU of the tree", "from then to the end, s"] == 0.75


# Growth


def test_growth_is_that_after_the_first_tasks():
    # 20 MB at once, then 3 kB with each task; the rows with no or all tasks done do not count.
    rows = [[t, t, 4, 20e6 + 3000 * t, 9e7 - 500 * t] for t in range(5, 100, 5)]
    rows = [[0, 0, 4, 0, 0], *rows, [100, 100, 4, 1e9, 0]]

    assert benchgrowth.slope(rows, 3) == pytest.approx(3000)
    assert benchgrowth.slope(rows, 4) == pytest.approx(-500)
    assert benchgrowth.slope(rows[:2], 3) is None
    late = [[t, t, 4, 1000 * t if t < 50 else 50_000, 0] for t in range(5, 101, 5)]
    assert benchgrowth.slope(late, 3) > 100
    assert benchgrowth.slope(late, 3, skipped=0.5) == pytest.approx(0)
    assert benchgrowth.slope([], 3) is None


def test_tasks_are_counted_when_they_end():
    samples = [sample(1, 4, 0), sample(5, 3, 1, 10), sample(9, 4, 0, 20)]
    tasks = [[0, 1, 4.0], [0, 1, 6.0], [0, 1, None], [0, 1, 8.0]]
    run = {"tasks": 4, "succeeded": 3}
    record = {"samples": samples, "tasks": tasks, "dag_run": run, "events": {}, "sampling": {}, "config": {}}

    condensed = benchgrowth.condense(record)

    assert [row[1] for row in condensed["course"]["rows"]] == [0, 1, 3]
    found = values(benchgrowth.figures(condensed))
    assert found["4 tasks", "worker's USS", "kB per task"] is None
    assert found["4 tasks", "worker's USS", "at the end, MiB"] == 20
    assert found["4 tasks", "tasks", "succeeded of 4"] == 3


# Throughput, dispatch, gc


def test_rate_of_tasks():
    run = {"tasks": 300, "succeeded": 299, "seconds": 90.0}
    tasks = [[1.0, 2.0, 9.0], [1.0, 4.0, 9.0], [1.0, 9.0, 9.0], [None, None, None]]

    found = values(benchthroughput.figures({"slots": {"4": {"dag_run": run, "tasks": tasks}}}))

    assert found["4 slots", "tasks", "per minute"] == 200
    assert found["4 slots", "tasks", "succeeded of 300"] == 299
    assert found["4 slots", "queued to started", "median, s"] == 3


@pytest.mark.parametrize(("q", "value"), [(0.0, 0), (0.5, 50), (0.99, 99), (1.0, 99)])
def test_quantile(q: float, value: int):
    assert benchdispatch.quantile(range(100), q) == value


def test_stuck_executor_is_a_result():
    done = {"workloads": 4, "succeeded": 4, "stuck": False, "seconds": 2.0, "held_longest": 0.25}
    stuck = {"workloads": 4, "succeeded": 1, "stuck": True, "seconds": 60.0, "held_longest": 59.0}
    waits = {"offer_to_start": {"0.5": 0.001, "0.99": 0.002}}
    cases = {
        "paced": done | waits,
        "burst": stuck | waits,
        "start": done | {"all_running": 0.5},
        "first": {"stuck": True},
    }

    found = values(benchdispatch.figures({"cases": cases, "slots": 8, "workers": 32}))

    paced, burst = "8 slots, never more under way", "8 slots, all offered at once"
    assert found[paced, "executor", "workloads per second"] == 2
    assert found[paced, "executor", "longest call, ms"] == 250
    assert found[paced, "offer to start", "p99, ms"] == 2
    assert found[burst, "executor", "workloads per second"] is None
    assert found[burst, "executor", "lost or stuck"] == 3
    assert found["one new worker", "executor", "lost or stuck"] == 1
    assert found["one new worker", "first task", "median, ms"] is None

    everywhere = {name: {"stuck": True} for name in cases}
    found = values(benchdispatch.figures({"cases": everywhere, "slots": 8, "workers": 32}))
    assert found[paced, "executor", "lost or stuck"] == 1
    assert found[paced, "offer to start", "p99, ms"] is None


def test_each_case_has_its_time():
    cases = benchdispatch.cases({"workloads": 2000, "parallelism": 8, "workers": 32, "times": 5})

    assert cases["burst"] == {"workloads": 2000, "parallelism": 8, "timeout": 130}
    assert cases["start"] == {"workers": 32, "timeout": 92}


def test_gc_without_a_freeze_has_no_cycle():
    found = {
        **{"own_cycle": None, "plain_cycle": [0.001], "fork": [0.01, 0.03, 0.02], "held_total": 0.1},
        **{"collection_before": [0.2], "collection_after": [0.3], "worker_collection": [0.5]},
        **{"worker_private": [MIB, 3 * MIB], "stuck": False},
    }

    rows = values(benchgc.figures({"objects": {"100000": found}, "workers": 4}))

    when = "0.1 million objects"
    assert rows[when, "scheduler", "freeze cycle without forks, longest, CPU ms"] is None
    assert rows[when, "scheduler", "one fork, median, ms"] == 20
    assert rows[when, "worker", "made private by a full collection, MiB"] == 2
    assert rows[when, "executor", "stuck"] == 0

    rows = values(benchgc.figures({"objects": {"100000": found | {"stuck": True}}, "workers": 4}))

    assert rows[when, "worker", "made private by a full collection, MiB"] is None
    assert rows[when, "executor", "stuck"] == 1


def test_driver_that_fails_is_said(tmp_path: Path):
    with pytest.raises(PatchsetError, match=r"stock: collector.py failed: .*No module named 'airflow'"):
        benchdriver.drive("stock", Path(sys.executable), tmp_path / "home", "collector.py", "{}", timeout=60)

    assert "Traceback" in (tmp_path / "home" / "collector.log").read_text()


# PostgreSQL


def test_missing_postgresql_is_said(tmp_path: Path, monkeypatch):
    (tmp_path / "15" / "bin").mkdir(parents=True)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(PatchsetError, match="apt-get install postgresql"):
        benchpostgres.find_programs(tmp_path)


def test_newest_postgresql_is_taken(tmp_path: Path):
    for version in ("9", "15", "16"):
        directory = tmp_path / version / "bin"
        directory.mkdir(parents=True)
        for program in ("initdb", "postgres", "createdb") if version != "16" else ("createdb",):
            (directory / program).touch(mode=0o755)

    assert benchpostgres.find_programs(tmp_path) == tmp_path / "15" / "bin"


def _postgresql() -> bool:
    try:
        return bool(benchpostgres.find_programs())
    except PatchsetError:
        return False


@pytest.mark.skipif(not _postgresql(), reason="no PostgreSQL server here")
def test_postgresql_lives_as_long_as_the_context(tmp_path: Path):
    with benchpostgres.server(tmp_path) as server:
        one, two = server.new_database(), server.new_database()
        wrong = server.environment | {"PGPASSWORD": "wrong"}
        refused = processes.run(server.client("createdb", "x"), env=wrong, capture=True)
        listed = psutil.process_iter(["cmdline"])
        serving = [process for process in listed if f"port={server.port}" in (process.info["cmdline"] or ())]

    assert one != two
    assert one.startswith("postgresql+psycopg2://airflow:")
    assert "password authentication failed" in refused.stderr
    assert serving
    assert not any(process.is_running() for process in serving)
    assert [path.name for path in tmp_path.iterdir()] == ["postgresql.log"]


# The real thing


def _bench(output: Path, *args: str) -> dict:
    command = [sys.executable, "-I", str(ROOT / "scripts" / "patchsetlib"), "--quiet", "bench", *args]
    command += ["--repeats", "1", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (output / "README.md").read_text().count("| 8 slots" if args[0] == "dispatch" else "million") > 3
    data, png, svg = (ROOT / line for line in done.stdout.splitlines()[-3:])
    assert png.stat().st_size > 3000
    assert svg.stat().st_size > 3000
    return json.loads(data.read_text())


@pytest.mark.network
def test_dispatch(tmp_path: Path):
    data = _bench(tmp_path, "dispatch", "--workloads", "50", "--workers", "3", "--times", "1")

    assert [run["label"] for run in data["runs"]] == LABELS
    for run in data["runs"]:
        cases = run["cases"]
        for name, count in {"paced": 50, "burst": 50, "start": 3, "first": 1}.items():
            if run["label"] == "stock" and cases[name]["stuck"]:
                continue  # That is what is wrong with it.
            assert cases[name]["succeeded"] == cases[name]["started"] == cases[name]["workloads"] == count
            assert not cases[name]["stuck"]
            assert 0 < cases[name]["offer_to_start"]["0.5"] < 30
        assert 0 < cases["start"]["all_running"] < 60


@pytest.mark.network
def test_gc(tmp_path: Path):
    data = _bench(tmp_path, "gc", "--objects", "20000", "--workers", "2", "--cycles", "3")

    for run in data["runs"]:
        found = run["objects"]["20000"]
        assert found["succeeded"] == 2
        assert found["tracked"] > 100_000
        assert len(found["worker_collection"]) == len(found["worker_private"]) == 2
        assert min(found["worker_collection"]) > 0
