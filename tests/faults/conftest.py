# SPDX-License-Identifier: Apache-2.0
"""
Runs each scenario once for each variant, whatever number of tests look at its result.

They run side by side, since most of their time is spent waiting: on stock, for what never comes.
"""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import driver
import pytest
from rich.console import Console

from patchsetlib.installs import environment
from patchsetlib.patches import base as bases
from patchsetlib.shell.paths import display, work_dir

BASE = "3.1.3"
# Seconds without progress after which a workload counts as lost. Where it is lost for sure that is enough;
# where it must not be, a busy machine may take longer.
PATIENCE = {"stock": 4.0, "patched": 20.0, "forkserver": 60.0}
SIDE_BY_SIDE = {"stock": 4, "patched": 2, "forkserver": 1}

# A directory with airflow-core/src to take for the patched one instead, such as a checkout that is worked on.
SOURCE = os.environ.get("PATCHSET_FAULTS_SOURCE")

_results: pytest.StashKey[dict[tuple[str, str], dict[str, Any]]] = pytest.StashKey()


class Runs:
    """Scenarios that have been started."""

    def __init__(self):
        self._pools = {variant: ThreadPoolExecutor(count) for variant, count in SIDE_BY_SIDE.items()}
        self._futures: dict[tuple[str, str], Future[dict[str, Any]]] = {}
        self._pids: list[int] = []

    def start(self, variant: str, scenario: str) -> None:
        if (variant, scenario) not in self._futures:
            patched = variant != "stock"
            interpreter = environment.python(bases.load(BASE), patched=patched)
            self._futures[variant, scenario] = self._pools[variant].submit(
                driver.run,
                scenario,
                interpreter,
                source=Path(SOURCE) if SOURCE and patched else None,
                start_method="forkserver" if variant == "forkserver" else "fork",
                patience=PATIENCE[variant],
                started=self._pids.append,
            )

    def result(self, variant: str, scenario: str) -> dict[str, Any]:
        """Return the result of a scenario, waiting for it if need be."""
        self.start(variant, scenario)
        return self._futures[variant, scenario].result()

    def finished(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {
            key: future.result()
            for key, future in self._futures.items()
            if future.done() and not future.cancelled() and not future.exception()
        }

    def close(self) -> None:
        """End what still runs, after an interrupt."""
        for future in self._futures.values():
            future.cancel()
        if not all(future.done() for future in self._futures.values()):
            for pid in self._pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        for pool in self._pools.values():
            pool.shutdown()


@pytest.fixture(scope="session")
def runs(request) -> Iterator[Runs]:
    """Start all scenarios that the selected tests need."""
    runs = Runs()
    try:
        for item in request.session.items:
            params = item.callspec.params if hasattr(item, "callspec") else {}
            if "variant" in params and "scenario" in params:
                runs.start(params["variant"], params["scenario"])
        yield runs
    finally:
        runs.close()
        request.config.stash[_results] = runs.finished()


def pytest_terminal_summary(terminalreporter, config) -> None:
    results = config.stash.get(_results, {})
    if not results:
        return
    now = datetime.now(timezone.utc)
    path = work_dir() / "faults" / f"{now:%Y%m%dT%H%M%SZ}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"variant": variant, **result} for (variant, _), result in sorted(results.items(), reverse=True)]
    path.write_text(json.dumps({"base": BASE, "results": rows}, indent=1) + "\n", encoding="utf-8")
    # Variants of a case next to each other.
    cases = [
        ((row["scenario"], number), row["variant"], case)
        for row in rows
        for number, case in enumerate(row["cases"])
    ]
    cases.sort(key=lambda found: found[0])
    text = io.StringIO()
    Console(file=text, width=150).print(driver.table((variant, case) for _, variant, case in cases))
    terminalreporter.write(text.getvalue())
    terminalreporter.write_line(f"results: {display(path)}")
