# SPDX-License-Identifier: Apache-2.0
"""One measured run: a deployment, a Dag of mapped tasks, and the memory of the scheduler's process tree."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import psutil

from patchsetlib.measure import memory
from patchsetlib.measure.instance import ApiError, Instance
from patchsetlib.measure.memory import Sample, Sampler
from patchsetlib.shell import processes, ui
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import ROOT

DAG_ID = "patchset_mapped"
# Breeze has the same Dag, so that its figures can be compared.
DAGS = ROOT / "breeze-config" / "dags"

# The same for everything that is compared, and only there to make the run shorter: without this a worker
# may notice the end of its task up to five seconds late, and readiness is seen up to five seconds late.
BRISK = {"workers.min_heartbeat_interval": "1", "scheduler.job_heartbeat_sec": "2"}


@dataclass(frozen=True)
class Workload:
    """What is run."""

    tasks: int = 96
    """Mapped tasks of a Dag run."""
    seconds: float = 2.0
    """Seconds that each task waits after its little computing."""
    parallelism: int = 16
    """Slots of the executor."""
    concurrency: int = 0
    """Tasks that run at a time; 0 for as many as there are slots."""
    runs: int = 1
    """Dag runs, one after the other."""

    @property
    def config(self) -> dict[str, str]:
        return {
            "core.parallelism": str(self.parallelism),
            "core.max_active_tasks_per_dag": str(self.parallelism),
            # Its default of 16 would leave slots empty.
            "scheduler.max_tis_per_query": str(max(16, self.parallelism)),
        }

    @property
    def env(self) -> dict[str, str]:
        return {
            "PATCHSET_TASKS": str(self.tasks),
            "PATCHSET_TASK_SECONDS": str(self.seconds),
            "PATCHSET_TASK_CONCURRENCY": str(self.concurrency),
        }

    @property
    def timeout(self) -> float:
        """Seconds after which a Dag run is given up: many times what two cores need."""
        slots = min(self.concurrency or self.parallelism, self.parallelism)
        return 180 + self.tasks * (self.seconds / slots + 3)


_DESCRIBE = """
import hashlib, importlib.metadata, json, sys
distributions = {d.name: d.version for d in importlib.metadata.distributions()}
try:
    record = importlib.metadata.distribution("apache-airflow-core").read_text("RECORD") or ""
except importlib.metadata.PackageNotFoundError:
    record = ""
