# SPDX-License-Identifier: Apache-2.0
"""
Runs one scenario on the Airflow of this interpreter and prints the result as JSON; see ``../driver.py``.

Also imported, as ``__mp_main__``, by workers that are not forked: they need the tasks of the trials too.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import sys
import tempfile
from importlib.metadata import version

from inside import tasks

# Scenario: the module and function that run it.
SCENARIOS = {
    "idle_killed": "kills",
    "busy_killed": "kills",
    "storm": "storm",
    "scheduler_killed": "scheduler",
    "overload": "load",
    "results": "results",
    "fork_refused": "forks",
    "signals": "signals",
    "endings": "signals",
    "leaks": "leaks",
    "locks": "locks",
}
CAPACITY = 20_000

if __name__ == "__mp_main__":
    tasks.install(os.environ[tasks.BOARD_VARIABLE])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--start-method", default="fork")
    parser.add_argument("--patience", type=float, default=10.0)
    parser.add_argument("--parameters", type=json.loads, default={})
    args = parser.parse_args()
    # The result alone goes to stdout: Airflow and the workers write there as well.
    result = os.dup(1)
    os.dup2(2, 1)
    multiprocessing.set_start_method(args.start_method)

    from inside.board import Board
    from inside.trial import Runner, become_subreaper

    become_subreaper()
    with tempfile.TemporaryDirectory() as directory:
        path = os.environ[tasks.BOARD_VARIABLE] = os.path.join(directory, "board")
        board = Board(path, CAPACITY)
        tasks.install(path)
        import airflow.executors.local_executor as module

        function = getattr(importlib.import_module(f"inside.{SCENARIOS[args.scenario]}"), args.scenario)
        cases = function(Runner(board, args.patience), **args.parameters)
    report = {
        "scenario": args.scenario,
        "airflow": version("apache-airflow-core"),
        "source": module.__file__,
        "python": platform.python_version(),
        "start_method": args.start_method,
        "parameters": args.parameters,
        "cases": cases,
    }
    os.write(result, (json.dumps(report) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
