# SPDX-License-Identifier: Apache-2.0
"""
What doctor says of installations and of schedulers that have every fault it looks for.

Small ones stand for Airflow: the files of the small patch set, and processes that share a queue as the
workers of stock do, or have a socket each as those of the patches. The last tests look at Airflow itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import sampleset
from sampleset import MODULE, Repository

from patchsetlib.installs import environment, settings
from patchsetlib.measure import memory, running
from patchsetlib.patches import base as bases

CORE = "apache-airflow-core"
FIRST, SECOND = "airflow/first.py", "airflow/second.py"
REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 300

# Each line on stdin is run; "r" on stdout says that it is done, or that all workers are forked.
SCHEDULER = r"""
import ctypes, multiprocessing, os, socket, sys, time
kind, count = os.environ["KIND"], int(os.environ["COUNT"])
queue, results = (multiprocessing.get_context("fork").SimpleQueue() for _ in range(2))

def show(title):
    # As setproctitle does: in place of the arguments.
    start, end = map(int, open("/proc/self/stat").read().rpartition(")")[2].split()[45:47])
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, title.encode(), len(title))

def work(sockets):
    show("airflow worker -- LocalExecutor: <idle>")
    if kind == "stock":
        while (item := queue.get()):
            show("airflow worker -- LocalExecutor: " + item)
            time.sleep(600)
    os.setsid()
    sockets[1].recv(1)

pairs = [socket.socketpair() for _ in range(count)]
for pair in pairs:
    if os.fork() == 0:
        work(pair)
        os._exit(0)
print("r", flush=True)
for line in sys.stdin:
    exec(line)
    print("r", flush=True)
"""


class Airflow:
    """An environment with the files of the small patch set installed, and the tools to look at it with."""

    def __init__(self, repository: Repository, place: Path):
        self.repository = repository
        # The small project bears the name of the real one.
        toml = repository.base / "base.toml"
        toml.write_text(
            toml.read_text(encoding="utf-8").replace('"demo-core"', f'"{CORE}"'), encoding="utf-8"
        )
        repository.env = {k: v for k, v in repository.env.items() if not k.startswith("AIRFLOW")}
        self.home = place / "airflow home"
        self.home.mkdir()
        repository.env["AIRFLOW_HOME"] = str(self.home)
        venv.create(place / "env", symlinks=True)
        self.python = place / "env" / "bin" / "python"
        (self.site,) = (place / "env" / "lib").glob("python*/site-packages")
        self.install()

    def install(self, patches: int = 0, version: str = "1.0") -> None:
        """Install the files as so many patches leave them."""
        for path in self.site.glob("apache_airflow*"):
            shutil.rmtree(path)
        record = ""
        for name in (FIRST, SECOND):
            text = self.content(name, patches).encode()
            (self.site / name).parent.mkdir(exist_ok=True)
            (self.site / name).write_bytes(text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text).digest()).decode().rstrip("=")
            record += f"{name},sha256={digest},{len(text)}\n"
        metadata = self.site / f"apache_airflow_core-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Name: {CORE}\nVersion: {version}\n")
        (metadata / "RECORD").write_text(record)

    def content(self, name: str, patches: int) -> str:
        step, by = {FIRST: (3, 1), SECOND: (7, 2)}[name]
        return MODULE.replace(f"return {step}\n", f"return {step}{step}\n") if patches >= by else MODULE

    def doctor(self, *args: str | Path, code: int = 0) -> str:
        """Return the verdict of doctor, which must have this exit code."""
        done = self.repository.run("doctor", "--json", *(args or ("--python", self.python)))
        assert (done.returncode, done.stderr) == (code, ""), done.stdout + done.stderr
        self.data = json.loads(done.stdout)
        assert self.data["healthy"] == (code == 0)
        return self.data["verdict"]

    def text(self, code: int = 0) -> str:
        """Return what doctor prints for people: the verdict first."""
        verdict = self.doctor(code=code)
        text = self.repository.run("doctor", "--python", self.python).stdout
        assert text.splitlines()[0] == verdict
        return text

    def fails(self, *args: str | Path, code: int = 1) -> str:
        return self.repository.fails("doctor", *(args or ("--python", self.python)), code=code)

    @contextmanager
    def scheduler(self, kind: str, count: int, **variables: str) -> Iterator[Scheduler]:
        script = self.home / "airflow"
        script.write_text(SCHEDULER)
        env = self.repository.env | {"KIND": kind, "COUNT": str(count)} | variables
        env |= {"AIRFLOW__CORE__PARALLELISM": str(count)} | variables
        with running_scheduler([self.python, script, "scheduler"], env) as scheduler:
            scheduler.wait_for_workers(count)
            yield scheduler


class Scheduler:
    def __init__(self, process: subprocess.Popen):
        self.process = process
        self.pid = process.pid

    def ready(self) -> None:
        line = self.process.stdout.readline()
        while line.strip() != "r":
            assert line, "the scheduler has ended"
            line = self.process.stdout.readline()

    def do(self, line: str) -> None:
        self.tell(line)
        self.ready()

    def tell(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def workers(self) -> list[running.Worker]:
        return running.read_workers(psutil.Process(self.pid))

    def wait_for_workers(self, count: int) -> None:
        """Wait until they are all at rest, waiting for work."""
        seen: list = []

        def at_rest() -> bool:
            seen.append(self.workers())
            kinds = {worker.wait.kind for worker in seen[-1]}
            return len(seen[-1]) == count and seen[-1] == (seen[-2:-1] or [None])[0] and kinds != {"unknown"}

        until(at_rest)

    def kill(self, kind: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to the first worker that waits for this, and return its pid when it has acted."""
        pid = next(worker.pid for worker in self.workers() if worker.wait.kind == kind)
        os.kill(pid, number)
        ended = (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED, "gone")
        until(lambda: (psutil.Process(pid).status() if psutil.pid_exists(pid) else "gone") in ended)
        return pid


