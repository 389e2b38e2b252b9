# SPDX-License-Identifier: Apache-2.0
"""``doctor``: what an installed Airflow is, how its scheduler does, and what is wrong with either."""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import psutil

from patchsetlib.installs import describe, inplace, settings
from patchsetlib.installs.describe import CORE, FOREIGN, PATCHED, STOCK, Installation, InstalledFile
from patchsetlib.installs.settings import Settings
from patchsetlib.measure import memory, running
from patchsetlib.measure.running import Finding
from patchsetlib.patches import base as bases
from patchsetlib.shell.errors import PatchsetError, UsageError
from patchsetlib.shell.paths import display

HELP = (
    "say which Airflow is installed, whether it is patched, and how its scheduler does; changes nothing; "
    "exit code 0: healthy, 1: a problem was found, 2: wrong usage"
)
PATIENCE = 0.5
"""Seconds that missing workers may take to come: idle ones are replaced all at once."""
STARTING = 30
"""Seconds that a scheduler may take to start its workers."""
ROLES = {
    "scheduler": (memory.SCHEDULER,),
    "idle workers": (memory.WORKER_IDLE,),
    "busy workers": (memory.WORKER_BUSY,),
    "task processes": (memory.TASK,),
    "serve-logs": (memory.SERVE_LOGS,),
    "health check": (running.HEALTH_CHECK,),
    "fork server": (memory.FORK_SERVER,),
    "other": (memory.OTHER,),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--python",
        metavar="PATH",
        help="a Python with Airflow (default: that of the running scheduler, else that of airflow on PATH)",
    )
    parser.add_argument(
        "--pid", type=int, metavar="PID", help="a scheduler (default: the one that runs from that Python)"
    )
    parser.add_argument("--json", action="store_true", help="all of it, for other programs")


def run(args: argparse.Namespace) -> int:
    try:
        report = _examine(Path(args.python) if args.python else None, args.pid)
    except psutil.NoSuchProcess as e:
        raise PatchsetError(f"the process {e.pid} has ended meanwhile", "run this again") from e
    if args.json:
        print(json.dumps(_record(report), indent=2))
    else:
        print("\n".join(_lines(report)))
    return 1 if report.problems else 0


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


def _examine(python: Path | None, pid: int | None) -> Report:
    installation = describe.describe(python) if python else None
    scheduler = _scheduler(installation, pid)
    if installation is None and scheduler is None:
        installation = describe.describe(describe.python_on_path())
    environment: dict[str, str] | None = dict(os.environ)
    place = None
    if scheduler is not None:
        try:
            environment = scheduler.environ()
        except psutil.AccessDenied:
            environment = None
        place = running.place(scheduler, environment or {})
        if installation is None and place.paths:
            installation = describe.describe_paths(place.paths, None, place.python_version)
    if installation is not None and installation.part() is None and scheduler is None:
        raise _no_airflow(installation)
    report = Report(installation, scheduler=scheduler)
    if installation is not None and installation.part() is not None:
        _judge_files(report, installation)
    elif scheduler is not None:
        report.unknown.append(f"which Airflow the process {scheduler.pid} runs; name it with --python")
    if environment is None:
        report.unknown.append(f"its options: the environment of process {scheduler.pid} cannot be read")
    else:
        home = os.path.expanduser(f"~{scheduler.username()}") if scheduler else os.path.expanduser("~")
        report.settings = settings.read(environment, place.root if place else Path("/"), home)
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
        each = ", ".join(f"{p.pid} ({_user(p)}, {_since(p)})" for p in found)
        raise UsageError(f"{len(found)} schedulers run here: {each}", "choose one with --pid")
    return found[0] if found else None


def _runs_from(process: psutil.Process, installation: Installation) -> bool:
    core = installation.part()
    paths = running.place(process, {}).paths
    return core is not None and any(os.path.samefile(path, core.site) for path in paths)


def _no_airflow(installation: Installation) -> PatchsetError:
    old = [
        found.name for path in installation.paths for found in path.glob("apache_airflow-[12].*.dist-info")
    ]
    if old:
        version = old[0].removesuffix(".dist-info").partition("-")[2]
        return PatchsetError(f"{installation.python} has Airflow {version}", "this is about Airflow 3")
    left = [path for path in installation.paths if (path / "airflow" / "executors").is_dir()]
    if left:
        return PatchsetError(
            f"{left[0]} has an airflow directory, but no metadata of {CORE}", "install Airflow again"
        )
    return PatchsetError(f"{installation.python} has no Airflow", "name another Python with --python PATH")


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
            each = (f"{part.project}: {_amount(installation, part.project)}" for part in installation.parts)
            report.problems.append(f"half patched: {', '.join(each)}")
    in_place = [file for file in installation.files if file.as_recorded is False and file.patches]
    if in_place and installation.state == PATCHED:
        report.notes.append("patched in place: RECORD has other hashes")


