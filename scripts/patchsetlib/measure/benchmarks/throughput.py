# SPDX-License-Identifier: Apache-2.0
"""``bench throughput``: how fast a full Airflow runs tasks that do next to nothing, and where time goes."""

from __future__ import annotations

from collections.abc import Sequence

from patchsetlib.measure.figures import (
    TIME_TOLERANCE,
    Figure,
    mib,
    milliseconds,
    quantile,
    seconds,
    spent,
    succeeded,
)
from patchsetlib.measure.runner import Benchmark, Option, Run
from patchsetlib.measure.workload import Workload


def _measure(run: Run) -> dict:
    load = Workload(tasks=run.options["tasks"], seconds=0, parallelism=int(run.case), records=True)
    # Sampled rarely, since that takes time from the tasks.
    return run.deploy(load, ("moments", "course", "sampling"), interval=10)


def refills(tasks: Sequence[Sequence[float | None]], slots: int) -> list[float]:
    """
    Return the seconds from the end of each task to the start of the one that took its slot.

    As slots are all alike, that is the start which is ``slots`` places later in the order of the starts.

    :param tasks: moments (queued, started, ended) of tasks that wait for a slot all the time
    """
    starts = sorted(start for _, start, _ in tasks if start is not None)
    ends = sorted(end for _, _, end in tasks if end is not None)
    return [start - end for end, start in zip(ends, starts[slots:], strict=False)]


def _figures(record: dict) -> list[Figure]:
    when, tasks = f"{record['case']} slots", record["dag_run"]
    waits = [start - queued for queued, start, _ in record["tasks"] if None not in (queued, start)]
    rate = 60 * tasks["tasks"] / tasks["seconds"]
    found = [
        Figure(when, "tasks", "per minute", rate, "more", TIME_TOLERANCE, 0),
        succeeded(when, tasks),
        seconds(when, "queued to started", "p50", quantile(waits, 0.5), 2),
    ]
    for what, values in (
        ("end of a task to its report to the scheduler", record["reports"]),
        ("end of a task to the start of the next", refills(record["tasks"], int(record["case"]))),
    ):
        for percent in (50, 90, 99):
            found.append(seconds(when, what, f"p{percent}", quantile(values, percent / 100), 2))
    cpu = spent(record, "triggered", "finished")
    for role in ("api-server", "scheduler", "workers", "task"):
        found.append(milliseconds(when, "CPU per task", role, cpu.get(role, 0) / tasks["tasks"]))
    # Nothing in runs of older versions of this benchmark.
    used, what = record.get("own_code", []), "task process until its own code"
    found.append(milliseconds(when, what, "CPU", quantile([time for time, _ in used], 0.5)))
    found.append(mib(when, what, "private memory", quantile([private for _, private in used], 0.5)))
    return found


BENCHMARK = Benchmark(
    name="throughput",
    help="tasks per minute through a full Airflow, and the times between tasks",
    options=(
        Option("tasks", 300, "tasks that do next to nothing"),
        Option("parallelism", [4, 16], "slots of the executor, one run for each"),
    ),
    cases=lambda options: [str(slots) for slots in options["parallelism"]],
    measure=_measure,
    figures=_figures,
    panels=(("tasks", "per minute"),),
    deploys=True,
)
