# SPDX-License-Identifier: Apache-2.0
"""
``bench soak``: a week in ten minutes. Tasks of all kinds run in rounds while processes die and restart.

In each round an idle worker and a busy one are killed; in the first rounds, api-server and scheduler are
restarted, and serve-logs is killed. After each round, when all is at rest, memory, descriptors and zombies
are counted.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import psutil

from patchsetlib.measure import memory
from patchsetlib.measure.deployment import COMPONENTS, Deployment
from patchsetlib.measure.figures import MIB, TOTAL_TOLERANCE, Figure, mib
from patchsetlib.measure.memory import Sampler, at_rest
from patchsetlib.measure.runner import PROBES, Benchmark, Option, Run
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError

DAG_ID = "patchset_soak"
_CONFIG = {
    "scheduler.job_heartbeat_sec": "2",
    # A task whose supervisor was killed is found by its missing heartbeats, where nobody reports it.
    "scheduler.task_instance_heartbeat_timeout": "60",
    "scheduler.task_instance_heartbeat_timeout_detection_interval": "10",
    # However long the api-server takes to start, no task gives up: that would spend its tries. And a request
    # that is only slow is not sent twice, which the api-server refuses.
    "workers.execution_api_retries": "300",
    "workers.execution_api_retry_wait_max": "3",
    "workers.execution_api_timeout": "120",
    "workers.max_failed_heartbeats": "100",
    # All workers that a round has left grown are replaced before its end is measured.
    "local_executor.renew_idle_workers_after": "5",
}
# Seconds without the end of any task after which nothing is expected any more.
_PATIENCE = 240


def _measure(run: Run) -> dict:
    options, records = run.options, run.home / "records"
    records.mkdir()
    slots = str(options["parallelism"])
    config = _CONFIG | {"core.parallelism": slots, "core.max_active_tasks_per_dag": slots}
    env, components = {"PATCHSET_SOAK_RECORDS": str(records)}, (*COMPONENTS, "triggerer")
    with run.deployment(PROBES / "soak_dags", config, env, components=components) as deployment:
        deployment.wait_ready(600)
        deployment.wait_for_dag(DAG_ID, 600)
        rounds = list(_rounds(deployment, random.Random(options["seed"]), 60 * options["minutes"], records))
    by_task = {file.name: _read(file) for file in sorted(records.iterdir())}
    return {
        "rounds": rounds,
        "twice": [f"{name}: {start}" for name, lines in by_task.items() for start in _again(lines)],
        "beside": [name for name, lines in by_task.items() for line in lines if line[0] == "beside"],
        "dag_run": {
            "tasks": sum(each["tasks"] for each in rounds),
            "succeeded": sum(each["tasks"] - len(each["lost"]) for each in rounds),
        },
    }


def _rounds(deployment: Deployment, chance: random.Random, seconds: float, records: Path) -> Iterator[dict]:
    """Run rounds for so many seconds, and yield a record of each; one that does not end is the last."""
    # Nothing starts serve-logs again, so that comes last.
    restarts = ["api-server restarted", "scheduler restarted", "serve-logs killed"]
    started, done, ended = time.monotonic(), 0, True
    while ended and time.monotonic() - started < seconds:
        faults = [f"{role} killed" for role in memory.WORKERS] + restarts[:1]
        del restarts[:1]
        run_id = deployment.trigger(DAG_ID)
        with ui.step(f"{deployment.name}: {done} tasks after {time.monotonic() - started:.0f} s"):
            happened = []
            for fault in chance.sample(faults, len(faults)):
                time.sleep(chance.uniform(0, 3))
                happened.append([round(time.monotonic() - started, 1), _cause(deployment, fault, chance)])
            tasks, ended = _wait_for(deployment, run_id)
            done += len(tasks)
            yield {
                "seconds": round(time.monotonic() - started, 1),
                "tasks": len(tasks),
                "tasks so far": done,
                "faults": happened,
                "lost": sorted(filter(None, (_lost(task, records) for task in tasks))),
                # Before that, the caches of a scheduler that has just started fill.
                "warm": len(faults) == 2,
                **(_at_rest(deployment) if ended else {}),
            }


def _cause(deployment: Deployment, fault: str, chance: random.Random) -> str:
    """Restart or kill what ``fault`` says, and return what has happened."""
    target, _, what = fault.rpartition(" ")
    if what == "restarted":
        deployment.restart(target)
        deployment.wait_ready(600)
        return fault

    def kill() -> bool:
        with suppress(psutil.NoSuchProcess, IndexError):
            tree = memory.read_tree(deployment.pids["scheduler"])
            psutil.Process(chance.choice([each.pid for each in tree.readings if each.role == target])).kill()
            return True
        return False

    try:
        deployment.wait_for(target, kill, 30)
    except PatchsetError:
        deployment.check()
        return f"no {target} to kill"
    return fault


def _wait_for(deployment: Deployment, run_id: str) -> tuple[list[dict], bool]:
    """Wait for the end of a Dag run; return its tasks, and False if for long none of them ended."""
    path, ended, since = f"/api/v2/dags/{DAG_ID}/dagRuns/{run_id}", -1, time.monotonic()
    while True:
        # An api-server that is slow to answer is asked again.
        state = deployment.wait_for("Dag run", lambda: deployment.api("GET", path)["state"], 600)
        tasks = deployment.wait_for("list of tasks", lambda: deployment.task_instances(DAG_ID, run_id), 600)
        if state in ("success", "failed"):
            return tasks, True
        if (now := sum(task["state"] in ("success", "failed") for task in tasks)) != ended:
            ended, since = now, time.monotonic()
        elif time.monotonic() - since > _PATIENCE:
            return tasks, False
        time.sleep(1)


def _lost(task: dict, records: Path) -> str | None:
    """Return what has become of a task that did not end as it should, or whose own code did not."""
    expected = "failed" if task["task_id"] == "fails" else "success"
    if task["state"] != expected:
        return f"{task['task_id']}: {task['state']}"
    name = f"{task['dag_id']} {task['dag_run_id']} {task['task_id']} {task['map_index']}".replace("/", "_")
    last = [["done", str(task["try_number"]), phase] for phase in ("all", "resumed")]
    if expected == "success" and not any(line[:3] in last for line in _read(records / name)):
        return f"{task['task_id']}: success, though its code has not ended"
    return None


def _read(file: Path) -> list[list[str]]:
    """Return event, try, phase and pid of each line that a task has written."""
    return [line.split() for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def _again(lines: list[list[str]]) -> list[str]:
    """Return try and phase of what was started once more in the same try, whatever became of it before."""
    starts = [f"try {number}, {phase}" for event, number, phase, _ in lines if event in ("started", "beside")]
    return [start for index, start in enumerate(starts) if start in starts[:index]]


def _at_rest(deployment: Deployment) -> dict:
    """Return memory, descriptors and zombies of the scheduler's tree, as soon as it is at rest."""
    root = deployment.pids["scheduler"]
    rest = False
    with Sampler(root) as sampler:
        try:
            # For longer than idle workers wait until they are replaced.
            rest = deployment.wait_for("rest of the process tree", lambda: at_rest(sampler.samples, 12), 90)
        except PatchsetError:
            deployment.check()  # not at rest, which is nothing to give up for
    sample, scheduler = sampler.samples[-1], psutil.Process(root)
    children = scheduler.children(recursive=True)
    return {
        "rest": rest,
        "pss": {group: sample.total("pss", *roles) for group, roles in memory.GROUPS.items()},
        "processes": len(children),
        "zombies": sum(child.status() == psutil.STATUS_ZOMBIE for child in children),
        "descriptors": scheduler.num_fds(),
    }


