# SPDX-License-Identifier: Apache-2.0
"""``demo`` on the real thing: a short run, and what is left when something dies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from waiting import LONG, eventually

from patchsetlib.measure import report, runner
from patchsetlib.measure.benchmarks.memory import BENCHMARK
from patchsetlib.measure.database import database
from patchsetlib.measure.deployment import Deployment
from patchsetlib.measure.memory import WORKER_IDLE, read_tree
from patchsetlib.measure.subjects import Subject
from patchsetlib.measure.workload import DAGS, Workload
from patchsetlib.patches import base as bases
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import ROOT, work_dir

BASE = bases.default().name
pytestmark = [pytest.mark.network, pytest.mark.base(BASE)]
DEMO = [sys.executable, "-I", str(ROOT / "scripts" / "patchsetlib"), "demo", BASE]
# So long that the memory is read at least once while a task runs.
SMALL = {"tasks": 4, "parallelism": 4, "concurrency": 0, "seconds": 5.0, "settle": 1.0}


def processes_of(directory: Path) -> list[psutil.Process]:
    """Return the live processes of deployments below ``directory``, however they are called."""
    found = []
    for process in psutil.process_iter(["environ", "status"]):
        home = (process.info["environ"] or {}).get("AIRFLOW_HOME", "")
        if Path(home).is_relative_to(directory) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def test_patched_airflow_runs_the_workload_of_the_demo(patched: Subject, shared: Path):
    configured = replace(patched, config={"core.max_map_length": "100"})
    (record,) = runner.run(BENCHMARK, [configured], SMALL, 1, shared)

    assert "error" not in record
    assert not runner.failed(record)
    assert record["dag_run"]["states"] == {"success": 4}
    assert record["config"]["core.max_map_length"] == "100"
    assert not {"core.fernet_key", "database.sql_alchemy_conn"} & set(record["config"])
    found = {(f.when, f.what, f.unit): f.value for f in BENCHMARK.figures(record)}
    for moment in ("before any task", "at once after", "1 s after"):
        assert found[moment, "workers", "processes"] == 4
        uss, pss = (
            found[moment, "workers", "USS per process, MiB"],
            found[moment, "whole tree", "PSS total, MiB"],
        )
        assert 0 < uss < pss
    assert found["at the peak", "workers", "busy"] >= 1
    assert str(shared) not in json.dumps([record, report.describe_machine()])
    assert processes_of(shared) == []


def test_death_of_the_scheduler_is_noticed(patched: Subject, shared: Path):
    load = Workload(parallelism=2)
    home = shared / "a home"
    with (
        pytest.raises(PatchsetError, match="patched: the scheduler ended by itself"),
        database(None, patched, shared) as where,
        Deployment(
            patched.python, home, dags=DAGS, config=load.config, env=load.env, name="patched", **where
        ) as deployment,
    ):
        pid = deployment.pids["scheduler"]
        eventually("two workers started", lambda: read_tree(pid).count(WORKER_IDLE) == 2)
        psutil.Process(pid).kill()
        deployment.wait_for("notice of it", lambda: None, LONG)

    assert processes_of(home) == []


@pytest.mark.nightly
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_nothing_is_left_when_the_tool_is_ended(number: int, code: int):
    demos = work_dir() / BASE / "demo"
    before = set(demos.glob("*"))
    with subprocess.Popen(DEMO, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as tool:
        try:

            def started() -> Path | None:
                for directory in set(demos.glob("*")) - before:
                    if len(processes_of(directory / "1-stock")) >= 3:
                        return directory
                assert tool.poll() is None, tool.stderr.read()
                return None

            directory = eventually("all components started", started)
            tool.send_signal(number)
            assert tool.wait(timeout=LONG) == code
        finally:
            tool.kill()
    eventually("all processes gone", lambda: not processes_of(directory))


@pytest.mark.nightly
def test_demo_compares_stock_and_patched():
    small = ["--tasks", "8", "--parallelism", "4", "--seconds", "0.2", "--settle", "1"]
    done = subprocess.run([*DEMO, *small], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    data, chart = (ROOT / line for line in done.stdout.splitlines()[-2:])
    assert [run["dag_run"]["succeeded"] for run in json.loads(data.read_text())["runs"]] == [8, 8]
    assert "<svg" in chart.read_text()
    assert "| 1 s after       | workers " in done.stdout
    assert "patched: 1 s after: whole tree, PSS total, MiB: " in done.stdout
