# SPDX-License-Identifier: Apache-2.0
"""``bench imports``: memory of the scheduler before any work, by package, and of a worker's first steps."""

from __future__ import annotations

from patchsetlib.measure.figures import MIB, Figure, mib
from patchsetlib.measure.runner import Benchmark, Option, Run

_BEFORE, _WORKER = "scheduler, before any work", "worker, before its first task"


def _measure(run: Run) -> dict:
    return run.probe("imports.py", timeout=120) | {"least": run.options["least"]}


def _figures(record: dict) -> list[Figure]:
    scheduler = record["scheduler"]
    found = [
        mib(_BEFORE, "all", "RSS", scheduler["rss"]),
        Figure(_BEFORE, "all", "modules", scheduler["modules"], digits=0),
        Figure(_BEFORE, "all", "objects of the collector", scheduler["objects"], digits=0),
    ]
    for package, (size, _, _) in scheduler["packages"].items():
        if size >= record["least"] * 1000:
            # Not judged: one that is missing may just be below the limit.
            found.append(Figure(_BEFORE, package, "RSS, MiB", size / MIB, None))
    return found + [mib(_WORKER, step, "USS", size) for step, size in record["first_task"].items()]


BENCHMARK = Benchmark(
    name="imports",
    help="memory of the scheduler before any work, by package, and of a worker's first steps",
    options=(Option("least", 1000, "kB of RSS that a package takes to be listed", least=0),),
    measure=_measure,
    figures=_figures,
    panels=(),
)