@contextmanager
def running_scheduler(command: list, env: dict[str, str]) -> Iterator[Scheduler]:
    process = subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        scheduler = Scheduler(process)
        scheduler.ready()
        yield scheduler
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.communicate()


def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.02)


@pytest.fixture
def airflow(repository, tmp_path) -> Airflow:
    return Airflow(repository, tmp_path)


# Installations


def test_stock_and_patched_files(airflow):
    before = sampleset.tree_of(airflow.site)
    assert airflow.doctor() == "stock 1.0, no scheduler runs from it, healthy"
    assert {file["state"] for file in airflow.data["installation"]["files"]} == {"stock"}
    assert sampleset.tree_of(airflow.site) == before
    # The last of the three changes documentation alone.
    for patches, applied in ((1, 1), (3, 3)):
        airflow.install(patches)
        assert airflow.doctor().startswith(f"patched 1.0 ({applied} of 3 patches), ")
        commits = (airflow.repository.base / "commits").read_text().splitlines()
        assert airflow.data["installation"]["patches"]["commit"] == commits[applied - 1].split()[0]
    airflow.install(3, "1.0+localexecutor.3")
    assert airflow.doctor().startswith("patched 1.0+localexecutor.3 (3 of 3 patches), ")


def test_file_of_somebody_else(airflow):
    with (airflow.site / FIRST).open("a") as file:
        file.write("# mine\n")
    assert airflow.doctor(code=1).endswith(f": neither stock nor as these patches leave it: {FIRST}")
    text = airflow.text(code=1)
    assert re.search(rf"changed after it was installed +{FIRST}", text)
    assert re.search(rf"stock +{SECOND}", text)
    (airflow.site / FIRST).unlink()
    assert re.search(rf"missing +{FIRST}", airflow.text(code=1))


def test_half_patched(airflow):
    """As after a reinstallation of one of the two."""
    (airflow.site / SECOND).write_text(airflow.content(SECOND, 3))
    assert airflow.doctor(code=1).endswith(f": half patched: {CORE}: mixed")
    assert [file["patches"] for file in airflow.data["installation"]["files"]] == [[0], [2, 3]]


def test_patched_in_place(airflow):
    for name in (FIRST, SECOND):
        (airflow.site / name).write_text(airflow.content(name, 3))
    airflow.doctor()
    assert "patched in place: RECORD has other hashes" in airflow.data["notes"]
    # As if install was killed before it had changed anything.
    (airflow.site / "apache_airflow_core-1.0.dist-info" / "localexecutor-patchset").mkdir()
    assert airflow.doctor(code=1).endswith(": install or uninstall was interrupted; run either again")


def test_release_without_a_series(airflow):
    airflow.install(version="2.1")
    verdict = "Airflow 2.1, for which there is no series here, no scheduler runs from it"
    assert airflow.doctor() == f"{verdict}, healthy"
    assert "there is no series for this release; there is one for 1.0" in airflow.data["notes"]
    (airflow.site / FIRST).write_text("mine\n")
    assert airflow.doctor(code=1) == f"{verdict}: changed since it was installed: {FIRST}"


