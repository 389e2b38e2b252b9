# SPDX-License-Identifier: Apache-2.0
"""
Runs scenarios on the Airflow of this interpreter, and prints the result of each as a line of JSON.

Workers that are not forked import this as ``__mp_main__``: they need the tasks too.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import select
import sys
import tempfile
from pathlib import Path
from typing import Any

from inside import registry, tasks, warden

if __name__ == "__mp_main__":
    tasks.install(os.environ[tasks.BOARD_VARIABLE])


def main() -> int:
    scenarios = registry.load()
    parser = argparse.ArgumentParser(description="Run fault scenarios on the Airflow of this interpreter.")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*scenarios, []], help="default: all")
    parser.add_argument("--list", action="store_true", help="print the names of all scenarios")
    parser.add_argument("--jobs", type=int, default=1, help="number of scenarios side by side")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds until work counts as lost")
    parser.add_argument("--directory", type=Path, help="for logs (default: a temporary one)")
    args = parser.parse_args()
    if args.list:
        print("\n".join(scenarios))
        return 0
    # Only results go to stdout: Airflow and the workers write there as well.
    stdout = os.dup(1)
    os.set_inheritable(stdout, False)
    os.dup2(2, 1)
    warm_up()
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        directory = args.directory or Path(temporary)
        names = args.names or scenarios
        settings = {"directory": directory.absolute(), "patience": args.patience}
        good = run([scenarios[name] for name in names], args.jobs, stdout, **settings)
    return 0 if good else 1


def warm_up() -> None:
    """
    Do what each scenario would repeat: imports, what the first heartbeat loads, what is done before forks.

    All is then frozen, as in a scheduler that has started.
    """
    from airflow.executors.base_executor import BaseExecutor
    from airflow.executors.local_executor import LocalExecutor

    importlib.import_module("airflow.sdk.execution_time.supervisor")
    BaseExecutor(parallelism=1).heartbeat()
    if hasattr(LocalExecutor, "warm_up"):
        LocalExecutor(parallelism=1).warm_up()
    gc.collect()
    gc.freeze()


def run(waiting: list[registry.Scenario], jobs: int, stdout: int, **settings: Any) -> bool:
    """Run scenarios, ``jobs`` side by side, and return whether none has a problem."""
    running: dict[int, tuple[registry.Scenario, int]] = {}
    good = True
    while waiting or running:
        while waiting and len(running) < jobs:
            scenario = waiting.pop(0)
            pid, fd = warden.start(scenario, **settings)
            running[fd] = scenario, pid
        for fd in select.select(list(running), [], [])[0]:
            scenario, pid = running.pop(fd)
            with open(fd, "rb") as file:
                said = file.read()
            os.waitpid(pid, 0)
            result = json.loads(said or b"{}") or {"scenario": scenario.name, "broken": "no result"}
            good = good and not result.get("problems") and not result.get("broken")
            os.write(stdout, (json.dumps(result) + "\n").encode())
    return good


if __name__ == "__main__":
    sys.exit(main())
