# SPDX-License-Identifier: Apache-2.0
"""``bench edge``: memory of an edge worker with its tasks, and the CPU time of a task, with EdgeExecutor."""

from __future__ import annotations

import statistics

from patchsetlib.measure.figures import Figure, mib, milliseconds, processes, spent, whole_run
from patchsetlib.measure.memory import EDGE_WORKER, GROUPS, TASK, Sample
from patchsetlib.measure.runner import Benchmark, Option, Run
from patchsetlib.measure.workload import Workload
from patchsetlib.shell.errors import PatchsetError

# What each of them is of a task.
_NAMES = {EDGE_WORKER: "edge worker", "workers": "supervisor of a task", TASK: "task"}


def _measure(run: Run) -> dict:
    if run.database is None:
        raise PatchsetError("SQLite is too slow for EdgeExecutor", "give a server with --database")
    slots = run.options["slots"]
    load = Workload(
        tasks=run.options["tasks"],
        seconds=run.options["seconds"],
        # What waits in the queue takes slots of the executor, too.
        parallelism=2 * slots,
        records=True,
        collect=bool(run.options["collect"]),
    )
    left_out = ("tasks", "reports")
    return run.deploy(load, left_out, interval=1, settle=run.options["settle"], edge_slots=slots)


def _figures(record: dict) -> list[Figure]:
    found: list[Figure] = []
    for when, moment in record["moments"].items():
        # While the last process ends, it shares memory with the worker and is no longer seen.
        if when == "at once after":
            continue
        sample = Sample.from_json(moment)
        for role, what in _NAMES.items():
            if not (count := sample.count(*GROUPS[role])):
                continue
            if role != EDGE_WORKER:
                found.append(Figure(when, what, "processes", count, None, digits=0))
            found += processes(when, what, sample, GROUPS[role])
        if sample.count(TASK):
            # No total: an edge worker may exceed its slots, by another number each time.
            for figure in ("uss", "pss"):
                size = sum(sample.median(figure, *GROUPS[role]) or 0 for role in ("workers", TASK))
                found.append(mib(when, "supervisor and task", f"{figure.upper()} per task", size))
    cpu, tasks = spent(record, "triggered", "at rest"), record["dag_run"]["tasks"]
    forked = cpu.get("workers", 0) + cpu.get(TASK, 0)
    own = [used for used, _ in record["own_code"]]
    return [
        *found,
        milliseconds("run", "supervisor and task", "CPU per task", forked / tasks),
        milliseconds("run", "task", "CPU until its own code", statistics.median(own) if own else None),
        milliseconds("run", "edge worker", "CPU per task", cpu[EDGE_WORKER] / tasks),
        *whole_run(record),
    ]


BENCHMARK = Benchmark(
    name="edge",
    help="memory of an edge worker with its tasks, and CPU time of a task (a base of edge3)",
    options=(
        Option("tasks", 56, "mapped tasks"),
        Option("slots", 8, "slots of the edge worker"),
        Option("seconds", 8.0, "seconds that each task waits", least=0),
        Option("collect", 0, "1: each task runs a full garbage collection", least=0),
        Option("settle", 5.0, "seconds after the tasks when to look again"),
    ),
    measure=_measure,
    figures=_figures,
    panels=(
        ("supervisor and task", "USS per task, MiB"),
        ("supervisor and task", "PSS per task, MiB"),
        ("supervisor and task", "CPU per task, ms"),
    ),
    deploys=True,
)
