# SPDX-License-Identifier: Apache-2.0
"""
Runs fault scenarios on an installed Airflow, which may be stock, patched or a later release.

By hand::

    PYTHONPATH=scripts python tests/faults/driver.py --python PATH [--source DIR] SCENARIO...

What runs inside that Airflow's interpreter is in ``inside/``. It uses nothing but the public interface of
the executor, so the same scenarios run on any of them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from patchsetlib.installs import environment
from patchsetlib.shell import processes

HERE = Path(__file__).resolve().parent
SCENARIOS = (
    "idle_killed",
    "busy_killed",
    "storm",
    "scheduler_killed",
    "overload",
    "results",
    "fork_refused",
    "signals",
    "endings",
    "leaks",
    "locks",
)
# Workers have to log something where it is the point that they can.
LOG_LEVELS = {"locks": "INFO"}
# Seconds; each trial has limits of its own, and those of a scenario that hangs everywhere fit into this.
TIME_LIMIT = 400.0


def run(
    scenario: str,
    interpreter: Path,
    *,
    source: Path | None = None,
    start_method: str = "fork",
    patience: float = 10.0,
    log: Path | None = None,
    started: Callable[[int], None] = lambda pid: None,
    **parameters: Any,
) -> dict[str, Any]:
    """
    Run one scenario and return its result.

    :param interpreter: the Python of an environment that has Airflow
    :param source: a directory with ``airflow-core/src``, or that itself, used instead of the installed one
    :param patience: seconds without progress after which a workload is called lost
    :param log: file for what Airflow says
    :param started: is told the process id of the scenario; killing it ends the scenario and all of its
        processes
    :raises RuntimeError: if the scenario ends without a result, with what it said last
    :raises subprocess.TimeoutExpired: if none of its own limits has worked
    """
    command = [interpreter, "-m", "inside.main", scenario, "--start-method", start_method]
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as home:
        env = environment.variables(interpreter) | {
            "AIRFLOW_HOME": home,
            "AIRFLOW__API_AUTH__JWT_SECRET": "faults",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": LOG_LEVELS.get(scenario, "WARNING"),
            "PYTHONPATH": os.pathsep.join(map(str, [*([_sources(source)] if source else []), HERE])),
            "PYTHONUNBUFFERED": "1",
        }
        command += ["--patience", str(patience), "--parameters", json.dumps(parameters)]
        out = Path(home) / "result.json"
        log = log or Path(home) / "log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with (
            out.open("wb") as stdout,
            log.open("wb") as stderr,
            processes.Guarded.start(command, env=env, stdout=stdout, stderr=stderr) as process,
        ):
            started(process.pid)
            returncode = process.wait(TIME_LIMIT)
        said = out.read_text(encoding="utf-8")
        if returncode != 0 or not said:
            last = log.read_text(encoding="utf-8", errors="replace")[-5000:]
            raise RuntimeError(f"{scenario} ended with {returncode}:\n{last}")
    return json.loads(said)


def _sources(source: Path) -> Path:
    """Return the directory with the airflow package below ``source``, absolute."""
    nested = source / "airflow-core" / "src"
    return (nested if nested.is_dir() else source).resolve()


COLUMNS = ("trials", "kills", "offered", "lost", "reported_twice", "left", "longest_call_ms")


def table(cases: Iterable[tuple[str, dict[str, Any]]]) -> Table:
    """Return the table of ``cases``: pairs of a variant and a result."""
    shown = Table(title="LocalExecutor under faults")
    for name in ("scenario", "variant", *COLUMNS, "raises", "hung in"):
        shown.add_column(name.replace("_", " "), justify="right" if name in COLUMNS else "left")
    for variant, case in cases:
        style = "red" if case["problems"] else "green"
        numbers = [f"{case[name]:.0f}" for name in COLUMNS]
        raises = str(len(case["raised"]) or "")
        shown.add_row(case["case"], variant, *numbers, raises, ", ".join(case["hung"]), style=style)
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description="Run fault scenarios on an installed Airflow.")
    parser.add_argument("scenarios", nargs="+", metavar="SCENARIO", choices=[*SCENARIOS, "all"])
    parser.add_argument("--python", type=Path, required=True, help="interpreter with Airflow")
    parser.add_argument("--source", type=Path, help="directory with airflow-core/src, put first on its path")
    parser.add_argument("--start-method", default="fork", choices=["fork", "forkserver", "spawn"])
    parser.add_argument("--patience", type=float, help="seconds until work counts as lost")
    parser.add_argument("--log", type=Path, default=Path(tempfile.gettempdir()) / "faults.log")
    parser.add_argument("--parameters", type=json.loads, default={}, help="e.g. '{\"parallelism\": 8}'")
    args = parser.parse_args()
    console = Console(stderr=True, width=180)
    # A worker that is not forked imports Airflow before it works.
    patience = args.patience or (10.0 if args.start_method == "fork" else 60.0)
    failed = False
    for scenario in SCENARIOS if "all" in args.scenarios else args.scenarios:
        result = run(
            scenario,
            args.python,
            source=args.source,
            start_method=args.start_method,
            patience=patience,
            log=args.log,
            **args.parameters,
        )
        print(json.dumps(result), flush=True)
        console.print(table((result["airflow"], case) for case in result["cases"]))
        for case in result["cases"]:
            problems = case["problems"] + [f"the driver is broken: {text}" for text in case["broken"]]
            failed |= bool(problems)
            for problem in problems:
                console.print(f"{case['case']}: {problem}", markup=False, highlight=False)
    console.print(f"log: {args.log}; source: {result['source']}", highlight=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
