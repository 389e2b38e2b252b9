# SPDX-License-Identifier: Apache-2.0
"""Roles, sums and waits of the memory sampler, on real process trees."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from patchsetlib.measure import memory
from patchsetlib.measure.memory import (
    OTHER,
    SCHEDULER,
    SERVE_LOGS,
    SNAPSHOT,
    TASK,
    WORKER_BUSY,
    WORKER_IDLE,
    Reading,
    Sample,
    Sampler,
)

SCRIPTS = Path(memory.__file__).resolve().parents[1]
MIB = 2**20


@pytest.mark.parametrize(
    ("title", "parent", "role"),
    [
        ("/env/bin/python -m airflow scheduler", None, SCHEDULER),
        ("airflow serve-logs", SCHEDULER, SERVE_LOGS),
        ("airflow worker -- LocalExecutor: <idle>", SCHEDULER, WORKER_IDLE),
        ("airflow worker -- LocalExecutor: 01a20269-e990-7b01-94f1-482059a33537", SCHEDULER, WORKER_BUSY),
        ("airflow worker -- LocalExecutor [team_a]: <idle>", SCHEDULER, WORKER_IDLE),
        ("airflow worker -- 01a20269-e990-7b01-94f1-482059a33537", WORKER_BUSY, TASK),
        # Forked, and still with the title of its parent.
        ("airflow worker -- LocalExecutor: 01a20269-e990-7b01-94f1-482059a33537", WORKER_BUSY, TASK),
        ("/env/bin/python -m airflow scheduler", SCHEDULER, OTHER),
        # What a task starts is part of the task.
        ("bash -c true", TASK, TASK),
        ("python -c from multiprocessing.forkserver import main; main(5, 6)", SCHEDULER, SNAPSHOT),
        ("airflow worker -- LocalExecutor: <idle>", SNAPSHOT, WORKER_IDLE),
    ],
)
def test_role_comes_from_title_and_parent(title: str, parent: str | None, role: str):
    assert memory.classify(title, parent) == role


# A tree as the scheduler's: four processes, each with the title in its argv[0], and the last one a task of
# the one before it. "ready" on stdout says that all of them run.
TREE = """
import os, sys, time
mode = sys.argv[1]
block = bytearray(os.urandom(1)) * (int(sys.argv[2]) << 20)
def role(title, then):
    if os.fork() == 0:
        os.execl(sys.executable, title, "-c", then)
sleep = "import time; time.sleep(600)"
ready = "import os; os.write(1, b'r')\\n" + sleep
role("airflow serve-logs", ready)
role("airflow worker -- LocalExecutor: <idle>", ready)
task = "import os, sys\\nif os.fork() == 0: os.write(1, b'r')\\n"
role("airflow worker -- LocalExecutor: 0000", task + ready)
if mode == "grow":
    more = []
    while True:
        more.append(bytearray(b"x") * (8 << 20))
        time.sleep(0.05)
time.sleep(600)
"""


@pytest.fixture
def tree():
    started: list[subprocess.Popen] = []

    def start(mode: str = "rest", size: int = 1) -> psutil.Process:
        command = [sys.executable, "-c", TREE, mode, str(size)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout
        for _ in range(4):
            assert process.stdout.read(1) == b"r"
        return psutil.Process(process.pid)

    yield start
    for process in started:
        everything = psutil.Process(process.pid).children(recursive=True)
        for child in everything:
            child.kill()
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def test_reads_every_process_of_the_tree_with_its_role(tree):
    root = tree()

    sample = memory.read_tree(root.pid)

    assert sorted(r.role for r in sample.readings) == sorted(
        [SCHEDULER, SERVE_LOGS, WORKER_IDLE, WORKER_BUSY, TASK]
    )
    assert sample.unreadable == 0
    assert all(r.uss and r.pss and r.pss >= r.uss for r in sample.readings)


def test_figures_are_bytes_and_uss_is_what_a_process_has_for_itself(tree):
    small, big = tree(size=1), tree(size=65)

    difference = memory.read_tree(big.pid).total("uss", SCHEDULER) - memory.read_tree(small.pid).total(
        "uss", SCHEDULER
    )

    assert 62 * MIB < difference < 66 * MIB


def test_sum_of_pss_counts_shared_pages_once():
    code = (
        "import os, time\nblock = bytearray(b'x') * (64 << 20)\n"
        "for _ in range(4):\n    if os.fork() == 0: break\n"
        "os.write(1, b'r')\ntime.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            for _ in range(5):
                assert process.stdout.read(1) == b"r"
            sample = memory.read_tree(process.pid)
        finally:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()

    assert sample.count() == 5
    assert 64 * MIB < sample.total("pss") < 128 * MIB


def test_cpu_time_is_that_of_the_tree_and_of_its_children_that_have_ended():
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    stay = burn + "print(1, flush=True); time.sleep(600)"
    program = (
        "import os, subprocess, sys, time\n"
        f"subprocess.run([sys.executable, '-c', {burn!r}], check=True)\n"
        f"child = subprocess.Popen([sys.executable, '-c', {stay!r}])\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"1\n"
            found = memory.cpu_seconds(process.pid)
            own = sum(psutil.Process(process.pid).cpu_times()[:2])
        finally:
            for each in (*psutil.Process(process.pid).children(), process):
                each.kill()

    assert own < 0.5
    assert found - own > 0.5


def test_zombies_are_not_processes(tree):
    root = tree()
    idle = next(r for r in memory.read_tree(root.pid).readings if r.role == WORKER_IDLE)
    child = psutil.Process(idle.pid)
    child.kill()
    while child.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)

    assert memory.read_tree(root.pid).count(WORKER_IDLE) == 0


def test_gone_root_is_an_error():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    with pytest.raises(psutil.NoSuchProcess):
        memory.read_tree(process.pid)


# Reads its own tree, without the rights of root: itself, and a child that made itself undumpable, as the
# supervisor of a task may. Root's rights are given up only here, as others may not read our libraries.
UNDUMPABLE = """
import ctypes, json, os, sys, time
sys.path.insert(0, sys.argv[1])
from patchsetlib.measure import memory
memory.read_tree(os.getpid())
prctl = ctypes.CDLL(None).prctl
if os.geteuid() == 0:
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
prctl(4, 1, 0, 0, 0)
read, write = os.pipe()
pid = os.fork()
if pid == 0:
    prctl(4, 0, 0, 0, 0)
    os.write(write, b"r")
    time.sleep(600)