def _amount(installation: Installation, *projects: str) -> str:
    applied = installation.applied_in(*projects)
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
    if not patched and core and report.start_method == "fork" and _numbers(core.release) >= (3, 1, 5):
        return parallelism
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _user(process: psutil.Process) -> str:
    try:
        return process.username()
    except (psutil.Error, KeyError):
        return "another user"


def _since(process: psutil.Process) -> str:
    started = datetime.fromtimestamp(process.create_time(), timezone.utc)
    return f"since {started:%Y-%m-%d %H:%M} UTC"


def _verdict(report: Report) -> str:
    words = []
    core = report.installation.part() if report.installation else None
    if core is None:
        words.append("unknown Airflow")
    elif report.installation.base is None:
        words.append(f"Airflow {core.version}, for which there is no series here")
    elif report.installation.state == STOCK:
        words.append(f"stock {core.version}")
    elif report.installation.state == PATCHED:
        words.append(f"patched {core.version} ({_amount(report.installation)})")
    else:
        words.append(f"{core.version} with changed files")
    if report.scheduler is None:
        words.append("no scheduler runs from it")
    elif report.finding is not None:
        count = len(report.finding.workers)
        if count or not report.settings or report.settings.uses_local_executor:
            words.append(f"{count} worker{'s' * (count != 1)}")
        else:
            words.append("LocalExecutor not in use")
    start = ", ".join(words)
    if report.problems:
        worst = next((each for each in report.problems if each.startswith("wedged")), report.problems[0])
        more = len(report.problems) - 1
        return f"{start}: {worst}" + (f" (and {more} more)" if more else "")
    if report.unknown:
        return f"{start}, no problem seen, but not all can be told"
    return f"{start}, healthy"


def _lines(report: Report) -> list[str]:
    lines = [_verdict(report)]
    said = report.problems + report.unknown + report.notes
    lines += [""] if said else []
    lines += [f"problem: {each}" for each in report.problems]
    lines += [f"cannot tell: {each}" for each in report.unknown]
    lines += [f"note: {each}" for each in report.notes]
    lines += _installation_lines(report) + _settings_lines(report) + _scheduler_lines(report)
    return lines


def _installation_lines(report: Report) -> list[str]:
    installation = report.installation
    if installation is None or installation.part() is None:
        return []
    lines = ["", f"installed in {installation.part().site}, Python {installation.python_version or '?'}"]
    for part in installation.parts:
        files = [file for file in installation.files if file.project == part.project]
        about = f"{_amount(installation, part.project)}, {len(files)} files looked at" if files else ""
        lines.append(f"  {part.project:26} {part.version:12} {about}".rstrip())
        # Where all are alike, their names say nothing.
        if installation.applied_in(part.project) is None:
            lines += [f"    {_about(file):40} {file.name}" for file in files]
    if installation.commit:
        lines.append(f"  {'commit of the series':26} {installation.commit[:12]}")
    return lines


def _about(file: InstalledFile) -> str:
    if not file.patches:
        if not file.exists:
            return "missing"
        return "changed after it was installed" if file.as_recorded is False else "neither stock nor patched"
    if 0 in file.patches:
        return "stock"
    return "patched" if file.last in file.patches else f"as after patch {file.patches[-1]}"


def _settings_lines(report: Report) -> list[str]:
    if report.settings is None:
        return []
    patched = report.installation is not None and report.installation.state != STOCK
    whose = "the scheduler" if report.scheduler else "this shell"
    lines = ["", f"options (environment of {whose}, {report.settings.file})"]
    for name, option in report.settings.options.items():
        if option.source == "default" and (
            not option.value or name.startswith(settings.PATCHED_ONLY) > patched
        ):
            continue
        section, key = name.split(".")
        lines.append(f"  {f'[{section}] {key}':42} {option.value or '(empty)':24} {option.source}")
    lines.append(f"  {'workers are started by':42} {report.start_method or '?'}")
    return lines


