# SPDX-License-Identifier: Apache-2.0
"""One measured run of a Dag of mapped tasks on a deployment: times, memory, CPU."""

from __future__ import annotations

import re
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import psutil

from patchsetlib.measure import memory
from patchsetlib.measure.deployment import Deployment
from patchsetlib.measure.memory import Sample, Sampler, at_rest
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import ROOT

DAG_ID = "patchset_mapped"
# Breeze has the same Dag, so that its figures can be compared.
DAGS = ROOT / "breeze-config" / "dags"

# A file in the home of a deployment; see the Dag.
RECORDS = "task-records"


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
    records: bool = False
    """Whether some tasks record what their process has used until their own code runs."""
    collect: bool = False
    """Whether each task runs a full garbage collection."""

    @property
    def config(self) -> dict[str, str]:
        return {
            # Readiness is seen with the scheduler's second heartbeat, by default up to five seconds later.
            "scheduler.job_heartbeat_sec": "2",
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
            "PATCHSET_TASK_COLLECT": str(int(self.collect)),
        }

    @property
    def timeout(self) -> float:
        """Seconds after which a Dag run is given up: many times what two cores need."""
        slots = min(self.concurrency or self.parallelism, self.parallelism)
        return 180 + self.tasks * (self.seconds / slots + 3)


def measure(
    deployment: Deployment, workload: Workload, *, interval: float = 2.0, settle: float = 0.0
) -> dict:
    """
    Run ``workload`` on a deployment that was just started, and return a record of it, fit for JSON.

    Times are seconds since the beginning of this call, ``cpu`` is by event and role, ``tasks`` has the times
    (queued, started, ended) of each, ``own_code`` what some task processes had used until the code of their
    task ran (CPU seconds, bytes of private memory). ``moments`` are samples of the memory: *before any task*,
    *at the peak* (most PSS with most workers busy), *at once after* the tasks, and ``settle`` seconds after.

    :param interval: seconds between two samples
    :raises PatchsetError: if a component ends, or the Dag run does not; tasks that fail are in the record
    """
    name, role = deployment.name, deployment.runs_tasks
    events: dict[str, float] = {}
    cpu: dict[str, dict[str, float]] = {}
    wall_zero = datetime.now(timezone.utc)

    with Sampler(deployment.pids[role], role=role) as sampler:

        def event(what: str) -> None:
            cpu[what] = memory.cpu_seconds(deployment.pids)
            events[what] = round(time.monotonic() - sampler.zero, 2)

        try:
            with ui.step(f"{name}: waiting until it is ready"):
                deployment.wait_ready()
                event("ready")
                deployment.wait_for_dag(DAG_ID)
                deployment.wait_for("rest of the process tree", lambda: at_rest(sampler.samples), 60)
                idle = sampler.samples[-1]
            with ui.step(f"{name}: {workload.tasks} tasks at parallelism {workload.parallelism}"):
                sampler.interval = interval
                event("triggered")
                ids, runs = [], []
                for _ in range(workload.runs):
                    ids.append(deployment.trigger(DAG_ID))
                    runs.append(deployment.wait_for_run(DAG_ID, ids[-1], workload.timeout))
                event("finished")
            with ui.step(f"{name}: the {settle:g} s after the tasks" if settle else f"{name}: at rest"):
                deployment.wait_for("end of the task processes", lambda: _no_work(sampler.now()), 90)
                event("at rest")
                while time.monotonic() - sampler.zero < events["finished"] + settle:
                    deployment.check()
                    time.sleep(0.5)
                last = sampler.now()
                event("end")
            tasks = [task for run_id in ids for task in deployment.task_instances(DAG_ID, run_id)]
        except psutil.NoSuchProcess:
            deployment.check()
            raise PatchsetError(f"{name}: the {role} ended") from None
    samples = sampler.samples
    states = Counter(str(task["state"]) for task in tasks)
    if unreadable := max(sample.unreadable for sample in samples):
        ui.warn(f"{name}: up to {unreadable} processes may only be read as root, and are in no USS or PSS")
    if set(states) != {"success"}:
        ui.warn(f"{name}: not all tasks succeeded: {dict(states)}")
    moments = _moments(samples, idle, events["finished"])
    if settle:
        moments[f"{settle:g} s after"] = last
    times = [
        [_moment(task[at], wall_zero) for at in ("queued_when", "start_date", "end_date")] for task in tasks
    ]
    return {
        "events": events,
        "cpu": cpu,
        "dag_run": {
            "seconds": round(sum(_moment(run["end_date"], _datetime(run["queued_at"])) for run in runs), 2),
            "tasks": workload.tasks * workload.runs,
            "succeeded": states["success"],
            "states": dict(sorted(states.items())),
        },
        "tasks": times,
        "reports": reports(deployment.log("scheduler")),
        "own_code": own_code(deployment.home / RECORDS),
        "moments": {name: sample.as_json() for name, sample in moments.items()},
        "sampling": {
            "count": len(samples),
            "cost": round(sum(sample.cost for sample in samples), 2),
            "unreadable": unreadable,
        },
        "course": _course(samples, [ended for _, _, ended in times]),
    }


