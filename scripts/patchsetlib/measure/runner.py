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

from patchsetlib.measure import workload
from patchsetlib.measure.database import database
from patchsetlib.measure.deployment import Deployment, see
from patchsetlib.measure.figures import Figure
from patchsetlib.measure.subjects import Subject
from patchsetlib.measure.workload import Workload
from patchsetlib.shell import processes, ui
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import ROOT
from patchsetlib.shell.processes import Guarded

PROBES = ROOT / "scripts" / "probes"
_SECRET = ("core.fernet_key", "api.secret_key", "api_auth.jwt_secret", "database.sql_alchemy_conn")


@dataclass(frozen=True)
class Option:
    """One option of a benchmark: a number, or several with commas between them if the default is a tuple."""

    name: str
    default: float | tuple[float, ...]
    help: str
    least: float = 1
    most: float = 10_000_000

    def add(self, parser: argparse.ArgumentParser) -> None:
        several = isinstance(self.default, tuple)
        shown = ",".join(map(str, self.default)) if several else self.default
        parser.add_argument(
            f"--{self.name.replace('_', '-')}",
            type=self.parse,
            default=list(self.default) if several else self.default,
            metavar="N,N,..." if several else "N",
            help=f"{self.help} (default: {shown})".strip(),
        )

    def parse(self, text: str) -> float | list[float]:
        """
        Return the value that was given on the command line.

        :raises argparse.ArgumentTypeError: if it is no number, or out of range
        """
        several = isinstance(self.default, tuple)
        number = type(self.default[0] if several else self.default)
        try:
            values = [number(part) for part in (text.split(",") if several else [text])]
        except ValueError:
            values = []
        if not values or not all(self.least <= value <= self.most for value in values):
            what = "numbers with commas between them" if several else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {what} from {self.least} to {self.most}")
        return values if several else values[0]


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

    def deploy(
        self, load: Workload, *, interval: float = 2.0, settle: float = 0.0, edge_slots: int = 0
    ) -> dict:
        """
        Run ``load`` on a full Airflow; see ``workload.measure``.

        :param edge_slots: see ``Deployment.edge_slots``
        :raises PatchsetError: if the deployment does not start, or the workload does not end
        """
        subject = self.subject
        # A copy shows what was run, and keeps __pycache__ out of the sources.
        dags = shutil.copytree(
            workload.DAGS, self.home / "dags", ignore=shutil.ignore_patterns("__pycache__")
        )
        home, env = self.home / "airflow", load.env
        if load.records:
            env |= {"PATCHSET_TASK_RECORDS": str(home / workload.RECORDS)}
        config = load.config | dict(subject.config)
        how = {"dags": dags, "config": config, "env": env, "edge_slots": edge_slots}
        with (
            database(self.database, subject, self.home.parent) as where,
            Deployment(subject.python, home, name=subject.label, **how, **where) as deployment,
        ):
            record = workload.measure(deployment, load, interval=interval, settle=settle)
        config = {
            key: value.replace(str(self.home), "...")
            for key, value in deployment.config.items()
            if key not in _SECRET
        }
        return record | {"workload": asdict(load), "config": config}

    def probe(self, script: str, *args: str, timeout: float) -> dict:
        """
        Run a script of ``scripts/probes`` without a deployment, and return the JSON object it prints last.

        :param timeout: seconds
        :raises PatchsetError: if it fails, takes longer, or prints something else
        """
        label, home = self.subject.label, self.home / "airflow"
        # Only for its home and environment: the configuration of a deployment, and nothing of the user's.
        deployment = Deployment(
            self.subject.python, home, dags=home / "dags", config={"logging.logging_level": "ERROR"}
        )
        deployment.make_home()
        command = [str(self.subject.python), str(PROBES / script), *args]
        try:
            done = processes.run(command, env=deployment.env, cwd=home, capture=True, timeout=timeout)
        except subprocess.TimeoutExpired as e:
            raise PatchsetError(f"{label}: {script} {self.case} took more than {timeout:.0f} s") from e
        log = deployment.log(Path(script).stem)
        log.parent.mkdir()
        log.write_text(f"{' '.join(command)}\n{done.stdout}{done.stderr}", encoding="utf-8")
        try:
            return json.loads(done.stdout.strip().rpartition("\n")[2])
        except ValueError:
            last = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
            raise PatchsetError(f"{label}: {script} {self.case} failed: {last}", see(log)) from None


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


def schedule(subjects: Sequence[Subject], repeats: int) -> Iterator[tuple[int, Subject]]:
    """
    Yield (repeat, subject) in the order of the runs.

    Every second round goes backwards, so that what changes over time, such as the load of the machine,
    does not favour those that come first.
    """
    for repeat in range(1, repeats + 1):
        for subject in subjects if repeat % 2 else reversed(subjects):
            yield repeat, subject


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
    Run a benchmark, and return the records of its runs.

    A run that fails is a record with ``error`` instead of figures, and its files stay in ``directory``.

    :param directory: for the deployments; exists
    :param url: see ``Run.database``
    :param save: called with the records so far after each run, so that an interruption loses none
    """
    runs: list[dict] = []
    cases = list(benchmark.cases(options))
    for repeat, subject in schedule(subjects, repeats):
        ui.info(f"{subject.label}: run {repeat} of {repeats}")
        for case in cases:
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