def test_no_airflow(airflow):
    shutil.rmtree(airflow.site)
    airflow.site.mkdir()
    assert f"{airflow.python} has no {CORE}; " in airflow.fails()
    (airflow.site / "apache_airflow-2.10.5.dist-info").mkdir()
    assert "has Airflow 2.10.5; this is about Airflow 3" in airflow.fails()
    assert "is not a Python that runs" in airflow.fails("--python", "/bin/false")


def test_broken_installation(airflow):
    (metadata,) = airflow.site.glob("*.dist-info")
    shutil.copytree(metadata, airflow.site / "apache_airflow_core-0.9.dist-info")
    assert f"{CORE} is there more than once: 0.9, 1.0" in airflow.doctor(code=1)
    airflow.install()
    (metadata / "METADATA").unlink()
    assert "its METADATA is missing" in airflow.doctor(code=1)
    airflow.install()
    shutil.rmtree(airflow.site / "airflow")
    assert "its files are not in site-packages" in airflow.doctor(code=1)


def test_usage(airflow):
    assert "there is no process 4194305; " in airflow.fails("--pid", "4194305", code=2)
    assert f"process {os.getpid()} is no scheduler; " in airflow.fails("--pid", str(os.getpid()), code=2)
    assert "see patchset doctor --help" in airflow.fails("--pid", "x", code=2)


# Schedulers


def test_healthy_stock_scheduler(airflow):
    with airflow.scheduler("stock", 3) as scheduler:
        # Found by itself, as it runs from that Python.
        assert airflow.doctor() == "stock 1.0, 3 workers, healthy"
        # Its parent has these workers below it as well.
        assert "is no scheduler; " in airflow.fails("--pid", str(os.getpid()), code=2)
        found = airflow.data["scheduler"]
        assert (found["pid"], found["wedged"], found["unread_bytes"]) == (scheduler.pid, False, 0)
        assert sorted(worker["wait"]["kind"] for worker in found["workers"]) == ["lock", "lock", "queue"]
        assert {"scheduler", "worker idle"} == set(found["memory"]["roles"])
        options = airflow.data["settings"]["options"]
        assert options["core.parallelism"] == {"value": "3", "source": "environment"}
        assert re.search(r"\n  idle workers +3 +[\d.]+ MiB +[\d.]+ MiB\n", airflow.text())


def test_wedge_by_a_stopped_and_by_a_dead_worker(airflow):
    with airflow.scheduler("stock", 3) as scheduler:
        holder = scheduler.kill("queue", signal.SIGSTOP)
        verdict = airflow.doctor("--pid", str(scheduler.pid), code=1)
        assert f"2 idle workers wait for a lock that worker {holder} holds, which is stopped" in verdict
        assert airflow.data["scheduler"]["lock_holder"] == holder
        os.kill(holder, signal.SIGKILL)
        scheduler.do("os.wait()")
        scheduler.do("queue.put('x' * 1000)")
        verdict = airflow.doctor("--pid", str(scheduler.pid), code=1)
        assert verdict.startswith(
            "stock 1.0, 2 workers: wedged: 2 idle workers wait for a lock whose holder has died"
        )
        found = airflow.data["scheduler"]
        assert (found["wedged"], found["lock_holder"]) == (True, None)
        assert found["unread_bytes"] > 1000
        # The pipe takes no more of this.
        scheduler.tell("queue.put('x' * 1000000)")
        until(lambda: running.wait_of(psutil.Process(scheduler.pid)).kind == "full")
        airflow.doctor("--pid", str(scheduler.pid), code=1)
        assert any("the scheduler hangs: it writes to a full" in each for each in airflow.data["problems"])


def test_stopped_worker_that_waits_does_not_hold_the_lock(airflow):
    with airflow.scheduler("stock", 4) as scheduler:
        stopped = scheduler.kill("lock", signal.SIGSTOP)
        verdict = airflow.doctor("--pid", str(scheduler.pid), code=1)
        assert verdict == f"stock 1.0, 4 workers: worker {stopped} is stopped (SIGCONT lets it go on)"
        scheduler.kill("queue")
        scheduler.do("os.wait()")
        assert "wedged: 2 idle workers wait for a lock whose holder has died" in airflow.doctor(
            "--pid", str(scheduler.pid), code=1
        )
        assert airflow.data["scheduler"]["lock_holder"] is None


