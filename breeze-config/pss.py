# SPDX-License-Identifier: Apache-2.0
"""
Print the memory of the running Airflow processes by role, USS and PSS in MiB.

Without arguments all of them; with process ids, only these processes and what they have started.

USS is what a process has for itself; PSS adds its fair part of what it shares, so a sum of PSS is what all of
them take. This file stands alone: it needs nothing but psutil, which every Airflow has.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import NamedTuple

import psutil

SCHEDULER = "scheduler"
SERVE_LOGS = "serve-logs"
HEALTH_CHECK = "health check"
FORK_SERVER = "fork server"
WORKER_IDLE = "worker, idle"
WORKER_BUSY = "worker, busy"
TASK = "task"
API_SERVER = "api-server"
DAG_PROCESSOR = "dag-processor"
TRIGGERER = "triggerer"
STANDALONE = "standalone"
OTHER = "other"
ROLES = (
    *(SCHEDULER, SERVE_LOGS, HEALTH_CHECK, FORK_SERVER, WORKER_IDLE, WORKER_BUSY, TASK),
    *(API_SERVER, DAG_PROCESSOR, TRIGGERER, STANDALONE, OTHER),
)
"""In the order of the table. A busy worker supervises its task, which is a process of its own."""

# Airflow sets these titles.
_WORKER = re.compile(r"airflow worker -- LocalExecutor\b[^:]*: ?(?P<holds>.*)")
_TITLES = {"airflow worker -- ": TASK, "airflow serve-logs": SERVE_LOGS, "airflow api_server": API_SERVER}
# The others keep the command line they were started with: airflow, and before it Python, debugger, profiler.
_COMMAND = re.compile(
    r"(?:(?:\S*/)?python[\d.]* (?:-\S+ )*)?(?:(?:\S*/)?(?:debugpy|memray) (?:\S+ )*?)?(?:-m )?"
    r"(?:\S*/)?airflow (?P<name>[a-z-]+)\b"
)
_COMMANDS = (SCHEDULER, API_SERVER, DAG_PROCESSOR, TRIGGERER, STANDALONE)
# Children that have no name of their own belong to what started them.
_SHARED = (API_SERVER, DAG_PROCESSOR, TRIGGERER)

MIB = 2**20


class Memory(NamedTuple):
    """What a process takes, in bytes."""

    uss: int
    pss: int


def classify(title: str, parent: str | None, *, listens: bool = False) -> str | None:
    """
    Return the role of a process; None if it is not of Airflow.

    :param title: its process title, i.e. its command line as one string
    :param parent: role of its parent; None if that is not of Airflow
    :param listens: it listens on a TCP port
    """
    # A fork has its parent's title until it sets its own, so what a worker starts is told by its parent.
    if parent in (WORKER_IDLE, WORKER_BUSY, TASK):
        return TASK
    if match := _WORKER.match(title):
        return WORKER_IDLE if match["holds"].startswith("<idle>") else WORKER_BUSY
    for start, role in _TITLES.items():
        if title.startswith(start):
            return role
    match = _COMMAND.match(title)
    if match and match["name"] in _COMMANDS:
        return HEALTH_CHECK if match["name"] == parent == SCHEDULER and listens else match["name"]
    if parent == SCHEDULER and "multiprocessing.forkserver" in title:
        return FORK_SERVER
    if parent in _SHARED:
        return parent
    return OTHER if match or parent else None


def _listens(process: psutil.Process) -> bool:
    # Renamed in newer versions of psutil, as is what _memory reads.
    read = getattr(process, "net_connections", None) or process.connections
    try:
        return any(connection.status == psutil.CONN_LISTEN for connection in read(kind="tcp"))
    except psutil.Error:
        return False


def _memory(process: psutil.Process) -> Memory | None:
    read = getattr(process, "memory_footprint", None) or process.memory_full_info
    try:
        info = read()
    except psutil.AccessDenied:
        return None
    return Memory(info.uss, info.pss)


def running(roots: Collection[int] = ()) -> dict[str, list[Memory | None]]:
    """
    Return the memory of the running Airflow processes by role; None for one that may not be read.

    :param roots: process ids; only they and their descendants are looked at. All if empty.
    """
    processes = {each.pid: each for each in psutil.process_iter(["ppid", "cmdline", "status"])}
    roles: dict[int, str | None] = {}

    def role_of(pid: int) -> str | None:
        if pid not in processes:
            return None
        if pid not in roles:
            process, parent = processes[pid], role_of(processes[pid].info["ppid"])
            title = " ".join(process.info["cmdline"] or ())
            roles[pid] = classify(title, parent, listens=parent == SCHEDULER and _listens(process))
        return roles[pid]

    def wanted(pid: int) -> bool:
        return not roots or pid in roots or (pid in processes and wanted(processes[pid].info["ppid"]))

    found: dict[str, list[Memory | None]] = defaultdict(list)
    for pid, process in processes.items():
        role = role_of(pid)
        if role is None or process.info["status"] == psutil.STATUS_ZOMBIE or not wanted(pid):
            continue
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            found[role].append(_memory(process))
    return found


def table(found: dict[str, list[Memory | None]]) -> str:
    """Return a table of what ``running`` found."""
    lines = [f"{'MiB':<14}{'processes':>10}{'USS median':>12}{'USS':>10}{'PSS':>10}"]
    everything = [each for role in ROLES for each in found.get(role, ())]
    for role, readings in [*((role, found[role]) for role in ROLES if role in found), ("all", everything)]:
        known = [each for each in readings if each is not None]
        uss, pss = [each.uss / MIB for each in known], [each.pss / MIB for each in known]
        figures = (
            f"{statistics.median(uss):>12.1f}{sum(uss):>10.1f}{sum(pss):>10.1f}"
            if known
            else f"{'?':>12}{'?':>10}{'?':>10}"
        )
        lines.append(f"{role:<14}{len(readings):>10}{figures}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    if not all(each.isdigit() for each in arguments):
        print("pss: only process ids are taken; pss [PID ...]", file=sys.stderr)
        return 2
    found = running([int(each) for each in arguments])
    if not found:
        print("pss: no Airflow process is running here", file=sys.stderr)
        return 1
    print(table(found))
    if unreadable := sum(each is None for readings in found.values() for each in readings):
        print(f"pss: {unreadable} processes cannot be read, run it as root", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
