# SPDX-License-Identifier: Apache-2.0
"""``bench gc``: what the collector costs the scheduler that forks workers, and the workers."""

from __future__ import annotations

import json
import statistics

from patchsetlib.measure.figures import Figure, mib, milliseconds
from patchsetlib.measure.runner import Benchmark, Option, Run


def _measure(run: Run) -> dict:
    objects, workers = int(run.case), run.options["workers"]
    # Of the part that can get stuck: many times what it needs.
    timeout = 60 + objects / 25_000
    given = {"objects": objects, "workers": workers, "cycles": run.options["cycles"], "timeout": timeout}
    found = run.probe("collector.py", json.dumps(given), timeout=timeout + 180 + objects / 10_000)
    return found | {"workers": workers}


def _figures(record: dict) -> list[Figure]:
    when, done = f"{int(record['case']) / 1e6:g} million objects", not record["stuck"]
    found = [
        milliseconds(
            when, "scheduler", "gc.freeze and gc.unfreeze, longest, CPU", max(record["freeze_cycle"]), 3
        ),
        milliseconds(when, "scheduler", "one fork, median", statistics.median(record["fork"])),
        milliseconds(when, "scheduler", "full collection, CPU", statistics.median(record["collection"])),
        Figure(when, "executor", "stuck", int(not done), tolerance=0, digits=0),
    ]
    if done:
        pool = f"start of {record['workers']} workers, all calls"
        collection, private = (
            statistics.median(record[f"worker_{name}"]) for name in ("collection", "private")
        )
        found += [
            milliseconds(when, "scheduler", pool, record["held_total"]),
            milliseconds(when, "worker", "full collection, CPU", collection, 2),
            mib(when, "worker", "made private by a full collection", private),
        ]
    return found


BENCHMARK = Benchmark(
    name="gc",
    help="cost of freezing, forking and collecting, by the number of objects in the scheduler",
    options=(
        Option("objects", [100_000, 1_000_000, 5_000_000], "objects beside those of Airflow"),
        Option("workers", 4, "of the pool"),
        Option("cycles", 30, "of freeze and unfreeze"),
    ),
    cases=lambda options: [str(objects) for objects in options["objects"]],
    measure=_measure,
    figures=_figures,
    panels=(
        ("worker", "made private by a full collection, MiB"),
        ("worker", "full collection, CPU, ms"),
    ),
)