def test_busy_workers_are_no_wedge(airflow):
    with airflow.scheduler("stock", 2) as scheduler:
        for _ in range(2):
            scheduler.do("queue.put('a task')")
        until(lambda: not any(worker.idle for worker in scheduler.workers()))
        scheduler.do("queue.put('another')")
        assert airflow.doctor("--pid", str(scheduler.pid)) == "stock 1.0, 2 workers, healthy"
        assert airflow.data["scheduler"]["unread_bytes"] > 0


def test_patched_scheduler(airflow):
    airflow.install(3)
    with airflow.scheduler("patched", 3) as scheduler:
        assert airflow.doctor() == "patched 1.0 (3 of 3 patches), 3 workers, healthy"
        stopped = scheduler.kill("elsewhere", signal.SIGSTOP)
        assert f": worker {stopped} is stopped" in airflow.doctor(code=1)
        os.kill(stopped, signal.SIGKILL)
        scheduler.do("os.wait()")
        assert airflow.doctor(code=1).endswith("2 workers: 1 of 3 workers are missing")
    with airflow.scheduler(
        "patched", 2, AIRFLOW__CORE__PARALLELISM="9", AIRFLOW__LOCAL_EXECUTOR__IDLE_WORKERS="2"
    ):
        assert airflow.doctor().endswith("2 workers, healthy")


def test_scheduler_that_has_just_been_started(airflow):
    airflow.install(3)
    with airflow.scheduler("patched", 0, AIRFLOW__CORE__PARALLELISM="3"):
        assert airflow.doctor().endswith("0 workers, healthy")
        assert "3 of 3 workers are missing; the scheduler has just been started" in airflow.data["notes"]


@pytest.mark.parametrize(("runs", "patches"), [("stock", 3), ("patched", 0)])
def test_scheduler_that_was_not_restarted(airflow, runs, patches):
    airflow.install(patches)
    with airflow.scheduler(runs, 2):
        assert f"the scheduler runs {runs} code that it loaded before; restart it" in airflow.doctor(code=1)


def test_scheduler_whose_environment_was_deleted(airflow):
    with airflow.scheduler("stock", 2) as scheduler:
        # As a compiled module is.
        scheduler.do(f"import mmap; kept = mmap.mmap(os.open({str(airflow.site / FIRST)!r}, os.O_RDWR), 0)")
        shutil.rmtree(airflow.python.parent.parent)
        verdict = airflow.doctor("--pid", str(scheduler.pid), code=1)
        assert verdict.endswith(f": the scheduler runs from {airflow.site}, which was deleted; restart it")


def test_other_executor(airflow):
    with airflow.scheduler("stock", 0, AIRFLOW__CORE__EXECUTOR="CeleryExecutor"):
        assert airflow.doctor() == "stock 1.0, LocalExecutor not in use, healthy"
        assert "LocalExecutor is not in use: [core] executor is CeleryExecutor" in airflow.data["notes"]


def test_several_schedulers(airflow):
    with airflow.scheduler("stock", 1) as one, airflow.scheduler("stock", 1) as other:
        said = airflow.fails("--python", airflow.python, code=2)
        assert said.startswith("patchset: 2 schedulers run here: ")
        assert {str(one.pid), str(other.pid)} <= set(re.findall(r"\d+", said))
        assert airflow.doctor("--pid", str(other.pid)) == "stock 1.0, 1 worker, healthy"