def _figures(record: dict) -> list[Figure]:
    rounds, tasks = record["rounds"], record["dag_run"]
    measured = [each for each in rounds if "pss" in each]
    zombies = max((each["zombies"] for each in measured), default=None)
    beside = len(record["beside"])
    found = [
        Figure("all rounds", "tasks", "run", tasks["tasks"], "more", TOTAL_TOLERANCE, 0),
        Figure("all rounds", "tasks", "lost", tasks["tasks"] - tasks["succeeded"], tolerance=0, digits=0),
        Figure("all rounds", "tasks", "run twice", len(record["twice"]), tolerance=0, digits=0),
        Figure("all rounds", "tries", "begun while an earlier one ran", beside, None, digits=0),
        Figure("after a round", "zombies", "most", zombies, digits=0),
    ]
    # Only these compare: the caches are full, all workers there and none of them grown.
    warm = [each for each in measured if each["warm"] and each["rest"]]
    usual = statistics.mode(each["processes"] for each in warm) if warm else 0
    warm = [each for each in warm if each["processes"] == usual]
    if warm:
        opened = warm[-1]["descriptors"] - warm[0]["descriptors"]
        what, unit = "descriptors of the scheduler", "more than at first"
        found.append(Figure("after a round", what, unit, opened, digits=0))
        for group in filter(warm[0]["pss"].get, warm[0]["pss"]):
            size = statistics.median(each["pss"][group] for each in warm)
            found.append(mib("warm rounds", group, "PSS", size, TOTAL_TOLERANCE))
    if len(warm) > 2:
        course = [(each["tasks so far"] / 1000, sum(each["pss"].values()) / 10**6) for each in warm]
        for unit, value in zip(("", ", twice its standard error"), _slope(course), strict=True):
            unit = f"PSS, MB more per 1,000 tasks{unit}"
            found.append(Figure("warm rounds", "whole tree", unit, value, None, digits=2))
    for number, each in enumerate(measured, start=1):
        size = sum(each["pss"].values()) / MIB
        found.append(Figure(f"{number}", "whole tree", "PSS, MiB, after round", size, None))
    return found


def _slope(course: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the median slope of points (Theil and Sen), and twice its standard error."""
    slope = statistics.median((b - a) / (n - m) for (m, a), (n, b) in combinations(course, 2))
    start = statistics.median(y - slope * x for x, y in course)
    middle = statistics.fmean(x for x, _ in course)
    rest = sum((y - start - slope * x) ** 2 for x, y in course) / (len(course) - 2)
    return slope, 2 * (rest / sum((x - middle) ** 2 for x, _ in course)) ** 0.5


BENCHMARK = Benchmark(
    name="soak",
    help="a full Airflow while processes are killed and restarted: lost tasks, and growth",
    options=(
        Option("minutes", 10, "minutes that rounds are begun"),
        Option("parallelism", 16, "slots of the executor", least=3),
        Option("seed", 1, "what decides when which process is killed", least=0),
    ),
    measure=_measure,
    figures=_figures,
    panels=(("tasks", "run"), ("tasks", "lost"), ("whole tree", "PSS, MiB, after round")),
    deploys=True,
)
