# SPDX-License-Identifier: Apache-2.0
"""``bench growth``: how much the workers and the scheduler of a full Airflow grow with each task."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from patchsetlib.measure.figures import Figure, mib, succeeded
from patchsetlib.measure.runner import Benchmark, Option, Run
from patchsetlib.measure.workload import Workload

# Tasks of one Dag run: so many that its beginning and end do not count, so few that it stays quick.
_RUN = 500
# The first tasks load what is needed once; growth is what comes after.
_SKIPPED = 0.1


def _measure(run: Run) -> dict:
    tasks = run.options["tasks"]
    runs = max(1, round(tasks / _RUN))
    load = Workload(tasks=-(-tasks // runs), seconds=0, parallelism=run.options["parallelism"], runs=runs)
    return run.deploy(load, ("tasks", "reports", "moments"), interval=3)


def slope(points: Sequence[tuple[float, float]], skipped: float = _SKIPPED) -> float | None:
    """
    Return by how many bytes memory grows with each task, by least squares; None if there are too few points.

    Of the workers that is the growth per task and worker: each task adds to the one worker that ran it. While
    a task runs, its process shares pages with the worker, which are not in the worker's USS then: the points
    of a busy pool scatter by some MiB.

    :param points: (tasks done, bytes); those with no task or all tasks done do not count
    :param skipped: share of the tasks before which the points do not count
    """
    total = max((done for done, _ in points), default=0)
    used = [point for point in points if total * skipped < point[0] < total]
    if len({done for done, _ in used}) < 3:
        return None
    return statistics.linear_regression(*zip(*used, strict=True)).slope


def _figures(record: dict) -> list[Figure]:
    columns, tasks = record["course"]["columns"], record["dag_run"]
    rows = [dict(zip(columns, row, strict=True)) for row in record["course"]["rows"]]
    when = f"{tasks['tasks']} tasks"
    found = []
    for what, column in (("worker's USS", "USS of all workers"), ("scheduler's USS", "USS of the scheduler")):
        for unit, skipped in (("kB per task", _SKIPPED), ("kB per task, second half", 0.5)):
            growth = slope([(row["tasks done"], row[column]) for row in rows], skipped)
            value = None if growth is None else growth / 1000
            found.append(Figure(when, what, unit, value, tolerance=0.5, digits=2))
    last = rows[-1]
    each = last["USS of all workers"] / last["workers"] if last["workers"] else None
    return [
        *found,
        mib(when, "worker's USS", "at the end", each),
        mib(when, "scheduler's USS", "at the end", last["USS of the scheduler"]),
        succeeded(when, tasks),
    ]


BENCHMARK = Benchmark(
    name="growth",
    help="growth of the workers of a full Airflow per task",
    options=(
        Option("tasks", 2000, "tasks that do next to nothing", least=20),
        Option("parallelism", 4, "slots of the executor"),
    ),
    measure=_measure,
    figures=_figures,
    panels=(("worker's USS", "kB per task"), ("scheduler's USS", "kB per task")),
    deploys=True,
)
