# SPDX-License-Identifier: Apache-2.0
"""``bench throughput``: tasks per minute through the real scheduler, with tasks that do next to nothing."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from patchsetlib.measure import report
from patchsetlib.measure.benchmarks import airflow as benchairflow
from patchsetlib.measure.benchmarks.memory import add_deployment
from patchsetlib.measure.benchmarks.subjects import Subject
from patchsetlib.measure.report import Figure
from patchsetlib.measure.workload import Workload
from patchsetlib.shell.errors import UsageError

HELP = "tasks per minute through a full Airflow"

_RATE = "per minute"
PANELS = [("tasks", _RATE)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tasks", type=int, default=300, metavar="N", help="default: 300")
    parser.add_argument(
        "--parallelism", default="4,16", metavar="N,N,...", help="slots, one run for each (default: 4,16)"
    )
    add_deployment(parser)


def options(args: argparse.Namespace) -> dict:
    try:
        parallelism = [int(part) for part in args.parallelism.split(",")]
    except ValueError:
        parallelism = []
    if not parallelism or min(parallelism) < 1:
        raise UsageError(f"--parallelism {args.parallelism}: not numbers with commas between them")
    if args.tasks < 1:
        raise UsageError("--tasks must be at least 1")
    return {"tasks": args.tasks, "parallelism": parallelism, "database": args.database}


def variant(args: argparse.Namespace) -> list[str]:
    return [args.database] if args.database != "sqlite" else []


@contextmanager
def runner(
    subjects: Sequence[Subject], options: dict, directory: Path
) -> Iterator[Callable[[Subject, Path], dict]]:
    with benchairflow.deployments(subjects, options["database"], directory) as deployments:

        def one(subject: Subject, home: Path) -> dict:
            found = {}
            for slots in options["parallelism"]:
                load = Workload(tasks=options["tasks"], seconds=0, parallelism=slots)
                place = home.with_name(f"{home.name}-{slots}")
                # Rarely, since it takes time from the tasks.
                record = deployments.measure(subject, place, load, interval=10)
                found[str(slots)] = {name: record[name] for name in ("events", "dag_run", "tasks", "config")}
            return {"slots": found}

        yield one


def figures(record: dict) -> list[Figure]:
    rows: list[Figure] = []
    for slots, found in record["slots"].items():
        when, run = f"{slots} slots", found["dag_run"]
        rows.append(
            Figure(
                when, "tasks", _RATE, (60 * run["tasks"] / run["seconds"],), "more", report.TIME_TOLERANCE, 0
            )
        )
        rows.append(
            Figure(when, "tasks", f"succeeded of {run['tasks']}", (run["succeeded"],), "more", 0.0, 0)
        )
        waits = [start - queued for queued, start, _ in found["tasks"] if start and queued]
        wait = statistics.median(waits) if waits else None
        rows.append(Figure(when, "queued to started", "median, s", (wait,), tolerance=report.TIME_TOLERANCE))
    return rows
