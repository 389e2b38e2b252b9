# SPDX-License-Identifier: Apache-2.0
"""
What the scheduler has in memory before any work, by package, and what the first steps of a worker add.

Runs inside the Airflow that is measured, on Linux: ``python imports.py``

The last line of stdout is a JSON object with memory in bytes. Of a fork it is USS: what it has for itself. Of
packages it is growth of RSS, within one process and never summed over several: USS would leave out libraries
that another process happens to have loaded as well. A shared dependency is charged to the first package that
imports it.
"""

from __future__ import annotations

import gc
import importlib.machinery
import json
import os
import sys
import tempfile
from collections import Counter

import psutil

SCHEDULER = "airflow.cli.commands.scheduler_command"


def uss() -> int:
    return psutil.Process().memory_full_info().uss


def rss() -> int:
    return psutil.Process().memory_info().rss


def package(name: str) -> str:
    """Return what a module is counted to: its top-level package, of Airflow's own one level more."""
    parts = name.split(".")
    return ".".join(parts[: 2 if parts[0] == "airflow" else 1])


class Accounts:
    """Attributes the growth of this process to the module being executed, without those that it imports."""

    def __init__(self):
        self.bytes: Counter[str] = Counter()
        self.modules: Counter[str] = Counter()
        self.importers: dict[str, str] = {}
        self._stack = ["python"]
        self._last = rss()

    def _book(self) -> None:
        now = rss()
        self.bytes[package(self._stack[-1])] += now - self._last
        self._last = now

    def watch(self) -> None:
        """Watch all imports from now on, of Python code and of extensions."""
        for loader in (importlib.machinery.SourceFileLoader, importlib.machinery.ExtensionFileLoader):
            loader.exec_module = self._watched(loader.exec_module)

    def _watched(self, original):
        def exec_module(loader, module):
            name = module.__spec__.name
            self._book()
            self.importers.setdefault(package(name), self._stack[-1])
            self._stack.append(name)
            try:
                original(loader, module)
            finally:
                self._book()
                self._stack.pop()
                self.modules[package(name)] += 1

        return exec_module


def by_package() -> dict:
    """Import what ``airflow scheduler`` does before any work; return its packages and totals."""
    accounts = Accounts()
    accounts.watch()
    importlib.import_module(SCHEDULER)
    from airflow.executors.executor_loader import ExecutorLoader

    ExecutorLoader.init_executors()
    return {
        "rss": rss(),
        "objects": len(gc.get_objects()),
        "modules": len(sys.modules),
        "columns": ["RSS", "modules", "first imported by"],
        "packages": {
            name: [size, accounts.modules[name], accounts.importers.get(name)]
            for name, size in accounts.bytes.most_common()
        },
    }


def first_task() -> dict:
    """Go through what a worker does before it can start its first task; return the USS after each step."""
    found = {"forked": uss()}

    from airflow.sdk.execution_time import supervisor

    found["supervisor imported"] = uss()
    client = supervisor.Client(base_url="http://localhost:1/execution/", token="x")
    found["API client with its SSL context made"] = uss()
    # Asks the API server for a connection only if logs go to some other place.
    supervisor._configure_logging("task.log", client)
    found["logging configured"] = uss()
    supervisor.ensure_secrets_backend_loaded()
    found["secrets backends loaded"] = uss()
    return found


def in_fork(function) -> dict:
    """Run ``function`` in a forked child, and return what it returns."""
    with tempfile.TemporaryFile("w+") as file:
        pid = os.fork()
        if not pid:
            code = 1
            try:
                json.dump(function(), file)
                file.flush()
                code = 0
            finally:
                os._exit(code)
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError("a forked child failed, see above")
        file.seek(0)
        return json.load(file)


def main() -> None:
    # In this process: in a fork, the first write to what is inherited would be counted to some package.
    result = {"scheduler": by_package()}
    gc.collect()
    result["first_task"] = in_fork(first_task)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
