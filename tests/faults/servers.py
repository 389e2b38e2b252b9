# SPDX-License-Identifier: Apache-2.0
"""Runs the scenarios of a variant of a base in one process of its interpreter, some side by side."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Variant:
    """An Airflow under test."""

    patched: bool
    start_method: str
    jobs: int
    """Scenarios side by side: where they fail, they do nothing but wait."""
    patience: float
    """Seconds without progress after which work counts as lost: enough where it is lost for sure; where it
    must not be, a busy machine may take longer."""


VARIANTS = {
    "stock": Variant(False, "fork", 6, 5),
    "patched": Variant(True, "fork", 3, 60),
    "forkserver": Variant(True, "forkserver", 1, 120),
}


def known(base: bases.Base) -> dict[str, dict[str, list[str]]]:
    """Return what ``faults.toml`` of a base says."""
    path = base.directory / "faults.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


class Server:
    """The process that runs the scenarios of one variant."""

    def __init__(
        self, base: bases.Base, variant: Variant, names: list[str], directory: Path, source: str | None
    ):
        self.log = directory / "main.log"
        self.directory = directory
        self._results: dict[str, dict[str, Any]] = {}
        self._stdout = directory / "results.jsonl"
        python = environment.python(base, patched=variant.patched)
        paths = [*([source] if source and variant.patched else []), HERE]
        variables = environment.variables(python) | {
            "AIRFLOW_HOME": str(directory),
            "AIRFLOW__API_AUTH__JWT_SECRET": "faults",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
        }
        options = ["--start-method", variant.start_method, "--jobs", str(variant.jobs)]
        options += ["--patience", str(variant.patience), "--directory", str(directory)]
        with self._stdout.open("wb") as stdout, self.log.open("wb") as stderr:
            command = [python, "-m", "inside.main", *options, *names]
            self._process = Guarded.start(command, env=variables, stdout=stdout, stderr=stderr)

    def result(self, name: str) -> dict[str, Any]:
        """Return the result of a scenario, waiting for it if need be; each has a limit of its own."""
        while name not in self._results:
            ended = self._process.poll() is not None
            lines = self._stdout.read_text(encoding="utf-8").splitlines(keepends=True)
            results = [json.loads(line) for line in lines if line.endswith("\n")]
            self._results = {result["scenario"]: result for result in results}
            if ended and name not in self._results:
                raise RuntimeError(f"no result of {name}\n{self.log.read_text(encoding='utf-8')[-3000:]}")
            time.sleep(0.05)
        return self._results[name]

    def log_of(self, name: str) -> str:
        """Return what the processes of a scenario have written."""
        return (self.directory / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        self._process.stop(grace=0)