lines = sorted(line for line in record.splitlines() if line.startswith("airflow/") and ".py," in line)
content = hashlib.sha256(chr(10).join(lines).encode()).hexdigest() if lines else None
print(json.dumps({"python": sys.version.split()[0], "content": content, "distributions": distributions}))
"""


def describe_python(python: Path) -> dict:
    """
    Return what tells an interpreter and its Airflow from another one.

    That is its version, names and versions of all distributions, and a hash (``content``) that changes with
    the Python files of Airflow itself; it is None if the installation has no ``RECORD``.

    :raises PatchsetError: if it does not run, or has no Airflow
    """
    done = processes.run([str(python), "-I", "-c", _DESCRIBE], capture=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise PatchsetError(f"{python} does not run: {last[0]}")
    description = json.loads(done.stdout)
    description["distributions"] = dict(sorted(description["distributions"].items()))
    description["airflow"] = description["distributions"].get("apache-airflow-core")
    if description["airflow"] is None:
        raise PatchsetError(f"{python} has no apache-airflow-core")
    return description


def migrate(python: Path, home: Path) -> Path:
    """
    Make a migrated SQLite database with the Airflow of ``python``, and return its file.

    :raises PatchsetError: if that fails
    """
    with ui.step("migrating a database"):
        instance = Instance(python, home, dags=home, name="database")
        instance.prepare()
    return instance.database_file


def measure(
    name: str,
    python: Path,
    home: Path,
    workload: Workload,
    *,
    config: Mapping[str, str] | None = None,
    database: str | None = None,
    migrated: Path | None = None,
    dags: Path = DAGS,
    interval: float = 2.0,
    later: Sequence[float] = (),
    env: Mapping[str, str] | None = None,
) -> dict:
    """
    Run ``workload`` once on the Airflow of ``python``, and return a record of it, fit for JSON.

    Its snapshots are ``idle`` (in its loop, no task yet), ``peak`` (the most PSS that was seen), ``after``
    (all tasks and their processes gone, and at rest) and one ``after N s`` for each of ``later``.

    :param name: what to call it, e.g. ``stock``
    :param home: directory for the deployment; must not exist, or be empty
    :param config: overrides of Airflow's configuration, see ``Instance``
    :param database: SQLAlchemy URL; SQLite by default
    :param migrated: a migrated SQLite file to copy instead of migrating anew
    :param dags: directory with a Dag ``patchset_mapped``
    :param interval: seconds between two samples
    :param later: seconds after the end of the Dag run at which further snapshots are taken
    :param env: further environment variables of all components
    :raises PatchsetError: if the deployment does not start, or one of its components ends, or the Dag run
        does not end; tasks that fail are in the record
    """
    description = describe_python(python)
    # A copy beside the results shows what was run, and keeps __pycache__ out of the sources.
    copied = home.with_name(f"{home.name}-dags")
    shutil.copytree(dags, copied, ignore=shutil.ignore_patterns("__pycache__"))
    instance = Instance(
        python,
        home,
        dags=copied,
        config=BRISK | workload.config | dict(config or {}),
        env=workload.env | dict(env or {}),
        database=database,
        migrated=migrated,
        name=name,
    )
    with ExitStack() as stack:
        what = f"{name}: starting Airflow {description['airflow']} on Python {description['python']}"
        with ui.step(what):
            stack.enter_context(instance)
        return _observe(name, instance, workload, interval, later) | {
            "interpreter": description,
            "workload": asdict(workload),
            "config": _public(instance),
        }


_SECRET = ("core.fernet_key", "api.secret_key", "api_auth.jwt_secret", "database.sql_alchemy_conn")


def _public(instance: Instance) -> dict[str, str]:
    """Return the configuration without secrets, and without where on this machine it was."""
    parent = str(instance.home.parent)
    return {k: v.replace(parent, "...") for k, v in instance.config.items() if k not in _SECRET}


def _observe(
    name: str, instance: Instance, workload: Workload, interval: float, later: Sequence[float]
) -> dict:
    zero = time.monotonic()
    wall_zero = datetime.now(timezone.utc)
    events: dict[str, float] = {}
    cpu: dict[str, float] = {}

    def event(what: str) -> None:
        events[what] = round(time.monotonic() - zero, 2)
        cpu[what] = round(memory.cpu_seconds(instance.scheduler_pid), 2)

    try:
        with Sampler(instance.scheduler_pid, interval=interval, zero=zero) as sampler:
            with ui.step(f"{name}: waiting until it is ready"):
                instance.wait_ready()
                event("ready")
                instance.wait_for_dag(DAG_ID)
                idle, idle_settled = sampler.settle(check=instance.check)
            with ui.step(f"{name}: {workload.tasks} tasks at parallelism {workload.parallelism}"):
                event("triggered")
                runs = []
                for _ in range(workload.runs):
                    run_id = instance.trigger(DAG_ID)
                    runs.append(_wait_for_run(instance, run_id, workload))
                event("finished")
            with ui.step(f"{name}: waiting until it is at rest"):
                after, after_settled = sampler.settle(_no_work, timeout=90, check=instance.check)
            snapshots = {
                "idle": _snapshot(idle, idle_settled),
                "peak": _snapshot(max(sampler.samples, key=lambda sample: sample.total("pss")), None),
                "after": _snapshot(after, after_settled),
            }
            for seconds in later:
                while time.monotonic() - zero < events["finished"] + seconds:
                    instance.check()
                    time.sleep(0.5)
                snapshots[f"after {seconds:g} s"] = _snapshot(sampler.now(), None)
            event("end")
            tasks = [task for run in runs for task in instance.task_instances(DAG_ID, run["dag_run_id"])]
    except psutil.NoSuchProcess:
        instance.check()
        raise PatchsetError(f"{name}: the scheduler ended") from None
    except ApiError as e:
        raise PatchsetError(f"{name}: {e}") from e
    states = Counter(str(task["state"]) for task in tasks)
    times = [[task[name] for name in ("queued_when", "start_date", "end_date")] for task in tasks]
    return {
        "name": name,
        "events": events,
        # CPU seconds of the scheduler and its children at these moments.
        "cpu": cpu,
        "dag_run": {
            "state": runs[-1]["state"],
            "seconds": round(sum(_seconds_between(run["queued_at"], run["end_date"]) for run in runs), 2),
            "tasks": workload.tasks * workload.runs,
            "succeeded": states.get("success", 0),
            "states": dict(sorted(states.items())),
        },
        # Seconds since the zero of the samples, as far as the clock of the database goes.
        "tasks": [
            [None if at is None else round((_moment(at) - wall_zero).total_seconds(), 2) for at in three]
            for three in times
        ],
        "snapshots": snapshots,
        "sampling": {
            "interval": interval,
            "count": len(sampler.samples),
            "cost": round(sampler.cost, 2),
            "unreadable": max(sample.unreadable for sample in sampler.samples),
        },
        "samples": [sample.as_json() for sample in sampler.samples],
    }


def _no_work(sample: Sample) -> bool:
    return sample.count(memory.TASK, memory.WORKER_BUSY) == 0


def _wait_for_run(instance: Instance, run_id: str, workload: Workload) -> dict:
    try:
        return instance.wait_for_run(DAG_ID, run_id, workload.timeout)
    except PatchsetError as e:
        try:
            instance.check()
            states = instance.task_states(DAG_ID, run_id)
        except (ApiError, PatchsetError):
            raise e from None
        raise PatchsetError(f"{e.problem}; task states: {states}", e.remedy) from None


def _snapshot(sample: Sample, settled: bool | None) -> dict:
    return {"time": round(sample.time, 2), "settled": settled, "roles": memory.tree_summary(sample)}


def _moment(text: str) -> datetime:
    # fromisoformat of Python 3.10 does not know the letter.
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _seconds_between(start: str, end: str) -> float:
    return (_moment(end) - _moment(start)).total_seconds()
