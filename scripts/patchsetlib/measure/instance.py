# SPDX-License-Identifier: Apache-2.0
"""
One real Airflow deployment on this machine, with LocalExecutor, for as long as a ``with`` block lasts.

Any interpreter that has Airflow 3 will do; nothing here depends on the patches.
"""

from __future__ import annotations

import base64
import json
import random
import secrets
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import psutil

from patchsetlib.shell import processes, ui
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import display
from patchsetlib.shell.processes import Guarded

T = TypeVar("T")

COMPONENTS = ("api-server", "dag-processor", "scheduler")
_POLL = 0.5
_PAGE = 100


def free_ports(count: int) -> list[int]:
    """
    Return ``count`` different TCP ports that nothing listens on, on any address.

    They are below the range from which the kernel picks ports for outgoing connections, so that none is
    taken between now and its use except by another program that wants that very port.

    :raises PatchsetError: if none can be found
    """
    found: list[int] = []
    for port in random.sample(range(15_000, 32_000), 2_000):
        if len(found) == count:
            break
        with socket.socket() as test:
            try:
                test.bind(("", port))
            except OSError:
                continue
        found.append(port)
    if len(found) < count:
        raise PatchsetError("no free TCP ports between 15000 and 32000", "stop what listens on them")
    return found


class ApiError(Exception):
    """The REST API answered with an error, or not at all."""

    def __init__(self, message: str, status: int | None = None):
        self.status = status
        """HTTP status; None if there was no answer."""
        super().__init__(message)


