# SPDX-License-Identifier: Apache-2.0
"""
What the scheduler has in memory before any work, by package, and what the first steps of a worker add.

Runs inside the Airflow that is measured, on Linux:

    scripts/patchset run BASE --stock -- python scripts/probes/imports.py > RESULT.json

Memory is in bytes. Of a fork it is USS: what it has for itself. Of packages it is growth of RSS, within one
process and never summed over several: USS would leave out libraries that another process happens to have
loaded as well. Whoever is imported first pays for what several packages need.
"""

from __future__ import annotations

import gc
import importlib.machinery
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from unittest import mock

import psutil

SCHEDULER = "airflow.cli.commands.scheduler_command"
SUPERVISOR = "airflow.sdk.execution_time.supervisor"
REPEATS = 5
# Bytes; what takes less is not listed.
LEAST = 500_000


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
        self.bytes: dict[str, int] = {}
        self.modules: dict[str, int] = {}
        self.importers: dict[str, str] = {}
        self._stack = ["python"]
        self._last = rss()

    def _book(self) -> None:
        now = rss()
        name = package(self._stack[-1])
        self.bytes[name] = self.bytes.get(name, 0) + now - self._last
        self._last = now

    @contextmanager
    def module(self, name: str):
        self._book()
        self.importers.setdefault(package(name), self._stack[-1])
        self._stack.append(name)
        try:
            yield
        finally:
            self._book()
            self._stack.pop()
            self.modules[package(name)] = self.modules.get(package(name), 0) + 1

    @contextmanager
    def watching(self):
        """Watch all imports, of Python code and of extensions."""
        with ExitStack() as stack:
            for loader in (importlib.machinery.SourceFileLoader, importlib.machinery.ExtensionFileLoader):
                stack.enter_context(mock.patch.object(loader, "exec_module", self._watched(loader)))
            yield

    def _watched(self, loader):
        original = loader.exec_module

        def exec_module(self_, module):
            with self.module(module.__spec__.name):
                original(self_, module)

        return exec_module


def in_fork(function: Callable[[], dict]) -> dict:
    """Run ``function`` in a forked child, and return what it returns."""
    read, write = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        os.close(read)
        code = 1
        try:
            with open(write, "w") as pipe:
                json.dump(function(), pipe)
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with open(read) as pipe:
        text = pipe.read()
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError("a forked child failed, see above")
    return json.loads(text)


def by_package() -> dict:
    """Import what ``airflow scheduler`` does before any work; return its packages and totals."""
    before = rss()
    accounts = Accounts()
    with accounts.watching():
        importlib.import_module(SCHEDULER)
        from airflow.executors.executor_loader import ExecutorLoader

        ExecutorLoader.init_executors()
    return {
        "rss_before": before,
        "rss_scheduler": rss(),
        "objects": len(gc.get_objects()),
        "modules": len(sys.modules),
        "columns": ["RSS", "modules", "first imported by"],
        "packages": {
            name: [size, accounts.modules.get(name, 0), accounts.importers.get(name)]
            for name, size in sorted(accounts.bytes.items(), key=lambda item: -item[1])
            if size >= LEAST
        },
        "loaded_supervisor": SUPERVISOR in sys.modules,
    }


def collection() -> dict:
    """Return how much of the inherited memory a full collection in a forked child makes private."""
    before = uss()
    gc.collect()
    return {"uss_before": before, "uss_after": uss()}


def first_task() -> dict:
    """Go through what a worker does before it can start its first task; return the USS after each step."""
    found = {"forked": uss()}

    from airflow.sdk.execution_time import supervisor

    found["supervisor imported"] = uss()
    client = supervisor.Client(base_url="http://localhost:1/execution/", token="x")
    found["API client with its SSL context made"] = uss()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        os.environ["AIRFLOW__LOGGING__BASE_LOG_FOLDER"] = directory
        # Asks the API server for a connection only if logs go to some other place.
        _, log = supervisor._configure_logging(os.path.join(directory, "task.log"), client)
        stack.callback(log.close)
        found["logging configured"] = uss()
    supervisor.ensure_secrets_backend_loaded()
    found["secrets backends loaded"] = uss()
    return found


def main() -> int:
    # The result alone goes to stdout: Airflow logs there as well.
    result_file = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # In this process: in a fork, the first write to what is inherited would be counted to some package.
    packages = by_package()
    gc.collect()
    result = {
        "measurement": "imports",
        "airflow": version("apache-airflow-core"),
        "python": platform.python_version(),
        "kernel": platform.release().split("-")[0],
        "units": "bytes",
        "scheduler": packages,
        "first_task": [in_fork(first_task) for _ in range(REPEATS)],
        "collection": [in_fork(collection) for _ in range(REPEATS)],
    }
    gc.freeze()
    result["collection_frozen"] = [in_fork(collection) for _ in range(REPEATS)]
    gc.unfreeze()
    text = json.dumps(result, indent=1)
    # Each innermost list on one line.
    text = re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda match: f"[{' '.join(match[1].split())}]", text)
    result_file.write(text + "\n")
    result_file.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
