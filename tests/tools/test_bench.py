# SPDX-License-Identifier: Apache-2.0
"""The benchmarks: their runs and subjects, their arithmetic on known figures, and some on the real thing."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import psutil
import pytest

from patchsetlib import cli
from patchsetlib.measure import report, runner, subjects, workload
from patchsetlib.measure.benchmarks import BENCHMARKS, dispatch, growth, soak, throughput
from patchsetlib.measure.memory import SCHEDULER, TASK, WORKER_BUSY, WORKER_IDLE, Reading, Sample
from patchsetlib.measure.runner import Benchmark, Run
from patchsetlib.measure.subjects import Subject
from patchsetlib.patches import base as bases
from patchsetlib.patches import series, source
from patchsetlib.shell.errors import PatchsetError, UsageError
from patchsetlib.shell.git import git
from patchsetlib.shell.paths import ROOT
from patchsetlib.verbs import bench

MIB = 2**20


# Runs

DESCRIPTION = {"python": "3.12.1", "airflow": "3.1.3", "content": "c", "distributions": {"a": "1"}}


def subject(label: str, **config: str) -> Subject:
    return Subject(label, Path(sys.executable), DESCRIPTION, config=config)


def measure(run: Run) -> dict:
    (run.home / "log").write_text("what happened")
    if run.home.name == "4-patches-1-2-b":
        raise PatchsetError("it broke", "mend it")
    return {"x": 1.0}


FAKE = Benchmark("fake", "", (), measure, lambda record: [], (), cases=lambda options: ["a", "b"])


def test_runs_are_interleaved_and_failures_recorded(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(subjects, "describe", lambda python: DESCRIPTION)
    saved: list[int] = []

    runs = runner.run(
        FAKE, [subject("stock"), subject("patches 1-2")], {}, 2, tmp_path, save=lambda r: saved.append(len(r))
    )

    assert [(run["label"], run["repeat"], run["case"], run.get("error")) for run in runs] == [
        *(("stock", 1, "a", None), ("stock", 1, "b", None)),
        *(("patches 1-2", 1, "a", None), ("patches 1-2", 1, "b", "it broke")),
        *(("patches 1-2", 2, "a", None), ("patches 1-2", 2, "b", None)),
        *(("stock", 2, "a", None), ("stock", 2, "b", None)),
    ]
    assert saved == list(range(1, 9))
    assert [path.name for path in tmp_path.iterdir()] == ["4-patches-1-2-b"]
    assert "patches 1-2: run 1 failed: it broke; mend it" in capsys.readouterr().err
    assert [runner.failed(run) for run in runs].count(True) == 1
    assert runner.failed({"dag_run": {"tasks": 8, "succeeded": 7}})


def test_airflow_that_changes_meanwhile_ends_the_benchmark(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(subjects, "describe", lambda python: DESCRIPTION | {"content": "d"})

    with pytest.raises(PatchsetError, match="stock: what is installed there has changed"):
        runner.run(FAKE, [subject("stock")], {}, 1, tmp_path)


def test_busy_processes_are_there_and_go():
    before = set(psutil.Process().children(recursive=True))
    with runner.busy(2):
        started = set(psutil.Process().children(recursive=True)) - before
        assert sum("while True" in str(process.cmdline()) for process in started) >= 2
    assert not any(process.is_running() for process in started)


def test_probe_that_fails_is_said(tmp_path: Path):
    with pytest.raises(PatchsetError, match=r"stock: collector.py 4 failed: .*No module named 'airflow'"):
        Run(subject("stock"), "4", {}, tmp_path).probe("collector.py", '{"objects": 1}', timeout=60)

    assert "Traceback" in (tmp_path / "airflow" / "output" / "collector.log").read_text()


# Subjects


@pytest.fixture
def three(tmp_path: Path, monkeypatch) -> bases.Base:
    """A base with a series of three patches, of which the second is in common."""
    monkeypatch.setenv("PATCHSET_WORK", str(tmp_path / "work"))
    directory, common = tmp_path / "bases" / "base", tmp_path / "bases" / "common"
    for place in (directory, common):
        place.mkdir(parents=True)
    names = ["0001-a.patch", "../common/b.patch", "0003-c.patch"]
    for name in names:
        (directory / name).write_text(f"text of {name}")
    (directory / "series").write_text("# Comment\n\n" + "".join(f"{name}\n" for name in names))
    return dataclasses.replace(bases.default(), directory=directory)


def test_beginning_of_a_series_is_a_copy(three: bases.Base):
    first, second = (subjects.beginning(three, length) for length in (1, 2))

    assert series.names(first) == ["0001-a.patch"]
    assert series.names(second) == ["0001-a.patch", "../common/b.patch"]
    assert len({source.key(base, patched=True) for base in (first, second, three)}) == 3
    assert len({base.name for base in (first, second, three)}) == 3
    key = source.key(second, patched=True)
    (three.directory / "../common/b.patch").write_text("changed")
    assert source.key(second, patched=True) == key


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ({"against": ["new=/no/such/python"]}, "no such file"),
        ({"against": [sys.executable]}, "has no apache-airflow-core"),
        ({"variants": ["a=b="]}, r"SECTION\.OPTION=VALUE"),
        ({"variants": ["label=x=1"]}, r"SECTION\.OPTION=VALUE"),
    ],
)
def test_bad_subjects_are_said_before_anything_is_built(three: bases.Base, how: dict, problem: str):
    with pytest.raises(PatchsetError, match=problem):
        subjects.subjects(three, **how)

    assert not list((three.directory.parents[1] / "work").glob("*"))


def test_subjects_stand_in_the_order_of_the_table(three: bases.Base, monkeypatch):
    monkeypatch.setattr(subjects, "_of", lambda base, label, patched, python: subject(label))
    variants = ["core.mp_start_method=spawn", "no pool=a.b=0"]

    found = subjects.subjects(three, each=True, variants=variants, against=["3.1.3"])

    assert [(each.label, dict(each.config)) for each in found] == [
        *(("stock", {}), ("patch 1", {}), ("patches 1-2", {}), ("patched", {})),
        *(("spawn", {"core.mp_start_method": "spawn"}), ("no pool", {"a.b": "0"})),
        *(("stock 3.1.3", {}), ("patched 3.1.3", {})),
    ]
    with pytest.raises(UsageError, match="two are called patched"):
        subjects.subjects(three, variants=["patched=a.b=0"])


# Command line


@pytest.mark.parametrize(
    "line",
    [
        "memory --parallelism 0",
        "memory --settle -1",
        "memory --database oracle",
        "growth --tasks 3",
        "throughput --parallelism 4,x",
        "gc --objects 1e6",
        "gc --repeats 0",
        "dispatch --database postgresql+psycopg2://",
        "speed",
        "",
    ],
)
def test_bad_options_are_one_line(line: str, capsys, monkeypatch):
    # Called in this process, it must not take over the signals of the test run.
    monkeypatch.setattr(cli, "_catch_signals", lambda: None)
    assert cli.main(["bench", *line.split()]) == 2

    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "stem"),
    [
        ("memory", "memory"),
        ("memory --concurrency 4 --seconds 0.5", "memory-concurrency-4-seconds-0.5"),
        ("throughput --parallelism 8 --busy 2", "throughput-parallelism-8-busy-2"),
        ("memory --each --variant core.a=b --tasks 8", "memory-each-variants-tasks-8"),
    ],
)
def test_results_are_called_by_what_is_unlike_the_default(line: str, stem: str):
    _, args = cli._parse(["bench", *line.split()])
    options = {option.name: getattr(args, option.name) for option in (*args.described.options, bench._BUSY)}

    more = {"each": args.each, "variants": args.variant}
    assert bench._stem(args.described, options | {"database": "sqlite"}, **more) == stem
    assert bench._stem(args.described, {"database": "mysql"}) == f"{args.described.name}-database-mysql"


# Figures


@pytest.mark.parametrize("name", [path.name for path in sorted((ROOT / "docs" / "benchmarks").iterdir())])
def test_tables_in_the_documents_are_those_of_the_raw_data(name: str, tmp_path: Path):
    documents = ROOT / "docs" / "benchmarks" / name
    shutil.copytree(documents, tmp_path, dirs_exist_ok=True)

    report.write_index(tmp_path, BENCHMARKS)

    assert (tmp_path / "README.md").read_text() == (documents / "README.md").read_text()


def test_figures_in_the_documents_are_of_one_tip_of_each_series():
    tips = defaultdict(set)
    for file in (ROOT / "docs" / "benchmarks").glob("*/*.json"):
        data = json.loads(file.read_text())
        for label, subject in data["subjects"].items():
            if subject["commit"] and not label.startswith(("patch ", "patches ")):
                other = label.removeprefix("patched ")
                tips[other if other in bases.all_bases() else data["base"]].add(subject["commit"])
    assert {name: len(commits) for name, commits in tips.items() if len(commits) > 1} == {}


def values(name: str, record: dict) -> dict[tuple[str, str, str], float | None]:
    """Return what the table shows of a record that has been through JSON."""
    rows = BENCHMARKS[name].figures(json.loads(json.dumps(record)))
    return {(row.when, row.what, row.unit): row.value for row in rows}


def sample(time: float, idle: int, busy: int, uss: int = 5) -> Sample:
    """Return a tree with scheduler, workers, and a task for each busy one."""
    readings = [Reading(1, SCHEDULER, 30 * MIB, 50 * MIB)]
    readings += [Reading(10 + n, WORKER_IDLE, uss * MIB, (uss + 10) * MIB) for n in range(idle)]
    readings += [Reading(20 + n, WORKER_BUSY, uss * MIB, (uss + 10) * MIB) for n in range(busy)]
    readings += [Reading(30 + n, TASK, MIB, 2 * MIB) for n in range(busy)]
    return Sample(time, 0.01, tuple(readings))


def test_peak_is_the_largest_with_most_workers_busy_and_the_end_the_first_without_tasks():
    samples = [sample(5, 2, 2, 90), sample(8, 0, 4, 20), sample(9, 0, 4, 25), sample(11, 3, 1, 30)]
    samples += [sample(12, 4, 0, 28), sample(15, 4, 0, 15)]

    moments = workload._moments(samples, sample(1, 0, 0), finished=10)

    assert {name: moment.time for name, moment in moments.items()} == {
        "before any task": 1,
        "at the peak": 9,
        "at once after": 12,
    }


def test_growth():
    # 20 MB at once, then 3 kB with each task; the points with no or all tasks done do not count.
    points = [(0, 0), *((t, 20e6 + 3000 * t) for t in range(5, 100, 5)), (100, 1e9)]
    assert growth.slope(points) == pytest.approx(3000)
    assert growth.slope(points[:2]) is growth.slope([]) is None
    late = [(t, 1000 * t if t < 50 else 50_000) for t in range(5, 101, 5)]
    assert growth.slope(late) > 100
    assert growth.slope(late, skipped=0.5) == pytest.approx(0)

    course = workload._course(
        [sample(1, 4, 0), sample(5, 3, 1, 10), sample(9, 4, 0, 20)], [4.0, 6.0, None, 8.0]
    )
    assert [row[1] for row in course["rows"]] == [0, 1, 3]
    found = values("growth", {"course": course, "dag_run": {"tasks": 4, "succeeded": 3}})
    assert found["4 tasks", "worker's USS", "kB per task"] is None
    assert found["4 tasks", "worker's USS", "at the end, MiB"] == 20
    assert found["4 tasks", "tasks", "succeeded of 4"] == 3


def test_a_slot_is_refilled_by_the_start_that_is_as_many_places_later():
    # Two slots: the third task starts when the first has ended, the fourth when the second has.
    tasks = [[0.5, 1.0, 2.0], [0.5, 1.0, 4.0], [0.5, 2.25, 5.0], [None, 4.5, 6.0], [None, None, None]]
    assert throughput.refills(tasks, 2) == [0.25, 0.5]


def test_what_tasks_record_is_read(tmp_path: Path):
    records = tmp_path / "records"
    assert workload.own_code(records) == []
    records.write_text("0.015 14336\n0.02 15360\n")
    assert workload.own_code(records) == [(0.015, 14 * MIB), (0.02, 15 * MIB)]


@pytest.mark.parametrize("case", dispatch.CASES)
def test_dispatch_shows_a_stuck_executor(case: str):
    found = values("dispatch", {"case": case, "when": case, "stuck": True})
    assert found.pop((case, "executor", "lost or stuck")) == 1
    assert set(found.values()) == {None}
    lost = {"case": case, "when": case, "stuck": True, "workloads": 4, "succeeded": 1}
    assert values("dispatch", lost)[case, "executor", "lost or stuck"] == 3


def test_gc_shows_a_stuck_executor():
    record = {
        "case": "100000",
        "workers": 4,
        "fork": [0.01, 0.03, 0.02],
        "held_total": 0.1,
        "collection": [0.2],
    }
    record |= {"freeze_cycle": [0.001], "worker_collection": [0.5], "worker_private": [MIB, 3 * MIB]}
    when = "0.1 million objects"
    copied = (when, "worker", "made private by a full collection, MiB")

    found, stuck = (values("gc", record | {"stuck": stuck}) for stuck in (False, True))
    assert found[when, "scheduler", "one fork, median, ms"] == 20
    assert (found[when, "executor", "stuck"], found[copied]) == (0, 2)
    assert (stuck[when, "executor", "stuck"], stuck.get(copied)) == (1, None)


def test_soak_finds_what_ran_twice_and_what_only_seems_to_have_succeeded(tmp_path):
    task = {"dag_id": "d", "dag_run_id": "r", "task_id": "t", "map_index": 3, "state": "success"}
    file = tmp_path / "d r t 3"
    # Killed in its first try, which was then started again.
    file.write_text("started 1 all 10\nstarted 1 all 11\nbeside 2 all 12\ndone 2 all 12\n")

    assert soak._again(soak._read(file)) == ["try 1, all"]
    assert soak._lost(task | {"try_number": 2}, tmp_path) is None
    assert soak._lost(task | {"try_number": 1}, tmp_path) == "t: success, though its code has not ended"
    assert soak._lost(task | {"try_number": 2, "state": "queued"}, tmp_path) == "t: queued"
    assert soak._lost(task | {"try_number": 1, "map_index": 4}, tmp_path) is not None


# Probes and the real thing


def test_memory_is_counted_to_the_package_and_not_to_what_imports_it(tmp_path: Path):
    # Anonymous memory that is written to counts; that of a bytearray's zeros does not.
    take = "taken = b'x' * ({} * 2**20)\n"
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "__init__.py").write_text(take.format(20) + "import small\n")
    (tmp_path / "large" / "part.py").write_text(take.format(10))
    (tmp_path / "small.py").write_text(take.format(5))
    program = (
        "import json, imports\naccounts = imports.Accounts()\naccounts.watch()\nimport large.part\n"
        "print(json.dumps([accounts.bytes, accounts.modules, accounts.importers]))"
    )
    path = os.pathsep.join([str(runner.PROBES), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )

    size, modules, importers = json.loads(done.stdout)

    assert 30 * MIB <= size["large"] < 32 * MIB
    assert 5 * MIB <= size["small"] < 7 * MIB
    assert modules["large"] == 2
    assert (importers["large"], importers["small"]) == ("python", "large")


@pytest.mark.network
@pytest.mark.parametrize(
    "line",
    [
        "imports",
        pytest.param("dispatch --workloads 50 --workers 3 --times 1", marks=pytest.mark.nightly),
        pytest.param("gc --objects 20000 --workers 2 --cycles 3", marks=pytest.mark.nightly),
        pytest.param("throughput --tasks 4 --parallelism 2 --busy 1", marks=pytest.mark.nightly),
    ],
)
def test_real(line: str, tmp_path: Path):
    name, *options = line.split()
    command = [sys.executable, "-I", str(ROOT / "scripts" / "patchsetlib"), "--quiet", "bench"]
    command += [name, bases.default().name, *options, "--repeats", "1", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    data = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert list(data["subjects"]) == ["stock", "patched"]
    tip = git("rev-parse", "HEAD", cwd=source.cached_tree(bases.default(), patched=True))
    assert data["subjects"]["patched"]["commit"] == tip.strip()
    assert f"## {name}, Airflow {bases.default().version}" in (tmp_path / "README.md").read_text()
    for run in data["runs"]:
        # A stuck stock executor is what is wrong with it.
        if not (run.get("stuck") and run["label"] == "stock"):
            shown = BENCHMARKS[name].figures(run)
            assert all(figure.value is not None for figure in shown)
            assert all(figure.value == 0 for figure in shown if "stuck" in figure.unit)
