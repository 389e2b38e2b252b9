# SPDX-License-Identifier: Apache-2.0
"""``demo``: a real Airflow runs a real Dag, stock and patched, and their memory stands side by side."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

from patchsetlib.installs import environment
from patchsetlib.measure import report
from patchsetlib.measure.workload import DAGS, Workload, measure, migrate
from patchsetlib.patches import base as bases
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError, UsageError
from patchsetlib.shell.paths import display, new_directory, work_dir

HELP = "run a real Dag on a real Airflow, stock and patched, and compare their memory"
DEFAULT_BASE = "3.1.3"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "base", nargs="?", default=DEFAULT_BASE, metavar="BASE", help=f"default: {DEFAULT_BASE}"
    )
    parser.add_argument("--tasks", type=int, default=96, metavar="N", help="mapped tasks (default: 96)")
    parser.add_argument(
        "--parallelism", type=int, default=16, metavar="N", help="slots of the executor (default: 16)"
    )
    parser.add_argument(
        "--seconds", type=float, default=2.0, metavar="S", help="seconds that each task waits (default: 2)"
    )
    parser.add_argument("--python", metavar="X.Y", help="Python version (default: the base's)")


def run(args: argparse.Namespace) -> int:
    if sys.platform != "linux":
        raise PatchsetError("PSS can only be measured on Linux", "run demo there, or in a Linux container")
    if args.tasks < 1 or args.parallelism < 1 or not 0 <= args.seconds < 3600:
        raise UsageError("--tasks and --parallelism must be at least 1, --seconds between 0 and 3600")
    base = bases.load(args.base)
    started = time.monotonic()
    pythons = {
        "stock": environment.python(base, patched=False, python_version=args.python),
        "patched": environment.python(base, patched=True, python_version=args.python),
    }
    workload = Workload(tasks=args.tasks, seconds=args.seconds, parallelism=args.parallelism)
    return compare(base.name, pythons, workload, new_directory(work_dir() / base.name / "demo"), started)


def compare(
    base: str,
    pythons: dict[str, Path],
    workload: Workload,
    directory: Path,
    started: float,
    dags: Path = DAGS,
) -> int:
    """
    Measure ``workload`` on each interpreter, the reference first, and report to stdout and ``directory``.

    :param started: value of ``time.monotonic()`` when all this began, for the time that is shown
    :return: 0 if all tasks succeeded everywhere, else 1
    """
    machine = report.describe_machine()
    runs: list[dict] = []
    # One for all: the patches do not touch the database, and a migration takes as long as ten tasks.
    migrated = migrate(next(iter(pythons.values())), directory / "migrated")
    for name, python in pythons.items():
        home = directory / name
        runs.append(measure(name, python, home, workload, migrated=migrated, dags=dags))
    names = list(pythons)
    rows = report.figures(runs)
    data, png, svg = (directory / f"demo.{suffix}" for suffix in ("json", "png", "svg"))
    report.write_json(
        data,
        {
            "base": base,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": machine,
            "repeats": 1,
            "order": names,
            "units": "memory in bytes, times in seconds; samples hold [pid, role, USS, PSS]",
            "runs": runs,
        },
    )
    title = f"Airflow {base}: {workload.tasks} tasks, LocalExecutor, parallelism {workload.parallelism}"
    report.chart(runs, title, [png, svg])
    print(report.render(names, rows, terminal=sys.stdout.isatty()), end="\n\n")
    for line in report.conclusions(names, rows):
        print(line)
    for line in report.caveats(runs):
        ui.warn(line)
    took = time.monotonic() - started
    ui.info(f"one run each, {took:.0f} s in all; logs and raw data in {display(directory)}")
    print()
    for path in (data, png, svg):
        print(display(path))
    return 0 if all(run["dag_run"]["succeeded"] == workload.tasks for run in runs) else 1
