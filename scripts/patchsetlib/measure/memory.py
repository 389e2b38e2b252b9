# SPDX-License-Identifier: Apache-2.0
"""
Memory of the processes of the scheduler or of an edge worker, and CPU time of all components, by role.

Only USS (what one process has for itself) and PSS (its fair part of what is shared) are read, in bytes.
RSS is not: it counts a shared page once per process, so its sum over forked processes means nothing.
If the root of a tree has ended, that is a ``psutil.NoSuchProcess``.
"""

from __future__ import annotations

import re
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

SCHEDULER = "scheduler"
EDGE_WORKER = "edge-worker"
"""Forks a process for each task, here called a busy worker."""
SERVE_LOGS = "serve-logs"
WORKER_IDLE = "worker idle"
WORKER_BUSY = "worker busy"
FORK_SERVER = "fork server"
"""The standard library's, from which workers are forked with that start method."""
TASK = "task"
OTHER = "other"
WORKERS = (WORKER_IDLE, WORKER_BUSY)
GROUPS = {role: (role,) for role in (SCHEDULER, EDGE_WORKER, SERVE_LOGS, FORK_SERVER)}
GROUPS |= {"workers": WORKERS, TASK: (TASK,), OTHER: (OTHER,)}
"""The roles as they are reported: idle and busy workers together."""

_WORKER_TITLE = re.compile(r"airflow worker -- LocalExecutor\b[^:]*: ?(.*)")
# Whose the CPU time of children that have ended is; otherwise their parent's.
_ENDED_CHILDREN = dict.fromkeys((SCHEDULER, EDGE_WORKER, FORK_SERVER), "workers")
_ENDED_CHILDREN |= dict.fromkeys(WORKERS, TASK)


def classify(title: str, parent_role: str) -> str:
    """
    Return the role of a process that the scheduler or another component has started, at whatever remove.

    :param title: its process title, i.e. its command line as one string
    """
    # A fork has its parent's title until it sets its own, so what a worker starts is told by its parent.
    if parent_role in (*WORKERS, TASK):
        return TASK
    if parent_role == EDGE_WORKER:
        return WORKER_BUSY
    if parent_role not in GROUPS:
        return parent_role
    if match := _WORKER_TITLE.match(title):
        return WORKER_IDLE if match[1].startswith("<idle>") else WORKER_BUSY
    if title.startswith("airflow serve-logs"):
        return SERVE_LOGS
    return FORK_SERVER if "multiprocessing.forkserver" in title else OTHER


def _tree(root: int, role: str) -> Iterator[tuple[psutil.Process, str]]:
    """Yield the processes of a tree with their roles, parents before children."""
    top = psutil.Process(root)
    if top.status() == psutil.STATUS_ZOMBIE:
        raise psutil.NoSuchProcess(root)
    roles = {root: role}
    yield top, role
    for process in top.children(recursive=True):
        try:
            parent = process.ppid()
            if process.status() == psutil.STATUS_ZOMBIE or parent not in roles:
                continue
            roles[process.pid] = classify(" ".join(process.cmdline()), roles[parent])
        except psutil.NoSuchProcess:
            continue
        yield process, roles[process.pid]


def cpu_seconds(components: Mapping[str, int]) -> dict[str, float]:
    """
    Return the CPU seconds used so far by role, those of ended processes included.

    Ended children of a worker are tasks; those of the scheduler are workers, with the tasks these had run.

    :param components: process ids by role of the component
    """
    spent: Counter[str] = Counter()
    for component, root in components.items():
        for process, role in _tree(root, component):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                # Its time is that of an ended child of its parent now.
                continue
            group = "workers" if role in WORKERS else role
            spent[group] += times.user + times.system
            spent[_ENDED_CHILDREN.get(role, group)] += times.children_user + times.children_system
    return {role: round(seconds, 2) for role, seconds in spent.items()}


@dataclass(frozen=True)
class Reading:
    """One process at one moment."""

    pid: int
    role: str
    uss: int | None
    """Bytes; None if the process may not be read (not dumpable, and we are not root)."""
    pss: int | None


@dataclass(frozen=True)
class Sample:
    """A tree at one moment; its processes are read one after the other, in ``cost`` seconds."""

    time: float
    """Seconds since the sampler's zero."""
    cost: float
    readings: tuple[Reading, ...]

    # Of the processes in ``roles``; of all without any. Those that cannot be read are in no sum and median.

    def count(self, *roles: str) -> int:
        return sum(not roles or reading.role in roles for reading in self.readings)

    def total(self, figure: str, *roles: str) -> int:
        """Return the sum of ``uss`` or ``pss`` in bytes."""
        return sum(self._values(figure, roles))

    def median(self, figure: str, *roles: str) -> float | None:
        """Return the median of ``uss`` or ``pss`` in bytes; None if no process could be read."""
        values = self._values(figure, roles)
        return statistics.median(values) if values else None

    def _values(self, figure: str, roles: tuple[str, ...]) -> list[int]:
        values = [getattr(each, figure) for each in self.readings if not roles or each.role in roles]
        return [value for value in values if value is not None]

    @property
    def unreadable(self) -> int:
        return sum(reading.pss is None for reading in self.readings)

    def as_json(self) -> dict:
        return {
            "time": round(self.time, 3),
            "cost": round(self.cost, 4),
            "processes": [[r.pid, r.role, r.uss, r.pss] for r in self.readings],
        }

    @classmethod
    def from_json(cls, data: dict) -> Sample:
        return cls(data["time"], data["cost"], tuple(Reading(*each) for each in data["processes"]))


def read_tree(root: int, zero: float = 0.0, role: str = SCHEDULER) -> Sample:
    """
    Read every process of a tree once.

    :param root: pid of the scheduler, or of what else ``role`` says
    :param zero: value of ``time.monotonic()`` that is time 0 of the sample
    """
    started = time.monotonic()
    readings = []
    for process, each in _tree(root, role):
        try:
            info = process.memory_full_info()
            readings.append(Reading(process.pid, each, info.uss, info.pss))
        except psutil.AccessDenied:
            readings.append(Reading(process.pid, each, None, None))
        except psutil.NoSuchProcess:
            if process.pid == root:
                raise
    return Sample(started - zero, time.monotonic() - started, tuple(readings))


def at_rest(samples: Sequence[Sample], rounds: int = 3) -> bool:
    """
    Return whether over the last ``rounds`` intervals no process came, went or changed its role, and their
    total USS moved by less than 1 MiB.
    """
    last = samples[-rounds - 1 :]
    processes = {frozenset((each.pid, each.role) for each in sample.readings) for sample in last}
    sizes = [sample.total("uss") for sample in last]
    return len(last) > rounds and len(processes) == 1 and max(sizes) - min(sizes) < 2**20


class Sampler:
    """Reads a tree every ``interval`` seconds in a thread, for as long as the context lasts."""

    def __init__(self, root: int, *, interval: float = 1.0, role: str = SCHEDULER):
        self.root, self.role = root, role
        self.interval = interval
        """May be changed at any time."""
        self.zero = time.monotonic()
        self.samples: list[Sample] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with suppress(psutil.NoSuchProcess):
            while not self._stop.wait(max(self.interval - self.now().cost, 0.1)):
                pass

    def now(self) -> Sample:
        """Read the tree at once, and keep the sample with the others."""
        with self._lock:
            self.samples.append(read_tree(self.root, self.zero, self.role))
            return self.samples[-1]
