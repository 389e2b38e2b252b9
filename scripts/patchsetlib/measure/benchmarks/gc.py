# SPDX-License-Identifier: Apache-2.0
"""``bench gc``: what the collector costs the scheduler that forks workers, and the workers."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from patchsetlib.measure import report
from patchsetlib.measure.benchmarks import driver as benchdriver
from patchsetlib.measure.benchmarks.subjects import Subject
from patchsetlib.measure.report import MIB, Figure
from patchsetlib.shell.errors import UsageError

HELP = "cost of freezing, forking and collecting, by the number of objects in the scheduler"

_CYCLE = "freeze cycle without forks, median, CPU ms"
_LONGEST = "freeze cycle without forks, longest, CPU ms"
_PRIVATE = "made private by a full collection, MiB"
_WORKER = "full collection, CPU ms"
PANELS = [("worker", _PRIVATE), ("worker", _WORKER), ("scheduler", _LONGEST)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--objects",
        default="100000,1000000,5000000",
        metavar="N,N,...",
        help="objects beside those of Airflow (default: 100000,1000000,5000000)",
    )
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="default: 4")
    parser.add_argument("--cycles", type=int, default=30, metavar="N", help="default: 30")


def options(args: argparse.Namespace) -> dict:
    try:
        objects = [int(part) for part in args.objects.split(",")]
    except ValueError:
        objects = []
    if not objects or min(objects) < 1:
        raise UsageError(f"--objects {args.objects}: not numbers with commas between them")
    if args.workers < 1 or args.cycles < 1:
        raise UsageError("--workers and --cycles must be at least 1")
    return {"objects": objects, "workers": args.workers, "cycles": args.cycles}


@contextmanager
def runner(
    subjects: Sequence[Subject], options: dict, directory: Path
) -> Iterator[Callable[[Subject, Path], dict]]:
    def one(subject: Subject, home: Path) -> dict:
        found = {}
        for objects in options["objects"]:
            how = {"objects": objects, "workers": options["workers"], "cycles": options["cycles"]}
            # Of the part that can get stuck: many times what it needs.
            how["timeout"] = 60 + objects / 25_000
            found[str(objects)] = benchdriver.drive(
                subject.label,
                subject.python,
                home / str(objects),
                "collector.py",
                json.dumps(how),
                timeout=how["timeout"] + 180 + objects / 10_000,
            )
        return {"objects": found, "workers": options["workers"]}

    yield one


def figures(record: dict) -> list[Figure]:
    rows: list[Figure] = []
    for objects, found in record["objects"].items():
        when = f"{int(objects) / 1e6:g} million objects"

        def time(what: str, unit: str, seconds: float | None, digits: int = 1, when: str = when) -> None:
            value = None if seconds is None else seconds * 1000
            rows.append(Figure(when, what, unit, (value,), tolerance=report.TIME_TOLERANCE, digits=digits))

        own = found["own_cycle"]
        time("scheduler", _CYCLE, statistics.median(own) if own else None, 3)
        time("scheduler", _LONGEST, max(own) if own else None)
        time("scheduler", "gc.freeze and gc.unfreeze alone, longest, CPU ms", max(found["plain_cycle"]), 3)
        time("scheduler", "one fork, median, ms", statistics.median(found["fork"]))
        pool = f"start of {record['workers']} workers, all calls, ms"
        done = not found["stuck"]
        time("scheduler", pool, found["held_total"] if done else None)
        time("scheduler", "full collection before, CPU ms", statistics.median(found["collection_before"]))
        time("scheduler", "full collection after, CPU ms", statistics.median(found["collection_after"]))
        time("worker", _WORKER, statistics.median(found["worker_collection"]) if done else None, 2)
        private = statistics.median(found["worker_private"]) / MIB if done else None
        rows.append(Figure(when, "executor", "stuck", (int(not done),), tolerance=0, digits=0))
        rows.append(Figure(when, "worker", _PRIVATE, (private,)))
    return rows