@pytest.mark.skipif(os.geteuid() != 0, reason="the processes of this user can be read")
def test_scheduler_that_cannot_be_read(airflow):
    """As that of another user."""
    with airflow.scheduler("stock", 2) as scheduler:
        tool = airflow.repository.command("doctor", "--json", "--pid", str(scheduler.pid))
        done = subprocess.run([*sampleset.UNPRIVILEGED, *tool], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["verdict"] == "stock 1.0, 2 workers, no problem seen, but not all can be told"
    assert data["scheduler"]["wedged"] is None
    assert len(data["unknown"]) == 3


# Options


def read(tmp_path: Path, text: str, **variables: str) -> settings.Settings:
    (tmp_path / "airflow.cfg").write_text(text)
    return settings.read({"AIRFLOW_HOME": str(tmp_path)} | variables)


def test_options_come_from_environment_then_file_then_default(tmp_path):
    text = "[core]\nparallelism = 7\nexecutor = ${KIND}Executor\n[scheduler]\nMP_Start_Method = spawn\n"
    found = read(tmp_path, text, AIRFLOW__CORE__PARALLELISM="9", KIND="Local")
    assert found.number("core.parallelism") == 9
    assert found.uses_local_executor
    assert found.value("scheduler.mp_start_method") == "spawn"
    assert found.options["local_executor.idle_workers"].source == "default"
    assert read(tmp_path, text).number("core.parallelism") == 7


def test_commands_are_named_and_not_run(tmp_path):
    marker = tmp_path / "ran"
    text = f"[core]\nparallelism_cmd = touch {marker}\n"
    found = read(
        tmp_path, text, AIRFLOW__CORE__EXECUTOR_CMD=f"touch {marker}", AIRFLOW__CORE__EXECUTOR_SECRET="x"
    )
    named = [note.partition(" is set")[0] for note in found.notes]
    assert named == [
        "AIRFLOW__CORE__EXECUTOR_CMD",
        "AIRFLOW__CORE__EXECUTOR_SECRET",
        "[core] parallelism_cmd",
    ]
    assert found.number("core.parallelism") == 32
    assert not marker.exists()


def test_invalid_configuration_is_a_problem(tmp_path):
    assert "is not valid" in read(tmp_path, "no section\n").problems[0]
    (problem,) = read(tmp_path, "[core]\nparallelism = many\n").problems
    assert problem == "[core] parallelism is 'many', not a number"


@pytest.mark.parametrize(
    ("version", "patched", "python", "method"),
    [
        ("3.1.3", False, "3.12", "fork"),
        ("3.1.3", True, "3.12", "spawn"),
        ("3.3.2", False, "3.12", "forkserver"),
        ("3.3.2", True, None, None),
    ],
)
def test_start_method(tmp_path, version, patched, python, method):
    found = read(tmp_path, "[core]\nmp_start_method = spawn\n[scheduler]\nmp_start_method = forkserver\n")
    assert settings.start_method(found, version, patched, python) == method
    assert settings.start_method(read(tmp_path, ""), version, patched, "3.14") == "forkserver"


# Airflow itself

EXECUTOR = """
import sys
from airflow.executors.local_executor import LocalExecutor
executor = LocalExecutor(parallelism=3)
executor.start()
# Stock of before 3.1.5 starts one when there is work.
while len(executor.workers) < 3:
    executor._spawn_worker()
print("r", flush=True)
sys.stdin.read()
"""


@pytest.mark.network
def test_airflow(airflow_release, tmp_path):
    pythons = {
        "stock": environment.test_python(airflow_release),
        "patched": environment.python(airflow_release, patched=True),
    }
    tool = [sys.executable, "-I", REPOSITORY / "scripts" / "patchsetlib"]
    for kind, python in pythons.items():
        env = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "PYTHON"))}
        env |= {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__PARALLELISM": "3"}

        def doctor() -> str:
            command = [*tool, "doctor", "--json", "--pid", str(scheduler.pid)]
            return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout)["verdict"]

        with running_scheduler([python, "-c", EXECUTOR], env) as scheduler:
            scheduler.wait_for_workers(3)
            assert doctor().startswith(f"{kind} {airflow_release.version}")
            assert doctor().endswith("3 workers, healthy")
            if kind == "stock":
                scheduler.kill("queue")
                assert "2 workers: wedged: 2 idle workers wait for a lock" in doctor()


def test_saving_is_that_of_the_release(tmp_path, monkeypatch):
    """Also if another release was measured in the same run."""

    def moments(pss: int) -> dict:
        return {"60 s after": {"time": 0, "cost": 0, "processes": [[1, "worker idle", pss, pss]]}}

    monkeypatch.setattr(running, "ROOT", tmp_path)
    base, other = bases.load("3.4.0b2"), bases.load("3.3.2")
    sizes = {"stock": 100, "patched": 50, f"stock {base.name}": 100, f"patched {base.name}": 40}
    runs = [{"label": label, "moments": moments(pss)} for label, pss in sizes.items()]
    file = tmp_path / "docs" / "benchmarks" / other.name / "memory.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"base": other.name, "runs": runs}))
    sample = memory.Sample.from_json(moments(100)["60 s after"])
    assert [running.saving(each, sample).ratio for each in (base, other)] == [0.4, 0.5]
    assert running.saving(bases.load("3.1.3"), sample) is None