class Instance:
    """
    api-server, dag-processor and scheduler of one Airflow, under ``home``.

    Entering migrates the database and starts the components; leaving, for whatever reason, ends them and
    all of their descendants.

    :param python: interpreter that has Airflow; its path is used as it is, a link into a venv stays a link
    :param home: directory for configuration, database and logs; must not exist, or be empty
    :param dags: directory of the Dag files
    :param config: overrides of Airflow's configuration by ``section.option``, e.g.
        ``{"core.parallelism": "16"}``
    :param env: further environment variables of all components
    :param database: SQLAlchemy URL; SQLite in ``home`` by default
    :param migrated: a SQLite file that is migrated already, copied instead of migrating anew
    :param components: which to start
    :param name: what to call it in messages
    """

    def __init__(
        self,
        python: Path,
        home: Path,
        *,
        dags: Path,
        config: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        database: str | None = None,
        migrated: Path | None = None,
        components: Sequence[str] = COMPONENTS,
        name: str = "airflow",
    ):
        self.python = python
        self.home = home
        self.dags = dags
        self.name = name
        self.components = components
        self.migrated = migrated
        self.port, self.log_port, health_port = free_ports(3)
        self.url = f"http://127.0.0.1:{self.port}"
        self.database = database or f"sqlite:///{self.database_file}"
        self.config = self._defaults(health_port) | dict(config or {})
        self.env = self._environment() | dict(env or {})
        self._running: dict[str, Guarded] = {}
        self._token: str | None = None
        self._ended = ""
        # No proxies, whatever the environment says: the api-server is on this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    @property
    def database_file(self) -> Path:
        """The SQLite database, if that is what it uses."""
        return self.home / "airflow.db"

    def log(self, component: str) -> Path:
        """Return the file with the output of ``component``."""
        return self.home / "output" / f"{component}.log"

    def _defaults(self, health_port: int) -> dict[str, str]:
        return {
            "core.executor": "LocalExecutor",
            "core.dags_folder": str(self.dags),
            "core.load_examples": "False",
            "core.simple_auth_manager_all_admins": "True",
            "core.dags_are_paused_at_creation": "False",
            "core.execution_api_server_url": f"{self.url}/execution/",
            # The default asks the DNS, which may be slow or absent.
            "core.hostname_callable": "socket.gethostname",
            "core.fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "database.sql_alchemy_conn": self.database,
            "api.host": "127.0.0.1",
            "api.port": str(self.port),
            "api.base_url": self.url,
            "api.workers": "1",
            "api.secret_key": secrets.token_hex(16),
            "api_auth.jwt_secret": secrets.token_hex(32),
            "logging.base_log_folder": str(self.home / "logs"),
            "logging.worker_log_server_port": str(self.log_port),
            "scheduler.scheduler_health_check_server_port": str(health_port),
            # The Dag files do not change: parsing them again would only take time from the tasks.
            "dag_processor.min_file_process_interval": "600",
            "usage_data_collection.enabled": "False",
        }

    def _environment(self) -> dict[str, str]:
        env = processes.neutral_environment()
        for key, value in self.config.items():
            section, option = key.split(".", 1)
            env[f"AIRFLOW__{section.upper()}__{option.upper()}"] = value
        env["AIRFLOW_HOME"] = str(self.home)
        env["AIRFLOW_CONFIG"] = str(self.home / "airflow.cfg")
        # So that the last lines before a crash are in the log.
        env["PYTHONUNBUFFERED"] = "1"
        env["PYTHONNOUSERSITE"] = "1"
        return env

    def command(self, *args: str) -> list[str]:
        """Return the command line of ``airflow ARGS`` in this deployment."""
        return [str(self.python), "-m", "airflow", *args]

    # Start and stop

    def __enter__(self) -> Instance:
        try:
            self.prepare()
            for component in self.components:
                self._running[component] = Guarded.start(
                    self.command(component), env=self.env, cwd=self.home, log=self.log(component), grace=5
                )
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def prepare(self) -> None:
        """
        Make ``home`` and a migrated database.

        :raises PatchsetError: if ``home`` is not empty, or its path no good, or ``airflow db migrate`` fails
        """
        if wrong := sorted(set("%$?") & set(f"{self.home}{self.dags}")):
            # Airflow expands the first two in any option; the last begins the options of a database URL.
            raise PatchsetError(
                f"Airflow cannot work in {self.home}: {' '.join(wrong)} in the path", "use another directory"
            )
        if self.home.exists() and any(self.home.iterdir()):
            raise PatchsetError(f"{display(self.home)} is not empty", "give another directory")
        self.home.mkdir(parents=True, exist_ok=True)
        # Made here, as three components that find none would write it at the same time.
        (self.home / "airflow.cfg").write_text("# Everything is set in the environment.\n", encoding="utf-8")
        if self.migrated is not None:
            shutil.copyfile(self.migrated, self.database_file)
            return
        log = self.log("db-migrate")
        done = processes.run(self.command("db", "migrate"), env=self.env, cwd=self.home, log=log)
        if done.returncode:
            _show_tail(log)
            raise PatchsetError(f"{self.name}: airflow db migrate failed", f"see {display(log)}")

    def stop(self, grace: float = 5.0) -> None:
        """End all components at the same time: SIGTERM, after ``grace`` seconds SIGKILL."""
        running = list(self._running.values())
        if running:
            with ThreadPoolExecutor(len(running)) as pool:
                list(pool.map(lambda component: component.stop(grace), running))

    def check(self) -> None:
        """
        Do nothing while all components run.

        The last lines that a dead one wrote are shown as warnings.

        :raises PatchsetError: if one has ended
        """
        for component, process in self._running.items():
            # poll() waits for what a dead scheduler left behind as well; its pid tells at once.
            if process.poll() is not None or not _alive(process.pid):
                log = self.log(component)
                if not self._ended:
                    self._ended = component
                    _show_tail(log)
                raise PatchsetError(f"{self.name}: the {component} ended by itself", f"see {display(log)}")

    @property
    def scheduler_pid(self) -> int:
        """Process id of the scheduler, the root of the tree with serve-logs, workers and tasks."""
        return self._running["scheduler"].pid

    def pid(self, component: str) -> int:
        return self._running[component].pid

    # Waiting

    def wait_for(self, what: str, look: Callable[[], T | None], timeout: float) -> T:
        """
        Return what ``look`` returns as soon as that is neither None nor False.

        :param what: what is waited for, for the message
        :param timeout: seconds
        :raises PatchsetError: if it does not come in time, or a component ends before
        """
        deadline = time.monotonic() + timeout
        reason = ""
        while True:
            self.check()
            try:
                result = look()
            except ApiError as e:
                result, reason = None, f" ({e})"
            if result is not None and result is not False:
                return result
            if time.monotonic() >= deadline:
                raise PatchsetError(
                    f"{self.name}: no {what} within {timeout:.0f} s{reason}",
                    f"see the logs in {display(self.log('x').parent)}",
                )
            time.sleep(_POLL)

    def wait_ready(self, timeout: float = 120.0) -> None:
        """
        Wait until the api-server answers, serve-logs listens, and the scheduler is in its loop.

        :param timeout: seconds
        :raises PatchsetError: if that takes longer, or a component ends before
        """

        def heartbeat() -> str | None:
            scheduler = self.api("GET", "/api/v2/monitor/health", token=False)["scheduler"]
            return scheduler["latest_scheduler_heartbeat"] if scheduler["status"] == "healthy" else None

        deadline = time.monotonic() + timeout
        # The scheduler's first heartbeat comes with its registration, before its executors start.
        # Only the next one comes from its loop.
        first = self.wait_for("healthy scheduler", heartbeat, timeout)
        self.wait_for(
            "heartbeat from the scheduler's loop",
            lambda: (now := heartbeat()) is not None and now != first,
            max(deadline - time.monotonic(), 15),
        )
        self.wait_for("serve-logs", lambda: _listens(self.log_port), max(deadline - time.monotonic(), 15))

    def wait_for_dag(self, dag_id: str, timeout: float = 60.0) -> None:
        """Wait until the scheduler can run ``dag_id``: it is parsed and in the database."""

        def there() -> bool:
            try:
                return not self.api("GET", f"/api/v2/dags/{dag_id}")["is_paused"]
            except ApiError as e:
                if e.status == 404 and (errors := self.api("GET", "/api/v2/importErrors")["import_errors"]):
                    lines = errors[0]["stack_trace"].strip().splitlines()
                    raise PatchsetError(f"{self.name}: {errors[0]['filename']}: {lines[-1]}") from None
                raise

        self.wait_for(f"Dag {dag_id}", there, timeout)

    # REST API

    def api(self, method: str, path: str, body: dict | None = None, *, token: bool = True) -> dict:
        """
        Call the REST API, and return its answer.

        :param token: log in for it; the health page needs none
        :raises ApiError: if the answer is an error or does not come in 30 seconds
        """
        if token and self._token is None:
            self._token = self.api("GET", "/auth/token", token=False)["access_token"]
        request = urllib.request.Request(f"{self.url}{path}", method=method)
        request.add_header("Accept", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {self._token}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with self._opener.open(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as e:
            with e:
                text = e.read(500).decode(errors="replace")
            raise ApiError(f"{method} {path}: HTTP {e.code} {text}", e.code) from e
        except (OSError, ValueError) as e:
            raise ApiError(f"{method} {path}: {e}") from e

    def trigger(self, dag_id: str, conf: dict | None = None) -> str:
        """Start a run of ``dag_id``, and return its run id."""
        body = {"logical_date": None, "conf": conf or {}}
        try:
            return self.api("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)["dag_run_id"]
        except ApiError as e:
            raise PatchsetError(f"{self.name}: cannot start a run of {dag_id}: {e}") from e

    def wait_for_run(self, dag_id: str, run_id: str, timeout: float) -> dict:
        """
        Wait until a Dag run has ended, in whatever state, and return it as the REST API describes it.

        :param timeout: seconds
        :raises PatchsetError: if it takes longer, or a component ends before
        """

        def ended() -> dict | None:
            run = self.api("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")
            return run if run["state"] in ("success", "failed") else None

        return self.wait_for(f"end of the run of {dag_id}", ended, timeout)

    def task_instances(self, dag_id: str, run_id: str) -> Iterator[dict]:
        """
        Yield the task instances of a run as the REST API describes them.

        :raises ApiError: if the api-server does not answer
        """
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        offset = 0
        while True:
            page = self.api("GET", f"{path}?limit={_PAGE}&offset={offset}&order_by=id")
            yield from page["task_instances"]
            offset += _PAGE
            if offset >= page["total_entries"]:
                return

    def task_states(self, dag_id: str, run_id: str) -> dict[str, int]:
        """Return how many task instances of a run are in each state."""
        states = Counter(str(task["state"]) for task in self.task_instances(dag_id, run_id))
        return dict(sorted(states.items()))


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def _show_tail(log: Path, lines: int = 8) -> None:
    """Show the last lines of a log; the message that follows is then one line."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            last = deque((line.rstrip() for line in file if line.strip()), maxlen=lines)
    except OSError:
        return
    for line in last:
        ui.warn(f"{log.stem}: {line}")