def _no_work(sample: Sample) -> bool:
    return not sample.count(memory.TASK, memory.WORKER_BUSY)


def _moments(samples: Sequence[Sample], idle: Sample, finished: float) -> dict[str, Sample]:
    most = max(sample.count(memory.WORKER_BUSY) for sample in samples)
    full = [sample for sample in samples if sample.count(memory.WORKER_BUSY) == most]
    # At once: not when it is at rest, since workers may be replaced until then.
    free = [sample for sample in samples if sample.time >= finished and _no_work(sample)]
    return {
        "before any task": idle,
        "at the peak": max(full, key=lambda sample: sample.total("pss")),
        "at once after": free[0],
    }


def _course(samples: Sequence[Sample], ends: Sequence[float | None]) -> dict:
    """Return the totals of all samples, with how many tasks had ended by then."""
    ended = sorted(end for end in ends if end is not None)
    columns = {
        "seconds": lambda sample: round(sample.time, 1),
        "tasks done": lambda sample: bisect_right(ended, sample.time),
        "processes": lambda sample: sample.count(),
        "workers": lambda sample: sample.count(*memory.WORKERS),
        "busy workers": lambda sample: sample.count(memory.WORKER_BUSY),
        "PSS of the tree": lambda sample: sample.total("pss"),
        "USS of all workers": lambda sample: sample.total("uss", *memory.WORKERS),
        "USS of the scheduler": lambda sample: sample.total("uss", memory.SCHEDULER),
    }
    rows = [[value(sample) for value in columns.values()] for sample in samples]
    return {"columns": list(columns), "rows": rows}


_REPORT = re.compile(
    r"^\[?(\S+?)\]? .*TaskInstance Finished: .*?run_end_date=(\d\S+ \S+?), run_duration", re.MULTILINE
)


def reports(log: Path) -> list[float]:
    """Return the seconds from the end of each task until the scheduler dealt with the executor's report."""
    found = _REPORT.findall(log.read_text(encoding="utf-8", errors="replace"))
    return [_moment(at, _datetime(end)) for at, end in found]


def own_code(records: Path) -> list[tuple[float, int]]:
    """Return (CPU seconds, bytes of private memory) that tasks have recorded when their own code began."""
    lines = records.read_text(encoding="utf-8").splitlines() if records.exists() else []
    return [(float(cpu), 1024 * int(private)) for cpu, private in map(str.split, lines)]


def _datetime(text: str) -> datetime:
    # fromisoformat of Python 3.10 does not know the letter.
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _moment(text: str | None, zero: datetime) -> float | None:
    """Return a time of the database or a log as seconds since ``zero``."""
    return round((_datetime(text) - zero).total_seconds(), 3) if text else None
