# SPDX-License-Identifier: Apache-2.0
"""The patched Airflow in the set-ups that people use; docs/operators.md has a table of what was seen."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from waiting import LONG, eventually

from patchsetlib.installs import environment
from patchsetlib.measure import memory, subjects
from patchsetlib.measure.database import database
from patchsetlib.measure.deployment import COMPONENTS, Deployment, free_ports
from patchsetlib.measure.subjects import Subject
from patchsetlib.patches import base as bases
from patchsetlib.shell import uv
from patchsetlib.shell.errors import UsageError
from patchsetlib.shell.processes import Guarded

BASE = bases.default()
HERE = Path(__file__).parent
DAG, OTHER_DAG = "patchset_default", "patchset_other"
CONFIG = {
    "core.parallelism": "4",
    "scheduler.job_heartbeat_sec": "2",
    # The first call waits until the api-server has imported what it needs. A call that is repeated may fail.
    "workers.execution_api_timeout": str(LONG),
}

pytestmark = [pytest.mark.network, pytest.mark.base(BASE.name), pytest.mark.nightly]


@pytest.fixture(params=["stock", "patched"])
def either(request) -> Subject:
    python = environment.python(BASE, patched=request.param == "patched")
    return Subject(request.param, python, subjects.describe(python))


@pytest.fixture
def deploy(tmp_path: Path, shared: Path):
    """Return a context manager for a deployment in which each Dag has ``tasks`` tasks."""

    @contextmanager
    def make(
        subject: Subject,
        *components: str,
        tasks: int = 4,
        url: str | None = None,
        config: dict[str, str] | None = None,
        env: dict[str, str] | None = None,
    ) -> Iterator[Deployment]:
        variables = {
            "PATCHSET_SETUPS": str(tmp_path),
            "PATCHSET_SETUPS_TASKS": str(tasks),
            # Where the command of an environment looks for the others.
            "PATH": f"{subject.python.parent}{os.pathsep}{os.environ['PATH']}",
        }
        with (
            database(url, subject, shared) as where,
            Deployment(
                subject.python,
                tmp_path / "airflow",
                dags=HERE / "dags",
                config=CONFIG | (config or {}),
                env=variables | (env or {}),
                name=subject.label,
                components=components or COMPONENTS,
                **where,
            ) as deployment,
        ):
            if not components or {"scheduler", "standalone"} & {*components}:
                deployment.wait_ready(LONG)
            yield deployment

    return make


class Run:
    """
    A Dag run; ``held``, its tasks do not end before that is let go.

    To be used as a context manager, which lets go, so that there is always an end.
    """

    def __init__(self, deployment: Deployment, dag_id: str = DAG, held: bool = False):
        self.deployment, self.dag_id = deployment, dag_id
        self.directory = deployment.home.parent
        self.hold = self.directory / f"hold {dag_id}"
        if held:
            self.hold.touch()
        deployment.wait_for_dag(dag_id, LONG)
        self.run_id = deployment.trigger(dag_id)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exc: object) -> None:
        self.let_go()

    def started(self) -> list[int]:
        """Return the process ids of the tasks that have started."""
        records = self.directory.glob(f"{self.dag_id} {self.run_id} *")
        return [int(text) for text in (record.read_text() for record in records) if text]

    def wait_for_start(self, number: int) -> list[int]:
        def look() -> list[int] | None:
            assert "failed" not in self.states()
            return pids if len(pids := self.started()) >= number else None

        return self.deployment.wait_for(f"start of {number} tasks", look, LONG)

    def let_go(self) -> None:
        self.hold.unlink(missing_ok=True)

    def states(self) -> Counter[str]:
        tasks = self.deployment.task_instances(self.dag_id, self.run_id)
        return Counter(str(task["state"]) for task in tasks)

    def end(self) -> Counter[str]:
        """Let go, wait for the end of the run, and return how many tasks ended in which state."""
        self.let_go()
        self.deployment.wait_for_run(self.dag_id, self.run_id, LONG)
        return self.states()


def tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def all_ended(processes: list[psutil.Process]) -> None:
    def look() -> bool:
        return all(not each.is_running() or each.status() == psutil.STATUS_ZOMBIE for each in processes)

    eventually("all ended", look)


def installed(name: str, directory: Path, subject: Subject) -> dict[str, str]:
    """Install what ``requirements/<name>.txt`` pins beside an environment; return the variables for it."""
    options = ("--target", directory, "--no-deps", "--require-hashes", "--python", subject.python)
    uv.uv("pip", "install", *options, "-r", HERE / "requirements" / f"{name}.txt")
    return {"PYTHONPATH": str(directory)}


def required(program: str, package: str) -> str:
    return shutil.which(program) or pytest.skip(f"there is no {program}: apt install {package}")


# Databases


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory) -> Iterator[str]:
    """The URL of a server that runs for the tests of this module."""
    command = required("pg_virtualenv", "postgresql")
    log = tmp_path_factory.mktemp("postgresql") / "log"
    # It ends orderly with its command, and that with its input.
    reading, writing = os.pipe()
    with open(reading) as stdin:
        script = "echo url=postgresql+psycopg2://$PGUSER:$PGPASSWORD@$PGHOST:$PGPORT/; cat"
        server = Guarded.start([command, "-t", "sh", "-c", script], log=log, stdin=stdin)
    with server:
        try:

            def url() -> re.Match[str] | None:
                assert server.poll() is None, log.read_text()
                return re.search(r"^url=(.*)\n", log.read_text(), re.MULTILINE)

            yield eventually("a PostgreSQL server", url)[1]
        finally:
            os.close(writing)
            server.wait(LONG)


@pytest.mark.parametrize("schedulers", [1, 2])
def test_schedulers_on_postgresql(deploy, patched: Subject, postgresql: str, schedulers: int):
    more = ["scheduler --skip-serve-logs"] * (schedulers - 1)
    # Only all schedulers together have slots for so many at a time.
    with deploy(patched, *COMPONENTS, *more, url=postgresql, tasks=4 * schedulers) as deployment:
        with Run(deployment, held=True) as run:
            run.wait_for_start(4 * schedulers)
            assert run.end() == {"success": 4 * schedulers}
        for component in (*COMPONENTS, *more):
            assert "Traceback" not in deployment.log(component).read_text()


# Other executors


def test_local_executor_beside_celery(deploy, either: Subject, tmp_path: Path, summary):
    redis = required("redis-server", "redis-server")
    (port,) = free_ports(1)
    config = {
        "core.executor": "LocalExecutor,CeleryExecutor",
        "celery.broker_url": f"redis://127.0.0.1:{port}/0",
        "celery.result_backend": f"redis://127.0.0.1:{port}/1",
        "celery.worker_concurrency": "2",
    }
    env = installed("celery", tmp_path / "celery", either) | {"PATCHSET_SETUPS_EXECUTOR": "CeleryExecutor"}
    command = [redis, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    server = Guarded.start(command, cwd=tmp_path, log=tmp_path / "redis")
    components = (*COMPONENTS, "celery worker --skip-serve-logs")
    with server, deploy(either, *components, tasks=2, config=config, env=env) as deployment:
        for held, free in ((DAG, OTHER_DAG), (OTHER_DAG, DAG)):
            with Run(deployment, held, held=True) as holding:
                holding.wait_for_start(2)
                # One executor is full, and nothing of it ends: that of the other one does not wait for it.
                began = time.monotonic()
                assert Run(deployment, free).end() == {"success": 2}
                summary("set-ups", f"{either.label}: {free} beside others: {time.monotonic() - began:.1f} s")
                assert holding.end() == {"success": 2}
        began = time.monotonic()
        for _ in range(3):
            assert Run(deployment, OTHER_DAG).end() == {"success": 2}
        summary("set-ups", f"{either.label}: three runs on Celery: {time.monotonic() - began:.1f} s")
        log = deployment.log("scheduler").read_text()
        assert "Traceback" not in log
        assert "wait handle" not in log


# Ways to start and stop


def test_standalone(deploy, patched: Subject):
    with deploy(patched, "standalone") as deployment:
        assert Run(deployment).end() == {"success": 4}
        standalone, *others = tree(deployment.pids["standalone"])
        assert memory.read_tree(standalone.pid).count(*memory.WORKERS) == 4
        # Ctrl-C: on SIGTERM, stock ends without its components.
        standalone.send_signal(signal.SIGINT)
        all_ended([standalone, *others])


@pytest.mark.parametrize("group", ["control group", "process group"])
def test_signal_to_all_processes(deploy, either: Subject, group: str, summary):
    with deploy(either, tasks=3) as deployment:
        with Run(deployment, held=True) as run:
            run.wait_for_start(3)
            processes = tree(deployment.pids["scheduler"])
            began = time.monotonic()
            if group == "control group":  # KillMode of systemd
                for each in processes:
                    each.terminate()
            else:
                os.killpg(os.getpgid(processes[0].pid), signal.SIGTERM)
            eventually(
                "scheduler stopping", lambda: "Exiting gracefully" in deployment.log("scheduler").read_text()
            )
            # Tasks are not ended by the signal, only their on_kill is called.
            run.let_go()
            all_ended(processes)
            summary("set-ups", f"{either.label}, SIGTERM to the {group}: {time.monotonic() - began:.1f} s")
            # Also what has ended by itself has been reported.
            assert run.states() == {"success": 3}


def test_first_process_of_a_container(deploy, either: Subject, tmp_path: Path, summary):
    if os.geteuid():
        pytest.skip("only root makes a PID namespace")
    options = ("--pid", "--fork", "--mount-proc", "--kill-child")
    command = [required("unshare", "util-linux"), *options, either.python, "-m", "airflow", "scheduler"]
    with (
        deploy(either, "api-server", "dag-processor") as deployment,
        Guarded.start(
            command, env=deployment.env, cwd=deployment.home, log=deployment.log("scheduler")
        ) as namespace,
    ):
        deployment.wait_ready(LONG)
        (scheduler,) = psutil.Process(namespace.pid).children()
        status = Path(f"/proc/{scheduler.pid}/status").read_text()
        assert f"NSpid:\t{scheduler.pid}\t1\n" in status
        (tmp_path / "leave orphans").touch()
        assert Run(deployment).end() == {"success": 4}
        (tmp_path / "leave orphans").unlink()
        zombies = [each.name() for each in tree(scheduler.pid) if each.status() == psutil.STATUS_ZOMBIE]
        summary("set-ups", f"{either.label}, first process: zombies of tasks: {zombies}")
        if either.label == "patched":
            with Run(deployment, held=True) as run:
                run.wait_for_start(4)
                # The tasks themselves know only their process ids inside.
                workers = [
                    each.pid
                    for each in memory.read_tree(scheduler.pid).readings
                    if each.role == memory.WORKER_BUSY
                ]
                killed = tree(workers[0])
                assert len(killed) > 1
                killed[0].kill()
                eventually("killed processes reaped", lambda: not any(each.is_running() for each in killed))
                assert run.end() == {"success": 3, "failed": 1}
        scheduler.terminate()
        assert namespace.wait(LONG) == 0


def test_daemon(deploy, patched: Subject, tmp_path: Path):
    files = {name: tmp_path / f"daemon.{name}" for name in ("pid", "log-file", "stdout", "stderr")}
    options = [f"--{name}={path}" for name, path in files.items()]
    with deploy(patched, "api-server", "dag-processor") as deployment:
        for _ in range(2):
            # What the guard has started has to stay, or it ends what that leaves behind.
            command = ["sh", "-c", 'airflow scheduler -D "$@" && exec sleep infinity', "sh", *options]
            with Guarded.start(command, env=deployment.env, cwd=deployment.home, log=tmp_path / "start"):
                pid = int(
                    eventually("a pid file", lambda: files["pid"].exists() and files["pid"].read_text())
                )
                deployment.wait_ready(LONG)
                assert Run(deployment).end() == {"success": 4}
                processes = tree(pid)
                assert memory.read_tree(pid).count(*memory.WORKERS) == 4
                processes[0].terminate()
                all_ended(processes)
                assert not files["pid"].exists()
            output = "".join(path.read_text() for path in tmp_path.glob("daemon.*"))
            assert "Started 4 workers" in output
            assert "Traceback" not in output


# The rest


def test_remote_logs(deploy, patched: Subject, tmp_path: Path):
    env = installed("s3", tmp_path / "s3", patched)
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    server = Guarded.start(
        [patched.python, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env=environment.variables(patched.python) | env,
        cwd=tmp_path,
        log=tmp_path / "server",
    )
    connection = {
        "conn_type": "aws",
        "login": "who",
        "password": "any",
        "extra": {"endpoint_url": url, "region_name": "us-east-1"},
    }
    config = {
        "logging.remote_logging": "True",
        "logging.remote_base_log_folder": "s3://logs/tasks",
        "logging.remote_log_conn_id": "aws_default",
        "logging.delete_local_logs": "True",
    }
    env |= {"AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connection)}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with server:

        def made() -> bool:
            with suppress(OSError):
                opener.open(urllib.request.Request(f"{url}/logs", method="PUT"), timeout=10).close()
                return True
            return False

        eventually("a bucket", made)
        with deploy(patched, config=config, env=env) as deployment:
            run = Run(deployment)
            assert run.end() == {"success": 4}

            def stored() -> bool:
                with opener.open(f"{url}/logs", timeout=10) as answer:
                    return answer.read().decode().count("<Key>tasks/") == 4

            # That comes after the end of the task.
            eventually("four logs", stored)
            for number in range(4):
                path = f"/api/v2/dags/{DAG}/dagRuns/{run.run_id}/taskInstances/work/logs/1?map_index={number}"
                assert f"This is number {number}." in json.dumps(deployment.api("GET", path))


def test_python_of_the_images(deploy):
    try:
        python = environment.python(BASE, patched=True, python_version="3.13")
    except UsageError as e:
        pytest.skip(str(e))
    with deploy(Subject("patched", python, subjects.describe(python))) as deployment:
        assert Run(deployment).end() == {"success": 4}
        assert "Traceback" not in deployment.log("scheduler").read_text()


@pytest.mark.parametrize(
    ("parallelism", "method"), [(1, "fork"), (32, "fork"), (256, "fork"), (256, "forkserver")]
)
def test_parallelism(deploy, patched: Subject, parallelism: int, method: str, summary):
    # With forkserver, 256 workers need descriptors above 1024, which select() cannot wait for.
    config = {"core.parallelism": str(parallelism), "core.mp_start_method": method}
    tasks = min(parallelism, 16)
    with deploy(patched, tasks=tasks, config=config) as deployment:
        pid = deployment.pids["scheduler"]

        def workers() -> int:
            return memory.read_tree(pid).count(*memory.WORKERS)

        eventually("all workers started", lambda: workers() == parallelism)
        idle = memory.read_tree(pid)
        with Run(deployment, held=True) as run:
            run.wait_for_start(tasks)
            assert run.end() == {"success": tasks}
        assert workers() == parallelism
        descriptors = psutil.Process(pid).num_fds()
        assert descriptors > (1024 if method == "forkserver" and parallelism == 256 else 0)
        pss = f"PSS before any task {idle.total('pss') / 2**20:.0f} MiB"
        summary("set-ups", f"parallelism {parallelism:3}, {method}: {descriptors} descriptors, {pss}")
        assert "Traceback" not in deployment.log("scheduler").read_text()
