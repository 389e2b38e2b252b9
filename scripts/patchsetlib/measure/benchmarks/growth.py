# SPDX-License-Identifier: Apache-2.0
"""``bench growth``: how much the workers of a full Airflow grow with each task."""

from __future__ import annotations

import argparse
import bisect
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from patchsetlib.measure import memory
from patchsetlib.measure.benchmarks import airflow as benchairflow
from patchsetlib.measure.benchmarks.memory import add_deployment
from patchsetlib.measure.benchmarks.subjects import Subject
from patchsetlib.measure.memory import Sample
from patchsetlib.measure.report import MIB, Figure
from patchsetlib.measure.workload import Workload
from patchsetlib.shell.errors import UsageError

HELP = "growth of the workers of a full Airflow per task"

_SLOPE = "kB per task"
_LATE_SLOPE = "kB per task, second half"
PANELS = [("worker's USS", _SLOPE), ("scheduler's USS", _SLOPE)]
# Tasks of one Dag run: so many that its beginning and end do not count, so few that it stays quick.
_RUN = 500
# The first tasks load what is needed once; growth is what comes after.
_SKIPPED = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tasks", type=int, default=2000, metavar="N", help="default: 2000")
    parser.add_argument("--parallelism", type=int, default=4, metavar="N", help="slots (default: 4)")
    add_deployment(parser)


def options(args: argparse.Namespace) -> dict:
    if args.tasks < 20 or args.parallelism < 1:
        raise UsageError("--tasks must be at least 20, and --parallelism at least 1")
    return {"tasks": args.tasks, "parallelism": args.parallelism, "database": args.database}


def variant(args: argparse.Namespace) -> list[str]:
    return [args.database] if args.database != "sqlite" else []


@contextmanager
def runner(
    subjects: Sequence[Subject], options: dict, directory: Path
) -> Iterator[Callable[[Subject, Path], dict]]:
    runs = max(1, round(options["tasks"] / _RUN))
    tasks = -(-options["tasks"] // runs)
    load = Workload(tasks=tasks, seconds=0, parallelism=options["parallelism"], runs=runs)
    with benchairflow.deployments(subjects, options["database"], directory) as deployments:

        def one(subject: Subject, home: Path) -> dict:
            return condense(deployments.measure(subject, home, load, interval=3))

        yield one


def condense(record: dict) -> dict:
    """Return a record of ``workload.measure`` as totals over the course of the tasks."""
    ends = sorted(end for _, _, end in record["tasks"] if end is not None)
    rows = []
    for data in record["samples"]:
        sample = Sample.from_json(data)
        done = bisect.bisect_right(ends, sample.time)
        uss = sample.total("uss", *memory.WORKERS)
        scheduler = sample.total("uss", memory.SCHEDULER)
        rows.append([round(sample.time, 1), done, sample.count(*memory.WORKERS), uss, scheduler])
    columns = ["seconds", "tasks done", "workers", "USS of all workers", "USS of the scheduler"]
    kept = {name: record[name] for name in ("events", "dag_run", "sampling", "config")}
    return kept | {"course": {"columns": columns, "rows": rows}}


def slope(rows: Sequence[Sequence[float]], column: int, skipped: float = _SKIPPED) -> float | None:
    """
    Return by how many bytes a column grows with each task, by least squares; None if there are too few rows.

    Of the workers that is the growth per task and worker: each task adds to the one worker that ran it. While
    a task runs, its process shares pages with the worker, which are not in the worker's USS then: the rows of
    a busy pool scatter by some MiB.

    :param skipped: share of the tasks before which the rows do not count
    """
    total = max((row[1] for row in rows), default=0)
    used = [row for row in rows if total * skipped < row[1] < total]
    if len({row[1] for row in used}) < 3:
        return None
    return statistics.linear_regression([row[1] for row in used], [row[column] for row in used]).slope


def figures(record: dict) -> list[Figure]:
    rows, run = record["course"]["rows"], record["dag_run"]
    when = f"{run['tasks']} tasks"
    found = []
    for what, column in (("worker's USS", 3), ("scheduler's USS", 4)):
        for unit, skipped in ((_SLOPE, _SKIPPED), (_LATE_SLOPE, 0.5)):
            value = slope(rows, column, skipped)
            shown = None if value is None else value / 1000
            found.append(Figure(when, what, unit, (shown,), tolerance=0.5, digits=2))
    last = rows[-1]
    each = last[3] / last[2] / MIB if last[2] else None
    found.append(Figure(when, "worker's USS", "at the end, MiB", (each,)))
    found.append(Figure(when, "scheduler's USS", "at the end, MiB", (last[4] / MIB,)))
    found.append(Figure(when, "tasks", f"succeeded of {run['tasks']}", (run["succeeded"],), "more", 0.0, 0))
    return found
