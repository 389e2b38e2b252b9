# SPDX-License-Identifier: Apache-2.0
"""
What an installed Airflow is, how its scheduler does, and what is wrong with either.

``examine`` collects what ``installs`` says of the files and options, and ``running`` of the processes, and
judges it. Nothing is changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import psutil

from patchsetlib.installs import describe, inplace, settings
from patchsetlib.installs.describe import CORE, FOREIGN, PATCHED, STOCK, Installation
from patchsetlib.installs.settings import Settings
from patchsetlib.measure import memory, running
from patchsetlib.measure.running import Finding
from patchsetlib.patches import base as bases
from patchsetlib.shell.errors import PatchsetError, UsageError

PATIENCE = 0.5
"""Seconds that missing workers may take to come: idle ones are replaced all at once."""
STARTING = 30
"""Seconds that a scheduler may take to start its workers."""


@dataclass
class Report:
    """What was found; what cannot be told is None."""

    installation: Installation | None
    settings: Settings | None = None
    start_method: str | None = None
    scheduler: psutil.Process | None = None
    in_container: bool = False
    finding: Finding | None = None
    expected: int | None = None
    """How many workers there should be now."""
    memory: memory.Sample | None = None
    saving: running.Saving | None = None
    problems: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """How many workers there are too few."""
        return max((self.expected or 0) - len(self.finding.workers), 0) if self.finding else 0


def examine(python: Path | None, pid: int | None) -> Report:
    """
    Return what can be told of an installed Airflow, and of the scheduler that runs from it, if there is one.

    :param python: a Python with Airflow; without it, that of the scheduler, or of the command on PATH
    :param pid: which scheduler; without it, the only one
    :raises PatchsetError: if there is no Airflow 3, or several schedulers run
    :raises psutil.NoSuchProcess: if a process ends meanwhile
    """
    installation = describe.describe(python) if python else None
    scheduler = _scheduler(installation, pid)
    environment: Mapping[str, str] | None = os.environ
    place, home = None, "~"
    if scheduler is None:
        installation = installation or describe.describe(describe.python_on_path())
        if installation.part() is None:
            raise _no_airflow(installation)
    else:
        try:
            environment = scheduler.environ()
        except psutil.AccessDenied:
            environment = None
        place, home = running.place(scheduler, environment or {}), f"~{scheduler.username()}"
        if installation is None and place.paths:
            installation = describe.describe_paths(place.paths, None, place.python_version)
    report = Report(installation, scheduler=scheduler)
    if installation is not None and installation.part() is not None:
        _judge_files(report, installation)
    elif place is not None and place.gone:
        report.problems.append(f"the scheduler runs from {place.gone[0]}, which was deleted; restart it")
    elif scheduler is not None:
        report.unknown.append(f"which Airflow the process {scheduler.pid} runs; name it with --python")
    if environment is None:
        report.unknown.append(f"its options: the environment of process {scheduler.pid} cannot be read")
    else:
        root = place.root if place else Path("/")
        report.settings = settings.read(environment, root, os.path.expanduser(home))
        report.notes += report.settings.notes
        report.problems += report.settings.problems
    if installation is not None and report.settings is not None:
        patched = installation.state == PATCHED
        version = installation.python_version
        core = installation.part()
        report.start_method = core and settings.start_method(report.settings, core.release, patched, version)
    if scheduler is not None and place is not None:
        report.in_container = place.root != Path("/")
        report.notes += [
            f"PYTHONPATH has {entry}/airflow, which comes before the installed files"
            for entry in place.shadows
        ]
        _judge_scheduler(report, scheduler)
    if left := running.orphans():
        pids = ", ".join(map(str, left))
        report.notes.append(f"workers whose scheduler has ended, which can be killed: {pids}")
    return report


def _scheduler(installation: Installation | None, pid: int | None) -> psutil.Process | None:
    """Return the scheduler to look at, if there is one."""
    if pid is not None:
        try:
            process = psutil.Process(pid)
        except (psutil.NoSuchProcess, ValueError, OverflowError) as e:
            raise UsageError(f"there is no process {pid}", "see: ps -ef") from e
        if not running.is_scheduler(process):
            raise UsageError(f"process {pid} is no scheduler", "see: pgrep -af 'airflow scheduler'")
        return process
    found = running.find()
    if installation is not None:
        found = [process for process in found if _runs_from(process, installation)]
    if len(found) > 1:
        each = ", ".join(f"{p.pid} ({p.username()}, {since(p)})" for p in found)
        raise UsageError(f"{len(found)} schedulers run here: {each}", "choose one with --pid")
    return found[0] if found else None


def _runs_from(process: psutil.Process, installation: Installation) -> bool:
    core = installation.part()
    paths = running.place(process, {}).paths
    return core is not None and any(os.path.samefile(path, core.site) for path in paths)


def _no_airflow(installation: Installation) -> PatchsetError:
    for found in (f for path in installation.paths for f in path.glob("apache_airflow-[12].*.dist-info")):
        version = found.name.removesuffix(".dist-info").partition("-")[2]
        return PatchsetError(f"{installation.python} has Airflow {version}", "this is about Airflow 3")
    remedy = "name another Python with --python PATH, or install Airflow (again)"
    return PatchsetError(f"{installation.python} has no {CORE}", remedy)


def _judge_files(report: Report, installation: Installation) -> None:
    report.problems += installation.problems
    if inplace.is_interrupted(installation):
        report.problems.append("install or uninstall was interrupted; run either again")
    if installation.base is None:
        changed = describe.unlike_record(installation.parts)
        if changed:
            report.problems.append(f"changed since it was installed: {', '.join(changed)}")
        released = [name for name in bases.all_bases() if bases.load(name).released]
        report.notes.append(f"there is no series for this release; there is one for {', '.join(released)}")
    elif installation.state == FOREIGN:
        foreign = installation.of(FOREIGN)
        if foreign:
            names = ", ".join(file.name for file in foreign[:3]) + (", ..." if len(foreign) > 3 else "")
            report.problems.append(f"neither stock nor as these patches leave it: {names}")
        else:
            each = (f"{part.project}: {amount(installation, part.project)}" for part in installation.parts)
            report.problems.append(f"half patched: {', '.join(each)}")
    in_place = [file for file in installation.files if file.as_recorded is False and file.patches]
    if in_place and installation.state == PATCHED:
        report.notes.append("patched in place: RECORD has other hashes")


def amount(installation: Installation, *projects: str) -> str:
    """Return in words how many patches of the series the files of these projects (all) have."""
    applied = installation.applied(*projects)
    if applied is None:
        return "mixed"
    return f"{applied} of {installation.series_length} patches" if applied else "stock"


def _judge_scheduler(report: Report, scheduler: psutil.Process) -> None:
    if report.settings is not None and not report.settings.uses_local_executor:
        name = ", ".join(report.settings.executors)
        report.notes.append(f"LocalExecutor is not in use: [core] executor is {name}")
    report.finding = running.look(scheduler)
    report.expected = _expected(report, report.finding)
    until = time.monotonic() + PATIENCE
    while report.missing and time.monotonic() < until:
        report.finding = running.look(scheduler)
    report.memory = running.read_memory(scheduler)
    finding = report.finding
    report.problems += finding.problems
    report.unknown += finding.unknown
    installed = report.installation.state if report.installation else None
    if finding.patched is not None and installed in (STOCK, PATCHED):
        if finding.patched != (installed == PATCHED):
            runs = "patched" if finding.patched else "stock"
            report.problems.append(f"the scheduler runs {runs} code that it loaded before; restart it")
    if report.missing:
        line = f"{report.missing} of {report.expected} workers are missing"
        if not finding.workers and time.time() - scheduler.create_time() < STARTING:
            report.notes.append(f"{line}; the scheduler has just been started")
        elif finding.patched is False:
            report.notes.append(f"{line}; stock replaces them when there is work")
        else:
            report.problems.append(line)
    if report.memory.unreadable:
        report.unknown.append(f"the memory of {report.memory.unreadable} processes; run this as root")
    elif finding.patched is False and report.installation and report.installation.base:
        report.saving = running.saving(report.installation.base, report.memory)


def _expected(report: Report, finding: Finding) -> int | None:
    """Return how many workers there should be, if that is the same at all times."""
    if report.settings is None or not report.settings.uses_local_executor:
        return None
    if report.start_method is None or len({worker.team for worker in finding.workers}) > 1:
        return None
    parallelism = report.settings.number("core.parallelism")
    core = report.installation and report.installation.part()
    patched = finding.patched if finding.patched is not None else report.installation.state == PATCHED
    if patched and report.start_method in ("fork", "forkserver"):
        idle = report.settings.number("local_executor.idle_workers")
        return parallelism if idle is None or parallelism is None else min(idle, parallelism)
    # Stock of 3.1.5 and later starts all of them if it forks.
    if not patched and core and report.start_method == "fork" and settings.numbers(core.release) >= (3, 1, 5):
        return parallelism
    return None


def since(process: psutil.Process) -> str:
    """Return in words when it was started."""
    started = datetime.fromtimestamp(process.create_time(), timezone.utc)
    return f"since {started:%Y-%m-%d %H:%M} UTC"
