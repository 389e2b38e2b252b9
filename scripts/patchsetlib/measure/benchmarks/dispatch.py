# SPDX-License-Identifier: Apache-2.0
"""``bench dispatch``: the executor alone, with workloads that do nothing."""

from __future__ import annotations

import json
import statistics

from patchsetlib.measure.figures import TIME_TOLERANCE, Figure, milliseconds, quantile
from patchsetlib.measure.runner import Benchmark, Option, Run

CASES = {
    "paced": "{parallelism} slots, never more under way",
    "burst": "{parallelism} slots, all offered at once",
    "start": "start of {workers} workers",
    "first": "one new worker",
}
"""The cases of ``scripts/probes/dispatch.py``, and what to call them."""
# Of the times from offer to start, in the raw data.
_QUANTILES = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)


def _measure(run: Run) -> dict:
    options = run.options
    # Seconds: many times what an executor that works takes.
    names, timeout = {
        "paced": (("workloads", "parallelism"), 30 + options["workloads"] / 20),
        "burst": (("workloads", "parallelism"), 30 + options["workloads"] / 20),
        "start": (("workers",), 60 + options["workers"]),
        "first": (("times",), 60 + 10 * options["times"]),
    }[run.case]
    given = {name: options[name] for name in names} | {"timeout": timeout}
    found = run.probe("dispatch.py", run.case, json.dumps(given), timeout=timeout + 60)
    if (waits := found.get("offer_to_start")) is not None:
        found["offer_to_start"] = {f"{q:g}": quantile(waits, q) for q in _QUANTILES}
    return found | {"when": CASES[run.case].format(**options)}


def _figures(record: dict) -> list[Figure]:
    when, case, done = record["when"], record["case"], not record["stuck"]
    waits = record.get("offer_to_start", {})

    # A stuck executor is a result, too.
    lost = record.get("workloads", 0) - record.get("succeeded", 0) or int(not done)
    found = [Figure(when, "executor", "lost or stuck", lost, tolerance=0, digits=0)]
    if case in ("paced", "burst"):
        rate = record["workloads"] / record["seconds"] if done else None
        found.append(Figure(when, "executor", "workloads per second", rate, "more", TIME_TOLERANCE, 0))
    if case == "paced":
        found.append(milliseconds(when, "offer to start", "p50", waits.get("0.5"), 2))
        found.append(milliseconds(when, "offer to start", "p99", waits.get("0.99"), 2))
    if case == "start":
        everyone = record["all_running"] if done else None
        found.append(milliseconds(when, "executor", "until all workers run a task", everyone, 2))
    if case == "first":
        found.append(milliseconds(when, "first task", "median", waits.get("0.5"), 2))
        starts = statistics.median(record["start_calls"]) if done else None
        found.append(milliseconds(when, "executor", "start(), median", starts, 2))
    # Of a stuck one that is how long it was waited for, which only says: at least.
    found.append(milliseconds(when, "executor", "longest call", record.get("held_longest"), 2))
    return found


BENCHMARK = Benchmark(
    name="dispatch",
    help="the executor alone, with workloads that do nothing: rate, latency, longest call",
    options=(
        Option("workloads", 2000, "in each of two cases"),
        Option("parallelism", 8, "slots of the executor"),
        Option("workers", 32, "of the pool whose start is timed"),
        Option("times", 5, "new workers that get a first task"),
    ),
    cases=lambda options: list(CASES),
    measure=_measure,
    figures=_figures,
    panels=(
        ("executor", "workloads per second"),
        ("executor", "longest call, ms"),
        ("offer to start", "p99, ms"),
        ("first task", "median, ms"),
    ),
)
