# SPDX-License-Identifier: Apache-2.0
"""``demo`` on the real thing: a short run, tasks that fail, and what is left when something dies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from patchsetlib.installs import environment
from patchsetlib.measure.instance import Instance
from patchsetlib.measure.memory import WORKER_BUSY, read_tree
from patchsetlib.measure.workload import DAG_ID, DAGS, Workload
from patchsetlib.patches import base as bases
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import ROOT, work_dir
from patchsetlib.verbs import demo

BASE = "3.1.3"
pytestmark = [pytest.mark.network, pytest.mark.base(BASE)]
DEMO = [sys.executable, "-I", str(ROOT / "scripts" / "patchsetlib"), "demo", BASE]
SMALL = ["--tasks", "8", "--parallelism", "4", "--seconds", "0.2"]


@pytest.fixture(scope="module", autouse=True)
def stock() -> Path:
    """Return the stock interpreter; both are there before anything is timed."""
    base = bases.load(BASE)
    environment.python(base, patched=True)
    return environment.python(base, patched=False)


def processes_of(directory: Path) -> list[psutil.Process]:
    """Return the live processes of deployments below ``directory``, however they are called."""
    found = []
    for process in psutil.process_iter():
        try:
            home = process.environ().get("AIRFLOW_HOME", "")
            if Path(home).is_relative_to(directory) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def eventually(condition, what: str, seconds: float):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"after {seconds} s: not {what}"
        time.sleep(0.1)
    return result


def test_demo_compares_stock_and_patched():
    done = subprocess.run([*DEMO, *SMALL], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, done.stderr
    data, png, svg = (ROOT / line for line in done.stdout.splitlines()[-3:])
    assert [run["dag_run"]["succeeded"] for run in json.loads(data.read_text())["runs"]] == [8, 8]
    for run in json.loads(data.read_text())["runs"]:
        for moment in ("idle", "after"):
            roles = run["snapshots"][moment]["roles"]
            assert roles["scheduler"]["count"] == roles["serve-logs"]["count"] == 1
            assert roles["task"]["count"] == 0
            assert run["snapshots"][moment]["settled"]
        assert 1 <= run["snapshots"]["after"]["roles"]["workers"]["count"] <= 4
        assert run["snapshots"]["peak"]["roles"]["task"]["count"] >= 1
        assert str(ROOT) not in json.dumps(run)
    assert png.stat().st_size > 10_000
    assert svg.stat().st_size > 10_000
    assert "| after the tasks | workers " in done.stdout
    assert processes_of(data.parent) == []


def test_failed_tasks_fail_the_demo(stock: Path, tmp_path: Path, monkeypatch, capfd):
    dags = tmp_path / "failing"
    dags.mkdir()
    text = (DAGS / "patchset_mapped.py").read_text()
    assert "        return checksum\n" in text
    failing = text.replace("        return checksum\n", "        return checksum // (number - 2)\n")
    (dags / "patchset_mapped.py").write_text(failing)
    workload = Workload(tasks=4, seconds=0, parallelism=2)

    code = demo.compare(BASE, {"stock": stock}, workload, tmp_path / "out", time.monotonic(), dags=dags)

    out, err = capfd.readouterr()
    assert code == 1
    assert "not all tasks succeeded: {'failed': 1, 'success': 3}" in err
    assert json.loads((tmp_path / "out" / "demo.json").read_text())["runs"][0]["dag_run"]["succeeded"] == 3
    assert "of 4" in out
    assert processes_of(tmp_path) == []


def test_death_of_the_scheduler_is_noticed_at_once(stock: Path, tmp_path: Path):
    workload = Workload(tasks=4, seconds=60, parallelism=2)
    killed = 0.0
    with (
        pytest.raises(PatchsetError, match="stock: the scheduler ended by itself"),
        Instance(
            stock, tmp_path / "a home", dags=DAGS, config=workload.config, env=workload.env, name="stock"
        ) as instance,
    ):
        instance.wait_ready()
        instance.wait_for_dag(DAG_ID)
        run_id = instance.trigger(DAG_ID)
        pid = instance.scheduler_pid
        eventually(lambda: read_tree(pid).count(WORKER_BUSY) == 2, "two tasks running", 60)
        psutil.Process(pid).kill()
        killed = time.monotonic()
        instance.wait_for_run(DAG_ID, run_id, timeout=60)

    # Both the notice and the end of everything else, tasks of 60 seconds among it.
    assert 0 < time.monotonic() - killed < 30
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_nothing_is_left_when_the_tool_is_ended(number: int, code: int):
    demos = work_dir() / BASE / "demo"
    before = set(demos.glob("*"))
    with subprocess.Popen(
        [*DEMO, *SMALL, "--seconds", "60"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as tool:
        try:

            def started() -> Path | None:
                for directory in set(demos.glob("*")) - before:
                    if len(processes_of(directory / "stock")) >= 4:
                        return directory
                assert tool.poll() is None, tool.stderr.read() if tool.stderr else ""
                return None

            directory = eventually(started, "all components started", 60)
            tool.send_signal(number)
            assert tool.wait(timeout=30) == code
        finally:
            tool.kill()
    eventually(lambda: not processes_of(directory), "all processes gone", 30)
