# SPDX-License-Identifier: Apache-2.0
"""A real Airflow deployment on this machine, from any Python that has Airflow 3."""

from __future__ import annotations

import base64
import os
import random
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil
import requests

from patchsetlib.measure.memory import EDGE_WORKER, SCHEDULER
from patchsetlib.shell import processes
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import display
from patchsetlib.shell.processes import Guarded

T = TypeVar("T")

COMPONENTS = ("api-server", "dag-processor", "scheduler")
_POLL = 0.5
_PAGE = 100_000


class ApiError(PatchsetError):
    """The REST API answered with an error, or not at all."""


def free_ports(count: int) -> list[int]:
    """Return ``count`` different TCP ports that nothing listens on, on any address."""
    found: set[int] = set()
    while len(found) < count:
        # Below the range from which the kernel picks ports for outgoing connections.
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            found.add(port)
    return list(found)


@dataclass
class Deployment:
    """
    api-server, dag-processor and scheduler of one Airflow, and maybe an edge worker.

    Entering migrates the database and starts the components; leaving ends them and all of their descendants.
    """

    python: Path
    """Interpreter that has Airflow; used as it is, since a link into a venv must stay one."""
    home: Path
    """Directory for configuration, database and logs; must not exist."""
    dags: Path
    config: dict[str, str] = field(default_factory=dict)
    """Overrides of Airflow's configuration by ``section.option``; once made, all that is set."""
    env: dict[str, str] = field(default_factory=dict)
    """Further variables of all components; once made, all of them."""
    database: str | None = None
    """SQLAlchemy URL; SQLite in ``home`` by default."""
    migrated: Path | None = None
    """A SQLite file that is migrated already, to be copied instead of migrating anew."""
    name: str = "airflow"
    """What to call it in messages."""
    components: tuple[str, ...] = COMPONENTS
    """Commands of Airflow, options included."""
    edge_slots: int = 0
    """Slots of an edge worker, which is then started too, with EdgeExecutor; 0 for LocalExecutor."""

    def __post_init__(self):
        self.port, self.log_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self.database_file = self.home / "airflow.db"
        self._edge_pid_file = self.home / "edge-worker.pid"
        self.runs_tasks = EDGE_WORKER if self.edge_slots else SCHEDULER
        """The component whose descendants the processes of tasks are."""
        self.config = self._defaults() | self.config
        self.env = self._environment() | self.env
        self._running: dict[str, Guarded] = {}
        self._token: str | None = None
        self._session = requests.Session()
        # No proxies, whatever the environment says: the api-server is on this machine.
        self._session.trust_env = False
        # A kept connection would be lost when the api-server is restarted.
        self._session.headers["Connection"] = "close"

    def _defaults(self) -> dict[str, str]:
        config = {
            "core.executor": "LocalExecutor",
            "core.dags_folder": str(self.dags),
            "core.load_examples": "False",
            "core.simple_auth_manager_all_admins": "True",
            "core.dags_are_paused_at_creation": "False",
            "core.execution_api_server_url": f"{self.url}/execution/",
            # The default asks the DNS, which may be slow or absent.
            "core.hostname_callable": "socket.gethostname",
            "core.fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "database.sql_alchemy_conn": self.database or f"sqlite:///{self.database_file}",
            "api.host": "127.0.0.1",
            "api.port": str(self.port),
            "api.base_url": self.url,
            "api.workers": "1",
            "api.maximum_page_limit": str(_PAGE),
            "api.secret_key": secrets.token_hex(16),
            "api_auth.jwt_secret": secrets.token_hex(32),
            "logging.base_log_folder": str(self.home / "logs"),
            "logging.worker_log_server_port": str(self.log_port),
            # The Dag files do not change: parsing them again would only take time from the tasks.
            "dag_processor.min_file_process_interval": "600",
            "usage_data_collection.enabled": "False",
        }
        if self.edge_slots:
            config |= {
                "core.executor": "airflow.providers.edge3.executors.EdgeExecutor",
                "edge.api_enabled": "True",
                "edge.api_url": f"{self.url}/edge_worker/v1/rpcapi",
                # Tasks wait for this by default up to five seconds, in which the worker has free slots.
                "edge.job_poll_interval": "1",
                # A token expires after as many seconds. A worker whose request waits longer ends.
                "api_auth.jwt_leeway": "600",
            }
        return config

    def _commands(self) -> dict[str, list[str]]:
        """Return the arguments of ``airflow`` by component."""
        commands = {component: component.split() for component in self.components}
        if self.edge_slots:
            options = ["--concurrency", str(self.edge_slots), "--pid", str(self._edge_pid_file)]
            commands[EDGE_WORKER] = ["edge", "worker", *options]
        return commands

    def _environment(self) -> dict[str, str]:
        # Nothing of the user's that configures Airflow or Python: with PYTHONDONTWRITEBYTECODE, for one, each
        # task process would compile what it imports.
        env = processes.neutral_environment()
        # How libpq finds its server; pg_virtualenv sets them.
        env |= {name: value for name, value in os.environ.items() if name.startswith("PG")}
        for key, value in self.config.items():
            env[f"AIRFLOW__{key.replace('.', '__', 1).upper()}"] = value
        return env | {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW_CONFIG": str(self.home / "airflow.cfg"),
            # So that the last lines before a crash are in the log.
            "PYTHONUNBUFFERED": "1",
            "PYTHONNOUSERSITE": "1",
        }

    def log(self, component: str) -> Path:
        """Return the file with the output of ``component``."""
        return self.home / "output" / f"{component}.log"

    # Start and end

    def __enter__(self) -> Deployment:
        with ExitStack() as stack:
            stack.callback(self.stop)
            self.prepare()
            for component in self._commands():
                self._start(component)
            stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def make_home(self) -> None:
        """Make ``home``, with an ``airflow.cfg``: components that find none would all write it at once."""
        self.home.mkdir(parents=True)
        (self.home / "airflow.cfg").write_text("# Everything is set in the environment.\n", encoding="utf-8")

    def prepare(self) -> None:
        """Make ``home`` and a migrated database."""
        self.make_home()
        if self.migrated is not None:
            shutil.copyfile(self.migrated, self.database_file)
            return
        command = [self.python, "-m", "airflow", "db", "migrate"]
        log = self.log("db-migrate")
        if processes.run(command, env=self.env, cwd=self.home, log=log).returncode:
            raise PatchsetError(f"{self.name}: airflow db migrate failed: {_last_line(log)}", see(log))

    def _start(self, component: str) -> None:
        command = [self.python, "-m", "airflow", *self._commands()[component]]
        log = self.log(component)
        self._running[component] = Guarded.start(command, env=self.env, cwd=self.home, log=log)

    def restart(self, component: str) -> None:
        """End a component as ``stop`` does, and start it again."""
        self._running[component].stop()
        self._start(component)

    def stop(self) -> None:
        """End all components at the same time, with all that they have started."""
        with ThreadPoolExecutor(len(self._commands())) as pool:
            list(pool.map(Guarded.stop, self._running.values()))

    def check(self) -> None:
        """Raise ``PatchsetError`` if a component has ended, with the last line that it wrote."""
        for component, process in self._running.items():
            # poll() waits for what a dead scheduler left behind as well; its pid tells at once.
            if process.poll() is not None or not _alive(process.pid):
                log = self.log(component)
                what = f"the {component} ended by itself"
                raise PatchsetError(f"{self.name}: {what}: {_last_line(log)}", see(log))

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by component; the scheduler's is the root of serve-logs, workers and tasks."""
        return {component: process.pid for component, process in self._running.items()}

    # Waiting

    def wait_for(self, what: str, look: Callable[[], T | None], timeout: float) -> T:
        """
        Return what ``look`` returns as soon as that is neither None nor False; ``what`` is for the message.

        :param timeout: seconds
        :raises PatchsetError: if it does not come in time, or a component ends before
        """
        deadline, reason = time.monotonic() + timeout, ""
        while True:
            self.check()
            try:
                result = look()
                if result is not None and result is not False:
                    return result
            except ApiError as e:
                reason = f" ({e})"
            if time.monotonic() >= deadline:
                late = f"{self.name}: no {what} within {timeout:.0f} s{reason}"
                raise PatchsetError(late, see(self.log("scheduler").parent))
            time.sleep(_POLL)

    def wait_ready(self, timeout: float = 120.0) -> None:
        """
        Wait until the api-server answers users and tasks, the scheduler is in its loop, and serve-logs
        listens or the edge worker is registered; for each of them ``timeout`` seconds.
        """

        def heartbeat() -> str | None:
            scheduler = self.api("GET", "/api/v2/monitor/health", token=False)["scheduler"]
            return scheduler["latest_scheduler_heartbeat"] if scheduler["status"] == "healthy" else None

        # The scheduler's first heartbeat comes with its registration, before its executors start.
        # Only the next one comes from its loop.
        first = self.wait_for("healthy scheduler", heartbeat, timeout)
        self.wait_for("heartbeat of the loop", lambda: heartbeat() not in (None, first), timeout)
        if self.edge_slots:
            # It is written after the registration.
            self.wait_for("edge worker", self._edge_pid_file.exists, timeout)
        else:
            self.wait_for("serve-logs", lambda: _listens(self.log_port), timeout)
        # Built at its first request, which on a busy machine can take longer than a task waits for an answer.
        self.wait_for("execution API", lambda: self.api("GET", "/execution/health", token=False), timeout)

    def wait_for_dag(self, dag_id: str, timeout: float = 60.0) -> None:
        """Wait until the scheduler can run ``dag_id``: it is parsed and in the database."""
        path = f"/api/v2/dags/{dag_id}"
        self.wait_for(f"Dag {dag_id}", lambda: not self.api("GET", path)["is_paused"], timeout)

    # REST API

    def api(self, method: str, path: str, body: dict | None = None, *, token: bool = True) -> dict:
        """
        Call the REST API, and return its answer.

        :param token: log in for it; the health page needs none
        :raises ApiError: if the answer is an error or does not come in 30 seconds
        """
        if token and self._token is None:
            self._token = self.api("GET", "/auth/token", token=False)["access_token"]
        # To a request without one, the api-server adds a token that its execution API logs an error about.
        headers = {"Authorization": f"Bearer {self._token}" if token else "None"}
        try:
            answer = self._session.request(method, self.url + path, json=body, headers=headers, timeout=30)
            if answer.ok:
                return answer.json()
        except requests.RequestException as e:
            raise ApiError(f"{method} {path}: {e}") from e
        raise ApiError(f"{method} {path}: HTTP {answer.status_code} {answer.text[:500]}")

    def trigger(self, dag_id: str) -> str:
        """Start a run of ``dag_id``, and return its run id."""
        return self.api("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None})["dag_run_id"]

    def wait_for_run(self, dag_id: str, run_id: str, timeout: float) -> dict:
        """Wait until a Dag run has ended, in whatever state, and return it as the REST API describes it."""

        def ended() -> dict | None:
            run = self.api("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")
            return run if run["state"] in ("success", "failed") else None

        return self.wait_for(f"end of the run of {dag_id}", ended, timeout)

    def task_instances(self, dag_id: str, run_id: str) -> list[dict]:
        """Return the task instances of a run as the REST API describes them."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit={_PAGE}"
        return self.api("GET", path)["task_instances"]


def see(path: Path) -> str:
    return f"see {display(path)}"


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def _last_line(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    return text.rpartition("\n")[2] or "it wrote nothing"
