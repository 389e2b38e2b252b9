# SPDX-License-Identifier: Apache-2.0
"""``bench dispatch``: the executor alone, with workloads that do nothing."""

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
from patchsetlib.measure.report import Figure
from patchsetlib.shell.errors import UsageError

HELP = "the executor alone, with workloads that do nothing: rate, latency, how long the scheduler is held up"

_RATE = "workloads per second"
_HELD = "longest call, ms"
PANELS = [
    ("executor", _RATE),
    ("executor", _HELD),
    ("offer to start", "p99, ms"),
    ("first task", "median, ms"),
]
# Of the times from offer to start, in the raw data.
QUANTILES = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workloads", type=int, default=2000, metavar="N", help="in each of two cases (default: 2000)"
    )
    parser.add_argument("--parallelism", type=int, default=8, metavar="N", help="slots (default: 8)")
    parser.add_argument(
        "--workers", type=int, default=32, metavar="N", help="of the pool whose start is timed (default: 32)"
    )
    parser.add_argument(
        "--times", type=int, default=5, metavar="N", help="new workers that get a first task (default: 5)"
    )


def options(args: argparse.Namespace) -> dict:
    found = {name: getattr(args, name) for name in ("workloads", "parallelism", "workers", "times")}
    for name, value in found.items():
        if value < 1:
            raise UsageError(f"--{name} must be at least 1")
    return found


def cases(options: dict) -> dict[str, dict]:
    """Return the cases of ``scripts/probes/dispatch.py`` with their options."""
    load = {"workloads": options["workloads"], "parallelism": options["parallelism"]}
    # A stuck executor is a result, so each case has a time in which any that works is done.
    long = {"timeout": 30 + options["workloads"] / 20}
    return {
        "paced": load | long,
        "burst": load | long,
        "start": {"workers": options["workers"], "timeout": 60 + options["workers"]},
        "first": {"times": options["times"], "timeout": 60 + 10 * options["times"]},
    }


@contextmanager
def runner(
    subjects: Sequence[Subject], options: dict, directory: Path
) -> Iterator[Callable[[Subject, Path], dict]]:
    def one(subject: Subject, home: Path) -> dict:
        found = {}
        for case, how in cases(options).items():
            found[case] = benchdriver.drive(
                subject.label,
                subject.python,
                home / case,
                "dispatch.py",
                case,
                json.dumps(how),
                timeout=how["timeout"] + 60,
            )
            _condense(found[case])
        return {"cases": found, "slots": options["parallelism"], "workers": options["workers"]}

    yield one


def _condense(case: dict) -> None:
    if (waits := case.get("offer_to_start")) is not None:
        case["offer_to_start"] = {f"{q:g}": quantile(waits, q) for q in QUANTILES} if waits else {}


def quantile(ordered: Sequence[float], q: float) -> float:
    """Return the value below which the part ``q`` of the ordered values lies, by nearest rank."""
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def figures(record: dict) -> list[Figure]:
    cases = record["cases"]
    rows: list[Figure] = []
    names = {
        "paced": f"{record['slots']} slots, never more under way",
        "burst": f"{record['slots']} slots, all offered at once",
        "start": f"start of {record['workers']} workers",
        "first": "one new worker",
    }
    for key, when in names.items():
        case = cases[key]
        lost = case.get("workloads", 0) - case.get("succeeded", 0)
        rows.append(
            Figure(when, "executor", "lost or stuck", (lost or int(case["stuck"]),), tolerance=0, digits=0)
        )

        def time(what: str, unit: str, seconds: float | None, when: str = when) -> None:
            value = None if seconds is None else seconds * 1000
            rows.append(Figure(when, what, unit, (value,), tolerance=report.TIME_TOLERANCE, digits=2))

        done = not case["stuck"]
        if key in ("paced", "burst"):
            rate = case["workloads"] / case["seconds"] if done else None
            rows.append(Figure(when, "executor", _RATE, (rate,), "more", report.TIME_TOLERANCE, 0))
        if key == "paced":
            # One that is stuck inside a call has none.
            waits = case.get("offer_to_start", {})
            time("offer to start", "p50, ms", waits.get("0.5"))
            time("offer to start", "p99, ms", waits.get("0.99"))
        if key == "start":
            time("executor", "until all workers run a task, ms", case["all_running"] if done else None)
        if key == "first":
            waits = case.get("offer_to_start", {})
            time("first task", "median, ms", waits.get("0.5"))
            time("executor", "start(), median, ms", statistics.median(case["start_calls"]) if done else None)
        # Of a stuck one that is how long it was waited for, which only says: at least.
        time("executor", _HELD, case.get("held_longest"))
    return rows
