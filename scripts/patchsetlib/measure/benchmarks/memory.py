# SPDX-License-Identifier: Apache-2.0
"""``bench memory``: USS and PSS per role of a full Airflow: idle, at the peak, after the tasks, and later."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from patchsetlib.measure import memory, report
from patchsetlib.measure.benchmarks import airflow as benchairflow
from patchsetlib.measure.benchmarks.subjects import Subject
from patchsetlib.measure.memory import Sample
from patchsetlib.measure.report import Figure
from patchsetlib.measure.workload import Workload
from patchsetlib.shell.errors import UsageError

HELP = "memory of a full Airflow by role: idle, at the peak, after the tasks, and later"
PANELS = [("workers", report.USS_EACH), ("whole tree", report.PSS_TOTAL)]

_ROLES = ("scheduler", "serve-logs", "snapshot", "workers", "task", "other")
_ALWAYS = ("scheduler", "serve-logs", "workers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--parallelism", type=int, default=16, metavar="N", help="slots of the executor (default: 16)"
    )
    parser.add_argument(
        "--tasks-per-worker", type=int, default=6, metavar="K", help="tasks for each slot (default: 6)"
    )
    parser.add_argument(
        "--concurrency", type=int, default=0, metavar="N", help="tasks at a time (default: one for each slot)"
    )
    parser.add_argument(
        "--seconds", type=float, default=2.0, metavar="S", help="seconds that each task waits (default: 2)"
    )
    parser.add_argument(
        "--settle", type=float, default=60.0, metavar="S", help="when to look again, in seconds (default: 60)"
    )
    add_deployment(parser)


def add_deployment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--database", choices=benchairflow.DATABASES, default="sqlite", help="default: sqlite"
    )
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="[LABEL=]SECTION.OPTION=VALUE",
        help="measure patched with this configuration as well; repeatable",
    )


def options(args: argparse.Namespace) -> dict:
    if args.parallelism < 1 or args.tasks_per_worker < 1:
        raise UsageError("--parallelism and --tasks-per-worker must be at least 1")
    if not 0 <= args.concurrency <= args.parallelism:
        raise UsageError("--concurrency must be between 0 and --parallelism")
    if not (0 <= args.seconds < 3600 and 0 <= args.settle < 3600):
        raise UsageError("--seconds and --settle must be between 0 and 3600")
    names = ("parallelism", "tasks_per_worker", "concurrency", "seconds", "settle", "database")
    return {name: getattr(args, name) for name in names}


def variant(args: argparse.Namespace) -> list[str]:
    """Return what the names of the result's files say."""
    named = [f"concurrency-{args.concurrency}"] if args.concurrency else []
    return named + ([args.database] if args.database != "sqlite" else [])


@contextmanager
def runner(
    subjects: Sequence[Subject], options: dict, directory: Path
) -> Iterator[Callable[[Subject, Path], dict]]:
    load = Workload(
        tasks=options["parallelism"] * options["tasks_per_worker"],
        seconds=options["seconds"],
        parallelism=options["parallelism"],
        concurrency=options["concurrency"],
    )
    with benchairflow.deployments(subjects, options["database"], directory) as deployments:

        def one(subject: Subject, home: Path) -> dict:
            record = deployments.measure(subject, home, load, later=[options["settle"]])
            return condense(record, options["settle"])

        yield one


def condense(record: dict, settle: float) -> dict:
    """
    Return a record of ``workload.measure`` with the moments of the table, and in little space.

    All processes are kept of the moments, and of all other samples the totals that a chart needs.
    """
    samples = [Sample.from_json(sample) for sample in record["samples"]]
    end = record["events"]["finished"]
    idle, rest = (record["snapshots"][name]["time"] for name in ("idle", f"after {settle:g} s"))
    # At once: not when it is at rest, since workers may be replaced until then.
    free = [s for s in samples if s.time >= end and not s.count(memory.TASK, memory.WORKER_BUSY)]
    most = max(sample.count(memory.WORKER_BUSY) for sample in samples)
    full = [sample for sample in samples if sample.count(memory.WORKER_BUSY) == most]
    moments = {
        "before any task": min(samples, key=lambda sample: abs(sample.time - idle)),
        "at the peak": max(full, key=lambda sample: sample.total("pss")),
        "at once after": free[0] if free else samples[-1],
        f"{settle:g} s after": min(samples, key=lambda sample: abs(sample.time - rest)),
    }
    kept = ("events", "cpu", "dag_run", "sampling", "config")
    return {name: record[name] for name in kept} | {
        "moments": {name: sample.as_json() for name, sample in moments.items()},
        "course": {
            "columns": ["seconds", "PSS of the tree", "USS of all workers", "processes", "busy workers"],
            "rows": [
                [
                    round(sample.time, 1),
                    sample.total("pss"),
                    sample.total("uss", *memory.WORKERS),
                    sample.count(),
                    sample.count(memory.WORKER_BUSY),
                ]
                for sample in samples
            ],
        },
    }


def figures(record: dict) -> list[Figure]:
    found: list[Figure] = []
    for when, moment in record["moments"].items():
        sample = Sample.from_json(moment)
        roles = memory.tree_summary(sample)
        for role in _ROLES:
            if role in _ALWAYS or roles[role]["count"]:
                found += report.role_figures(when, role, [roles[role]], brief=True)
        if busy := sample.count(memory.WORKER_BUSY):
            found.append(Figure(when, "workers", "busy", (busy,), None, digits=0))
        found += report.tree_figures(when, [roles])
    # Not in the records of earlier versions.
    if cpu := record.get("cpu"):
        spans = {
            "during the tasks, s": ("triggered", "finished"),
            "from then to the end, s": ("finished", "end"),
        }
        for unit, (start, end) in spans.items():
            spent = (cpu[end] - cpu[start],)
            found.append(Figure("run", "CPU of the tree", unit, spent, tolerance=report.TIME_TOLERANCE))
    return found + report.run_figures([record])
