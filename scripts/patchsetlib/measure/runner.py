# SPDX-License-Identifier: Apache-2.0
"""Describes benchmarks, and runs them: each case of each subject, repeated and interleaved."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from patchsetlib.measure import workload
from patchsetlib.measure.database import database
from patchsetlib.measure.deployment import Deployment, see
from patchsetlib.measure.figures import Figure
from patchsetlib.measure.subjects import Subject, last_line
from patchsetlib.measure.workload import Workload
from patchsetlib.shell import processes, ui
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import ROOT
from patchsetlib.shell.processes import Guarded

PROBES = ROOT / "scripts" / "probes"
_MOST = 10_000_000
_SECRET = ("core.fernet_key", "api.secret_key", "api_auth.jwt_secret", "database.sql_alchemy_conn")


@dataclass(frozen=True)
class Option:
    """One option of a benchmark: a number, or several with commas between them if the default is a list."""

    name: str
    default: float | list[float]
    help: str
    least: float = 1

    def add(self, parser: argparse.ArgumentParser) -> None:
        shown, metavar = self.default, "N"
        if isinstance(self.default, list):
            shown, metavar = ",".join(map(str, self.default)), "N,N,..."
        about = f"{self.help} (default: {shown})"
        parser.add_argument(
            f"--{self.name}", type=self._parse, default=self.default, metavar=metavar, help=about
        )

    def _parse(self, text: str) -> float | list[float]:
        several = isinstance(self.default, list)
        number = type(self.default[0] if several else self.default)
        what = "numbers with commas between them" if several else "a number"
        try:
            values = [number(part) for part in (text.split(",") if several else [text])]
            if all(self.least <= value <= _MOST for value in values):
                return values if several else values[0]
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"{text!r} is not {what} from {self.least} to {_MOST}")


@dataclass(frozen=True)
class Run:
    """One case of one subject, to be measured once."""

    subject: Subject
    case: str
    options: dict
    home: Path
    """Directory for all that the run needs; empty."""
    database: str | None = None
    """SQLAlchemy URL of a server; None for SQLite."""

    @contextmanager
    def deployment(
        self, dags: Path, config: dict[str, str], env: dict[str, str], **how: Any
    ) -> Iterator[Deployment]:
        """Deploy the subject with an empty database, with ``config`` and its own; ``how``: see there."""
        subject = self.subject
        # A copy shows what was run, and keeps __pycache__ out of the sources.
        ignored = shutil.ignore_patterns("__pycache__")
        how |= {"dags": shutil.copytree(dags, self.home / "dags", ignore=ignored)}
        how |= {"config": config | subject.config, "env": env, "name": subject.label}
        with (
            database(self.database, subject, self.home.parent) as where,
            Deployment(subject.python, self.home / "airflow", **how, **where) as deployment,
        ):
            yield deployment

    def deploy(self, load: Workload, left_out: tuple[str, ...], *, edge_slots: int = 0, **how: float) -> dict:
        """
        Run ``load`` on a full Airflow; see ``Deployment.edge_slots``, and ``workload.measure`` for ``how``.

        :param left_out: what of the record the benchmark has no use for
        """
        env = load.env
        if load.records:
            env["PATCHSET_TASK_RECORDS"] = str(self.home / "airflow" / workload.RECORDS)
        with self.deployment(workload.DAGS, load.config, env, edge_slots=edge_slots) as deployment:
            record = workload.measure(deployment, load, **how)
        config = {
            key: value.replace(str(self.home), "...")
            for key, value in deployment.config.items()
            if key not in _SECRET
        }
        record |= {"workload": asdict(load), "config": config}
        return {name: value for name, value in record.items() if name not in left_out}

    def probe(self, script: str, *args: str, timeout: float) -> dict:
        """
        Run a script of ``scripts/probes`` without a deployment, and return the JSON object it prints last.

        :param timeout: seconds
        :raises PatchsetError: if it fails, takes longer, or prints something else
        """
        what, home = f"{self.subject.label}: {script} {self.case}", self.home / "airflow"
        # Only for its home and environment: the configuration of a deployment, and nothing of the user's.
        deployment = Deployment(
            self.subject.python, home, dags=home / "dags", config={"logging.logging_level": "ERROR"}
        )
        deployment.make_home()
        command = [str(self.subject.python), str(PROBES / script), *args]
        try:
            done = processes.run(command, env=deployment.env, cwd=home, capture=True, timeout=timeout)
        except subprocess.TimeoutExpired as e:
            raise PatchsetError(f"{what} took more than {timeout:.0f} s") from e
        log = deployment.log(Path(script).stem)
        log.parent.mkdir()
        log.write_text(f"{' '.join(command)}\n{done.stdout}{done.stderr}", encoding="utf-8")
        try:
            return json.loads(done.stdout.strip().rpartition("\n")[2])
        except ValueError:
            raise PatchsetError(f"{what} failed: {last_line(done)}", see(log)) from None


@dataclass(frozen=True)
class Benchmark:
    """What is measured, and what the report shows of it."""

    name: str
    help: str
    options: tuple[Option, ...]
    measure: Callable[[Run], dict]
    """Measures one case once, and returns its record, fit for JSON."""
    figures: Callable[[dict], list[Figure]]
    """Returns what the table shows of one record."""
    panels: tuple[tuple[str, str], ...]
    """What is drawn, one panel each: *what* and *unit* of the figures."""
    cases: Callable[[dict], Sequence[str]] = lambda options: ("",)
    """Returns the names of the cases, given the options."""
    deploys: bool = False
    """Whether it runs a full Airflow, so that ``--database`` and ``--variant`` make sense."""


def run(
    benchmark: Benchmark,
    subjects: Sequence[Subject],
    options: dict,
    repeats: int,
    directory: Path,
    *,
    url: str | None = None,
    save: Callable[[list[dict]], None] = lambda runs: None,
) -> list[dict]:
    """
    Run a benchmark, and return the records of its runs; see ``Run`` for ``url``.

    A run that fails is a record with ``error`` instead of figures, and its files stay in ``directory``.

    :param save: called with the records so far after each run, so that an interruption loses none
    """
    runs: list[dict] = []
    # Every second round goes backwards, so that what changes over time, such as the load of the machine, does
    # not favour those that come first.
    rounds = [(n, each) for n in range(1, repeats + 1) for each in (subjects if n % 2 else subjects[::-1])]
    for repeat, subject in rounds:
        ui.info(f"{subject.label}: run {repeat} of {repeats}")
        for case in benchmark.cases(options):
            words = re.sub(r"[^A-Za-z0-9.]+", "-", f"{subject.label} {case}").strip("-")
            home = directory / f"{len(runs) + 1}-{words}"
            home.mkdir()
            record = {"label": subject.label, "repeat": repeat, "case": case, "load": os.getloadavg()}
            try:
                with busy(options.get("busy", 0)):
                    record |= benchmark.measure(Run(subject, case, options, home, url))
            except PatchsetError as e:
                ui.warn(f"{subject.label}: run {repeat} failed: {e}")
                record["error"] = e.problem
            subject.check()
            if "error" not in record:
                shutil.rmtree(home, ignore_errors=True)
            runs.append(record)
            save(runs)
    return runs


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Run so many processes beside that do nothing but use a CPU."""
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(Guarded.start([sys.executable, "-I", "-c", "while True: pass"]))
        yield


def failed(record: dict) -> bool:
    """Return whether a run failed, or not all of its tasks succeeded."""
    dag_run = record.get("dag_run", {})
    return "error" in record or dag_run.get("succeeded") != dag_run.get("tasks")