os.read(read, 1)
try:
    sample = memory.read_tree(os.getpid())
finally:
    os.kill(pid, 9)
print(json.dumps([sample.count(), sample.unreadable, memory.tree_summary(sample)]))
"""


def test_processes_that_may_not_be_read_are_counted():
    command = [sys.executable, "-c", UNDUMPABLE, str(SCRIPTS)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    count, unreadable, summary = json.loads(done.stdout)

    assert (count, unreadable) == (2, 1)
    assert summary["tree"]["unreadable"] == 1
    assert summary["other"] == {
        "count": 1,
        "unreadable": 1,
        "uss_median": None,
        "uss_max": None,
        "uss_total": None,
        "pss_median": None,
        "pss_max": None,
        "pss_total": None,
    }


def test_summary_joins_idle_and_busy_workers():
    readings = (
        Reading(1, SCHEDULER, 10, 20),
        Reading(2, WORKER_IDLE, 1, 4),
        Reading(3, WORKER_BUSY, 5, 8),
        Reading(4, WORKER_BUSY, 9, 10),
    )

    summary = memory.tree_summary(Sample(0.0, 0.0, readings))

    assert summary["workers"] == {
        "count": 3,
        "unreadable": 0,
        "uss_median": 5,
        "uss_max": 9,
        "uss_total": 15,
        "pss_median": 8,
        "pss_max": 10,
        "pss_total": 22,
    }
    assert summary["tree"]["pss_total"] == 42
    assert summary["serve-logs"]["count"] == 0


def test_sampler_samples_until_it_is_stopped(tree):
    root = tree()
    with Sampler(root.pid, interval=0.1) as sampler:
        while len(sampler.samples) < 3:
            time.sleep(0.01)

    count = len(sampler.samples)
    times = [sample.time for sample in sampler.samples]
    assert times == sorted(times)
    assert 0 < sampler.cost < 10
    assert "memory-sampler" not in [thread.name for thread in threading.enumerate()]
    assert len(sampler.samples) == count


def test_sampler_ends_when_the_tree_does():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with Sampler(process.pid, interval=0.1) as sampler:
        while not sampler.samples:
            time.sleep(0.01)
        process.kill()
        process.wait()
        sampler._thread.join(timeout=10)
        assert not sampler._thread.is_alive()


def test_settles_when_the_tree_is_at_rest(tree):
    sample, settled = Sampler(tree().pid).settle(pause=0.05)

    assert settled
    assert sample.count() == 5


def test_does_not_settle_while_the_tree_grows(tree):
    sampler = Sampler(tree("grow").pid)

    _, settled = sampler.settle(pause=0.3, timeout=1.5)

    assert not settled


def test_does_not_settle_before_it_is_ready(tree):
    sampler = Sampler(tree().pid)

    sample, settled = sampler.settle(lambda s: s.count(TASK) == 0, pause=0.05, timeout=1.0)

    assert not settled
    assert sample.count(TASK) == 1


def test_what_check_raises_ends_the_wait(tree):
    def check():
        raise RuntimeError("the scheduler is gone")

    with pytest.raises(RuntimeError, match="gone"):
        Sampler(tree().pid).settle(check=check)
