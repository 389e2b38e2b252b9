# SPDX-License-Identifier: Apache-2.0
"""
Memory of the scheduler's process tree, by role.

Only USS (what one process has for itself) and PSS (its fair part of what is shared) are read, in bytes.
RSS is not: it counts a shared page once per process, so its sum over forked processes means nothing.
"""

from __future__ import annotations

import re
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

SCHEDULER = "scheduler"
SERVE_LOGS = "serve-logs"
WORKER_IDLE = "worker idle"
WORKER_BUSY = "worker busy"
SNAPSHOT = "snapshot"
"""The standard library's fork server, from which workers are forked with that start method."""
TASK = "task"
OTHER = "other"
ROLES = (SCHEDULER, SERVE_LOGS, SNAPSHOT, WORKER_IDLE, WORKER_BUSY, TASK, OTHER)
WORKERS = (WORKER_IDLE, WORKER_BUSY)

_WORKER_TITLE = re.compile(r"airflow worker -- LocalExecutor\b[^:]*: ?(.*)")


def classify(title: str, parent_role: str | None) -> str:
    """
    Return the role of a process of the scheduler's tree.

    :param title: its process title, i.e. its command line as one string
    :param parent_role: role of its parent, None for the root of the tree, which is the scheduler
    """
    if parent_role is None:
        return SCHEDULER
    # A fork has its parent's title until it sets its own, so what a worker starts is told by its parent.
    if parent_role in (*WORKERS, TASK):
        return TASK
    if match := _WORKER_TITLE.match(title):
        return WORKER_IDLE if match[1].startswith("<idle>") else WORKER_BUSY
    if title.startswith("airflow worker -- "):
        return TASK
    if title.startswith("airflow serve-logs"):
        return SERVE_LOGS
    if "multiprocessing.forkserver" in title:
        return SNAPSHOT
    return OTHER


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
    """The process tree at one moment; its processes are read one after the other, within ``cost`` seconds."""

    time: float
    """Seconds since the sampler's zero."""
    cost: float
    """Seconds that reading took."""
    readings: tuple[Reading, ...]

    def of(self, *roles: str) -> list[Reading]:
        """Return the readings of the processes in ``roles``; of all without argument."""
        return [reading for reading in self.readings if not roles or reading.role in roles]

    def count(self, *roles: str) -> int:
        return len(self.of(*roles))

    def total(self, figure: str, *roles: str) -> int:
        """Return the sum of ``uss`` or ``pss`` in bytes; unreadable processes are not in it."""
        return sum(getattr(reading, figure) or 0 for reading in self.of(*roles))

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


def cpu_seconds(root: int) -> float:
    """
    Return the CPU time in seconds that a process tree has used, with its children that have ended.

    :raises psutil.NoSuchProcess: if the root of the tree is gone
    """
    process = psutil.Process(root)
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            total += sum(each.cpu_times()[:4])
        except psutil.NoSuchProcess:
            # Its time is that of a child of its parent now.
            continue
    return total


def summarize(readings: Iterable[Reading]) -> dict:
    """
    Return count, unreadable, and median, largest and total of USS and PSS in bytes, of some processes.

    They are over the readable ones, and None when there is none.
    """
    readings = list(readings)
    summary: dict = {"count": len(readings), "unreadable": sum(r.pss is None for r in readings)}
    for figure in ("uss", "pss"):
        values = [v for r in readings if (v := getattr(r, figure)) is not None]
        summary[f"{figure}_median"] = statistics.median(values) if values else None
        summary[f"{figure}_max"] = max(values, default=None)
        summary[f"{figure}_total"] = sum(values) if values else None
    return summary


def tree_summary(sample: Sample) -> dict:
    """
    Return ``summarize`` of the whole tree and of each role; idle and busy workers together are ``workers``.

    A role without processes has the count 0.
    """
    groups = {"tree": ROLES, "scheduler": (SCHEDULER,), "serve-logs": (SERVE_LOGS,), "workers": WORKERS}
    groups |= {"snapshot": (SNAPSHOT,), "task": (TASK,), "other": (OTHER,)}
    return {name: summarize(sample.of(*roles)) for name, roles in groups.items()}