def _scheduler_lines(report: Report) -> list[str]:
    if report.scheduler is None or report.memory is None:
        return []
    where = " in a container" if report.in_container else ""
    lines = [
        "",
        f"scheduler {report.scheduler.pid} of {_user(report.scheduler)}{where}, {_since(report.scheduler)}",
    ]
    lines.append(f"  {'':16} {'count':>6} {'USS each':>12} {'PSS in all':>12}")
    for name, roles in ROLES.items():
        if count := report.memory.count(*roles):
            uss = report.memory.median("uss", *roles)
            pss = None if uss is None else report.memory.total("pss", *roles)
            lines.append(f"  {name:16} {count:6} {_mib(uss):>12} {_mib(pss):>12}")
    count, total = report.memory.count(), report.memory.total("pss")
    lines.append(f"  {'all':16} {count:6} {'':12} {_mib(total or None):>12}")
    if report.expected is not None:
        lines.append(f"  workers missing: {report.missing} of {report.expected}")
    finding = report.finding
    if finding and finding.workers and not finding.patched:
        unread = "cannot tell" if finding.unread is None else f"{finding.unread} bytes"
        lines.append(f"  tasks that no worker has taken: {unread}")
    if saving := report.saving:
        source = f"an estimate, from {saving.moment!r} in {display(saving.file)}"
        if saving.grown:
            lines.append(f"  with the patches: about {_mib(total * saving.ratio)} in all ({source})")
        else:
            lines.append(
                f"  with the patches, once the workers have run tasks: {saving.ratio:.2f} of it ({source})"
            )
    return lines


def _mib(size: float | None) -> str:
    return "?" if size is None else f"{size / 2**20:.1f} MiB"


def _record(report: Report) -> dict:
    return {
        "verdict": _verdict(report),
        "healthy": not report.problems,
        "problems": report.problems,
        "unknown": report.unknown,
        "notes": report.notes,
        "installation": _installation_record(report.installation),
        "settings": _settings_record(report),
        "scheduler": _scheduler_record(report),
    }


def _installation_record(installation: Installation | None) -> dict | None:
    if installation is None or installation.part() is None:
        return None
    return {
        "python": str(installation.python) if installation.python else None,
        "python_version": installation.python_version,
        "distributions": [
            {"project": part.project, "version": part.version, "directory": str(part.site)}
            for part in installation.parts
        ],
        "base": installation.base.name if installation.base else None,
        "state": installation.state,
        "patches": {
            "applied": installation.applied,
            "of": installation.series_length,
            "commit": installation.commit,
        },
        "files": [
            {
                "project": file.project,
                "name": file.name,
                "state": file.state,
                "exists": file.exists,
                "after_patches": list(file.patches),
                "as_recorded": file.as_recorded,
            }
            for file in installation.files
        ],
    }


def _settings_record(report: Report) -> dict | None:
    if report.settings is None:
        return None
    return {
        "file": str(report.settings.file),
        "executors": report.settings.executors,
        "start_method": report.start_method,
        "options": {
            name: {"value": option.value, "source": option.source}
            for name, option in report.settings.options.items()
        },
    }


def _scheduler_record(report: Report) -> dict | None:
    if report.scheduler is None or report.finding is None or report.memory is None:
        return None
    finding, sample = report.finding, report.memory
    roles = Counter(reading.role for reading in sample.readings)
    total = sample.total("pss")
    return {
        "pid": report.scheduler.pid,
        "user": _user(report.scheduler),
        "in_container": report.in_container,
        "patched": finding.patched,
        "wedged": finding.wedged,
        "lock_holder": finding.holder,
        "unread_bytes": finding.unread,
        "workers": [
            {"pid": worker.pid, "team": worker.team, "idle": worker.idle, "waits_for": worker.wait.kind}
            for worker in finding.workers
        ],
        "workers_expected": report.expected,
        "workers_missing": report.missing,
        "memory": {
            "pss": total,
            "unreadable": sample.unreadable,
            "roles": {
                role: {
                    "count": count,
                    "pss": sample.total("pss", role),
                    "uss": sample.total("uss", role),
                    "uss_median": sample.median("uss", role),
                }
                for role, count in roles.items()
            },
            "processes": sample.as_json()["processes"],
        },
        "saving": report.saving
        and {
            "pss": round(total * (1 - report.saving.ratio)) if report.saving.grown else None,
            "ratio": round(report.saving.ratio, 3),
            "moment": report.saving.moment,
            "file": display(report.saving.file),
        },
    }
