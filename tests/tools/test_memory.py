# SPDX-License-Identifier: Apache-2.0
"""Roles, sums and CPU times, read from real process trees."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from patchsetlib.measure import memory
from patchsetlib.measure.memory import (
    EDGE_WORKER,
    FORK_SERVER,
    OTHER,
    SCHEDULER,
    SERVE_LOGS,
    TASK,
    Reading,
    Sample,
    Sampler,
)
from patchsetlib.measure.memory import WORKER_BUSY as BUSY
from patchsetlib.measure.memory import WORKER_IDLE as IDLE

SCRIPTS = Path(memory.__file__).resolve().parents[2]
MIB = 2**20


@pytest.mark.parametrize(
    ("title", "parent", "role"),
    [
        ("airflow serve-logs", SCHEDULER, SERVE_LOGS),
        ("airflow worker -- LocalExecutor: <idle>", SCHEDULER, IDLE),
        ("airflow worker -- LocalExecutor: 01a20269-e990-7b01-94f1-482059a33537", SCHEDULER, BUSY),
        ("airflow worker -- LocalExecutor [team_a]: <idle>", SCHEDULER, IDLE),
        ("airflow worker -- 01a20269-e990-7b01-94f1-482059a33537", BUSY, TASK),
        # Forked, and still with the title of its parent.
        ("airflow worker -- LocalExecutor: 01a20269-e990-7b01-94f1-482059a33537", BUSY, TASK),
        ("/env/bin/python -m airflow scheduler", SCHEDULER, OTHER),
        ("bash -c true", TASK, TASK),
        ("python -c from multiprocessing.forkserver import main; main(5, 6)", SCHEDULER, FORK_SERVER),
        ("airflow worker -- LocalExecutor: <idle>", FORK_SERVER, IDLE),
        ("airflow worker -- anything", "api-server", "api-server"),
        ("airflow edge worker: host", EDGE_WORKER, BUSY),
    ],
)
def test_role_comes_from_title_and_parent(title: str, parent: str, role: str):
    assert memory.classify(title, parent) == role


# A tree as the scheduler's, each process with the title in its argv[0]; the last is a task. An "r" on stdout
# says of each but the first that it runs. The idle worker's task has ended, and used 0.3 s of CPU.
TREE = r"""
import os, sys, time
block = bytearray(b"x") * (int(sys.argv[1]) << 20)
def role(title, then):
    if os.fork() == 0:
        os.execl(sys.executable, title, "-c", f"import os, time\n{then}\nos.write(1, b'r')\ntime.sleep(600)")
role("airflow serve-logs", "")
role("airflow worker -- LocalExecutor: <idle>", sys.argv[2])
role("airflow worker -- LocalExecutor: 0000", "os.fork()")
time.sleep(600)
"""
BURN = """
if os.fork() == 0:
    while time.process_time() < 0.3: pass
    os._exit(0)
os.wait()
"""


@contextmanager
def started(program: str, *args: str, ready: int):
    with subprocess.Popen([sys.executable, "-c", program, *args], stdout=subprocess.PIPE) as process:
        try:
            for _ in range(ready):
                assert process.stdout.read(1) == b"r"
            yield process.pid
        finally:
            for each in (*psutil.Process(process.pid).children(recursive=True), process):
                each.kill()


def test_every_process_of_the_tree_has_its_role_and_its_memory():
    with started(TREE, "1", BURN, ready=4) as small, started(TREE, "65", BURN, ready=4) as large:
        sample, other = memory.read_tree(small), memory.read_tree(large)
        spent = memory.cpu_seconds({SCHEDULER: small, "api-server": large})
        idle = next(psutil.Process(r.pid) for r in sample.readings if r.role == IDLE)
        idle.kill()
        while idle.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        without = memory.read_tree(small)

    roles = [SCHEDULER, SERVE_LOGS, IDLE, BUSY, TASK]
    assert sorted(r.role for r in sample.readings) == sorted(roles)
    assert all(r.pss >= r.uss > 0 for r in sample.readings)
    # Bytes, and of the process alone.
    assert 62 * MIB < other.total("uss", SCHEDULER) - sample.total("uss", SCHEDULER) < 66 * MIB
    assert spent[TASK] > 0.2
    assert {"api-server", SCHEDULER, "workers", TASK} <= set(spent)
    assert without.count(IDLE) == 0


def test_sum_of_pss_counts_shared_pages_once():
    program = (
        "import os, time\nblock = bytearray(b'x') * (64 << 20)\n"
        "for _ in range(4):\n    if os.fork() == 0: break\n"
        "os.write(1, b'r')\ntime.sleep(600)"
    )
    with started(program, ready=5) as pid:
        sample = memory.read_tree(pid)

    assert sample.count() == 5
    assert 64 * MIB < sample.total("pss") < 128 * MIB


# Reads its own tree without the rights of root: itself, and a child that made itself undumpable, as the
# supervisor of a task does. Root's rights are given up only here, as others may not read our libraries.
UNDUMPABLE = """
import ctypes, os, sys, time
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
print(sample.count(), sample.unreadable, sample.median("uss", "other"), sample.total("pss", "other"))
"""


def test_processes_that_may_not_be_read_are_counted():
    command = [sys.executable, "-c", UNDUMPABLE, str(SCRIPTS)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)

    assert done.stdout.split() == ["2", "1", "None", "0"], done.stderr


@pytest.mark.parametrize(
    ("last", "rest"),
    [
        ([(1, SCHEDULER, 10 * MIB), (2, IDLE, MIB)], True),
        ([(1, SCHEDULER, 11 * MIB), (2, IDLE, MIB)], False),
        ([(1, SCHEDULER, 10 * MIB), (2, BUSY, MIB)], False),
        ([(1, SCHEDULER, 10 * MIB)], False),
    ],
)
def test_tree_is_at_rest_when_nothing_changes(last, rest: bool):
    same = [(1, SCHEDULER, 10 * MIB), (2, IDLE, MIB)]
    samples = [
        Sample(0.0, 0.0, tuple(Reading(pid, role, uss, uss) for pid, role, uss in processes))
        for processes in ([], same, same, same, last)
    ]

    assert memory.at_rest(samples) is rest
    assert not memory.at_rest(samples[2:])


def test_sampler_ends_with_the_context_and_with_the_tree():
    with started("import os, time; os.write(1, b'r'); time.sleep(600)", ready=1) as pid:
        with Sampler(pid, interval=0.1) as sampler:
            while len(sampler.samples) < 3:
                time.sleep(0.01)
        assert not sampler._thread.is_alive()
        with Sampler(pid, interval=0.1) as gone:
            psutil.Process(pid).kill()
            gone._thread.join()
        with pytest.raises(psutil.NoSuchProcess):
            memory.read_tree(pid)
