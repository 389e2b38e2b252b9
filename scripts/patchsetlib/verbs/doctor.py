# SPDX-License-Identifier: Apache-2.0
"""``doctor``: what an installed Airflow is, how its scheduler does, and what is wrong with either."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import psutil

from patchsetlib.installs import settings
from patchsetlib.installs.describe import PATCHED, STOCK, Installation, InstalledFile
from patchsetlib.measure import diagnosis, memory, running
from patchsetlib.measure.diagnosis import Report
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import display

HELP = (
    "say which Airflow is installed, whether it is patched, and how its scheduler does; changes nothing; "
    "exit code 0: healthy, 1: a problem was found, 2: wrong usage"
)
ROLES = {
    "scheduler": memory.SCHEDULER,
    "idle workers": memory.WORKER_IDLE,
    "busy workers": memory.WORKER_BUSY,
    "task processes": memory.TASK,
    "serve-logs": memory.SERVE_LOGS,
    "health check": running.HEALTH_CHECK,
    "fork server": memory.FORK_SERVER,
    "other": memory.OTHER,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--python",
        metavar="PATH",
        type=Path,
        help="a Python with Airflow (default: that of the running scheduler, else that of airflow on PATH)",
    )
    parser.add_argument(
        "--pid", type=int, metavar="PID", help="a scheduler (default: the one that runs from that Python)"
    )
    parser.add_argument("--json", action="store_true", help="all of it, for other programs")


def run(args: argparse.Namespace) -> int:
    try:
        report = diagnosis.examine(args.python, args.pid)
    except psutil.NoSuchProcess as e:
        raise PatchsetError(f"the process {e.pid} has ended meanwhile", "run this again") from e
    if args.json:
        print(json.dumps(_record(report), indent=2, default=str))
    else:
        print("\n".join(_lines(report)))
    return 1 if report.problems else 0


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
        words.append(f"patched {core.version} ({diagnosis.amount(report.installation)})")
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
    return lines + _installation_lines(report) + _settings_lines(report) + _scheduler_lines(report)


def _installation_lines(report: Report) -> list[str]:
    installation = report.installation
    if installation is None or installation.part() is None:
        return []
    lines = ["", f"installed in {installation.part().site}, Python {installation.python_version or '?'}"]
    for part in installation.parts:
        files = [file for file in installation.files if file.project == part.project]
        about = f"{diagnosis.amount(installation, part.project)}, {len(files)} files looked at"
        lines.append(f"  {part.project:26} {part.version:21} {about if files else ''}".rstrip())
        # Where all are alike, their names say nothing.
        if installation.applied(part.project) is None:
            lines += [f"    {_about(file, installation.series_length):40} {file.name}" for file in files]
    if installation.commit:
        lines.append(f"  {'commit of the series':26} {installation.commit[:12]}")
    return lines


def _about(file: InstalledFile, patches: int) -> str:
    if not file.patches:
        if not file.exists:
            return "missing"
        return "changed after it was installed" if file.as_recorded is False else "neither stock nor patched"
    if 0 in file.patches:
        return "stock"
    return "patched" if patches in file.patches else f"as after patch {file.patches[-1]}"


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
    if report.memory is None:
        return []
    where = " in a container" if report.in_container else ""
    user, since = report.scheduler.username(), diagnosis.since(report.scheduler)
    lines = ["", f"scheduler {report.scheduler.pid} of {user}{where}, {since}"]
    lines.append(f"  {'':16} {'count':>6} {'USS each':>12} {'PSS in all':>12}")
    for name, role in ROLES.items():
        if count := report.memory.count(role):
            uss = report.memory.median("uss", role)
            pss = None if uss is None else report.memory.total("pss", role)
            lines.append(f"  {name:16} {count:6} {_mib(uss):>12} {_mib(pss):>12}")
    count, total = report.memory.count(), report.memory.total("pss")
    lines.append(f"  {'all':16} {count:6} {'':12} {_mib(total or None):>12}")
    if report.expected is not None:
        lines.append(f"  workers missing: {report.missing} of {report.expected}")
    finding = report.finding
    if finding.workers and not finding.patched:
        unread = "cannot tell" if finding.unread is None else f"{finding.unread} bytes"
        lines.append(f"  tasks that no worker has taken: {unread}")
    if saving := report.saving:
        estimate = f"{saving.ratio:.2f} of it, once the workers have run tasks"
        if saving.grown:
            estimate = f"about {_mib(total * saving.ratio)} in all"
        source = f"an estimate, from {saving.moment!r} in {display(saving.file)}"
        lines.append(f"  with the patches: {estimate} ({source})")
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
        "settings": report.settings
        and {
            "file": report.settings.file,
            "executors": report.settings.executors,
            "start_method": report.start_method,
            "options": {name: option._asdict() for name, option in report.settings.options.items()},
        },
        "scheduler": _scheduler_record(report),
    }


def _installation_record(installation: Installation | None) -> dict | None:
    if installation is None or installation.part() is None:
        return None
    return {
        "python": installation.python,
        "python_version": installation.python_version,
        "distributions": [vars(part) for part in installation.parts],
        "base": installation.base and installation.base.name,
        "state": installation.state,
        "patches": {
            "applied": installation.applied(),
            "of": installation.series_length,
            "commit": installation.commit,
        },
        "files": [vars(file) | {"state": file.state} for file in installation.files],
    }


def _scheduler_record(report: Report) -> dict | None:
    if report.memory is None:
        return None
    finding, sample, saving = report.finding, report.memory, report.saving
    total = sample.total("pss")
    return {
        "pid": report.scheduler.pid,
        "user": report.scheduler.username(),
        "in_container": report.in_container,
        "patched": finding.patched,
        "wedged": finding.wedged,
        "lock_holder": finding.holder,
        "unread_bytes": finding.unread,
        "workers": [asdict(worker) for worker in finding.workers],
        "workers_expected": report.expected,
        "workers_missing": report.missing,
        "memory": {
            "pss": total,
            "unreadable": sample.unreadable,
            "roles": {
                role: {
                    "count": sample.count(role),
                    "pss": sample.total("pss", role),
                    "uss": sample.total("uss", role),
                    "uss_median": sample.median("uss", role),
                }
                for role in {reading.role for reading in sample.readings}
            },
            "processes": sample.as_json()["processes"],
        },
        "saving": saving
        and vars(saving) | {"pss": round(total * (1 - saving.ratio)) if saving.grown else None},
    }
