# SPDX-License-Identifier: Apache-2.0
"""``bench memory``: USS and PSS per role of a full Airflow: idle, at the peak, after the tasks, and later."""

from __future__ import annotations

from patchsetlib.measure import memory
from patchsetlib.measure.figures import (
    TOTAL_TOLERANCE,
    Figure,
    mib,
    milliseconds,
    processes,
    seconds,
    spent,
    whole_run,
)
from patchsetlib.measure.memory import Sample
from patchsetlib.measure.runner import Benchmark, Option, Run
from patchsetlib.measure.workload import Workload

_ALWAYS = ("scheduler", "serve-logs", "workers")


def _measure(run: Run) -> dict:
    names = ("tasks", "seconds", "parallelism", "concurrency")
    load = Workload(**{name: run.options[name] for name in names})
    return run.deploy(load, ("tasks", "reports"), settle=run.options["settle"])


def _figures(record: dict) -> list[Figure]:
    found: list[Figure] = []
    for when, moment in record["moments"].items():
        sample = Sample.from_json(moment)
        for role, members in memory.GROUPS.items():
            count = sample.count(*members)
            if not count and role not in _ALWAYS:
                continue
            if count != 1 or role in ("workers", "task"):
                found.append(Figure(when, role, "processes", count, None, digits=0))
            found += processes(when, role, sample, members)
        if count := sample.count(memory.WORKER_BUSY):
            found.append(Figure(when, "workers", "busy", count, None, digits=0))
        found.append(Figure(when, "whole tree", "processes", sample.count(), None, digits=0))
        found.append(mib(when, "whole tree", "PSS total", sample.total("pss"), TOTAL_TOLERANCE))
    seconds_at_rest = record["events"]["end"] - record["events"]["at rest"]
    at_rest = spent(record, "at rest", "end").get("scheduler", 0) / seconds_at_rest
    cpu = {
        event: sum(used for role, used in by_role.items() if role in memory.GROUPS)
        for event, by_role in record["cpu"].items()
    }
    return [
        *found,
        seconds("run", "CPU of the tree", "during the tasks", cpu["finished"] - cpu["triggered"]),
        seconds("run", "CPU of the tree", "from then to the end", cpu["end"] - cpu["finished"]),
        milliseconds("run", "CPU of the scheduler", "per s at rest", at_rest),
        *whole_run(record),
    ]


BENCHMARK = Benchmark(
    name="memory",
    help="memory of a full Airflow by role: idle, at the peak, after the tasks, and later",
    options=(
        Option("tasks", 96, "mapped tasks"),
        Option("parallelism", 16, "slots of the executor"),
        Option("concurrency", 0, "tasks that run at a time; 0 for as many as there are slots", least=0),
        Option("seconds", 2.0, "seconds that each task waits", least=0),
        Option("settle", 60.0, "seconds after the tasks when to look again"),
    ),
    measure=_measure,
    figures=_figures,
    panels=(("whole tree", "PSS total, MiB"), ("workers", "USS per process, MiB")),
    deploys=True,
)