def _footprint(process: psutil.Process) -> tuple[int | None, int | None]:
    # psutil is renaming this call; the new name is not in any release that we pin yet.
    read = getattr(process, "memory_footprint", None) or process.memory_full_info
    try:
        info = read()
    except psutil.AccessDenied:
        return None, None
    return info.uss, info.pss


def read_tree(root: int, zero: float = 0.0) -> Sample:
    """
    Read every process of the tree under ``root`` once.

    :param root: pid of the scheduler
    :param zero: value of ``time.monotonic()`` that is time 0 of the sample
    :raises psutil.NoSuchProcess: if ``root`` is gone
    """
    started = time.monotonic()
    top = psutil.Process(root)
    roles: dict[int, str] = {}
    readings = []
    # Parents come before their children: a child's role depends on its parent's.
    for process in (top, *top.children(recursive=True)):
        try:
            parent = process.ppid()
            if process.status() == psutil.STATUS_ZOMBIE or (process != top and parent not in roles):
                continue
            role = classify(" ".join(process.cmdline()), None if process == top else roles[parent])
            uss, pss = _footprint(process)
        except psutil.NoSuchProcess:
            if process == top:
                raise
            continue
        roles[process.pid] = role
        readings.append(Reading(process.pid, role, uss, pss))
    return Sample(started - zero, time.monotonic() - started, tuple(readings))


class Sampler:
    """
    Reads a process tree every ``interval`` seconds in a thread, from ``start`` to ``stop``.

    It stops by itself when the root of the tree is gone.
    """

    def __init__(self, root: int, *, interval: float = 2.0, zero: float | None = None):
        self.root = root
        self.interval = interval
        self.zero = time.monotonic() if zero is None else zero
        self.samples: list[Sample] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="memory-sampler", daemon=True)

    def start(self) -> Sampler:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> Sampler:
        return self.start()

    def __exit__(self, *exc) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                sample = self.now()
            except psutil.NoSuchProcess:
                return
            self._stop.wait(max(self.interval - sample.cost, 0.1))

    def now(self) -> Sample:
        """
        Read the tree at once, and keep the sample with the others.

        :raises psutil.NoSuchProcess: if the root of the tree is gone
        """
        with self._lock:
            sample = read_tree(self.root, self.zero)
            self.samples.append(sample)
        return sample

    @property
    def cost(self) -> float:
        """Seconds that all reading took so far."""
        return sum(sample.cost for sample in self.samples)

    def settle(
        self,
        ready: Callable[[Sample], bool] = lambda sample: True,
        *,
        pause: float = 1.0,
        rounds: int = 3,
        timeout: float = 30.0,
        check: Callable[[], None] = lambda: None,
    ) -> tuple[Sample, bool]:
        """
        Wait until the tree is at rest, and return its sample, and whether it came to rest in time.

        At rest: ``ready`` holds, and over ``rounds`` pauses the processes and their roles are the same, and
        the total USS moves by less than 1 MiB.

        :param ready: what else must be true of the sample
        :param pause: seconds between two looks
        :param timeout: seconds after which the last sample is returned as it is
        :param check: called at each look; what it raises ends the wait
        """
        deadline = time.monotonic() + timeout
        last: Sample | None = None
        quiet = 0
        while True:
            check()
            sample = self.now()
            same = (
                last is not None
                and {(r.pid, r.role) for r in last.readings} == {(r.pid, r.role) for r in sample.readings}
                and abs(sample.total("uss") - last.total("uss")) < 2**20
            )
            quiet = quiet + 1 if same and ready(sample) else 0
            if quiet >= rounds:
                return sample, True
            if time.monotonic() >= deadline:
                return sample, False
            last = sample
            time.sleep(pause)
