# SPDX-License-Identifier: Apache-2.0
"""Runs the scenarios of a variant of a base in one process of its interpreter, some side by side."""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path
from typing import Any

from patchsetlib.installs import environment
from patchsetlib.patches import base as bases
from patchsetlib.shell.processes import Guarded

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent


# Scenarios side by side: where they fail, they do nothing but wait.
JOBS = {"stock": 16, "patched": 4}
# Seconds without progress after which work counts as lost: enough where it is lost for sure; where it must
# not be, a busy machine may take longer.
PATIENCE = {"stock": 5, "patched": 120}


def known(base: bases.Base) -> dict[str, dict[str, list[str]]]:
    """Return what ``faults.toml`` of a base says."""
    path = base.directory / "faults.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


class Server:
    """The process that runs scenarios on one variant of a base."""

    def __init__(self, base: bases.Base, variant: str, names: list[str], directory: Path, sources: list[str]):
        self.directory = directory
        self._log = directory / "main.log"
        self._stdout = directory / "results.jsonl"
        # The environment of the unit tests is needed anyway, and stock.
        patched = variant == "patched"
        python = environment.python(base, patched=True) if patched else environment.test_python(base)
        paths = [*(sources if patched else []), HERE]
        variables = environment.variables(python) | {
            "AIRFLOW_HOME": str(directory),
            "AIRFLOW__API_AUTH__JWT_SECRET": "faults",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
        }
        options = ["--jobs", str(JOBS[variant]), "--patience", str(PATIENCE[variant])]
        options += ["--directory", str(directory)]
        with self._stdout.open("wb") as stdout, self._log.open("wb") as stderr:
            command = [python, "-m", "inside.main", *options, *names]
            self._process = Guarded.start(command, env=variables, stdout=stdout, stderr=stderr)

    @functools.cached_property
    def results(self) -> dict[str, dict[str, Any]]:
        """What came of each scenario, when all have ended; each has a limit of its own."""
        self._process.wait()
        results = map(json.loads, self._stdout.read_text(encoding="utf-8").splitlines())
        return {result["scenario"]: result for result in results}

    def log_of(self, name: str) -> str:
        """Return the end of what the processes of a scenario have written, and of what the server has."""
        logs = [self.directory / f"{name}.log", self._log]
        return "\n".join(
            log.read_text(encoding="utf-8", errors="replace")[-5000:] for log in logs if log.exists()
        )

    def stop(self) -> None:
        self._process.stop(grace=0)
