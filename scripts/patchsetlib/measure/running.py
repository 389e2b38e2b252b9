# SPDX-License-Identifier: Apache-2.0
"""
A running scheduler with LocalExecutor, from outside: its workers, and whether they can get tasks.

Everything is read from ``/proc``. No process is stopped, traced or written to. If the one that is looked at
has ended, that is a ``psutil.NoSuchProcess``.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import platform
import re
import statistics
import struct
import termios
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from patchsetlib.measure import memory
from patchsetlib.patches.base import Base
from patchsetlib.shell.paths import ROOT

_TITLE = re.compile(r"airflow worker -- LocalExecutor(?: \[(?P<team>[^\]]*)\])?: ?(?P<work>.*)")
_PIPE = r"pipe:\[(\d+)\]"
# Numbers of read, write and futex; wchan tells less, but of all architectures.
_CALLS = {"x86_64": {0: "read", 1: "write", 202: "futex"}, "aarch64": {63: "read", 64: "write", 98: "futex"}}

LOCK, QUEUE, FULL, STOPPED, ELSEWHERE, UNKNOWN = "lock", "queue", "full", "stopped", "elsewhere", "unknown"
"""Where a process waits: for a lock between processes, to read, to write, for SIGCONT; or not for these."""


def find() -> list[psutil.Process]:
    """Return the running schedulers, without the processes that they have forked, by process id."""
    found = {}
    for process in psutil.process_iter(["cmdline", "ppid", "status"]):
        if _is_scheduler(process.info["cmdline"]) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found[process.pid] = process
    return [process for _, process in sorted(found.items()) if process.info["ppid"] not in found]


def _is_scheduler(words: list[str] | None) -> bool:
    # "python -m airflow scheduler", "python /env/bin/airflow scheduler -D", but not "tini airflow scheduler"
    if not words or not os.path.basename(words[0]).startswith("python"):
        return False
    pairs = itertools.pairwise(words[1:5])
    return any(os.path.basename(word) == "airflow" and then == "scheduler" for word, then in pairs)


def is_scheduler(process: psutil.Process) -> bool:
    """Return whether this looks like a scheduler: by its command, or by having workers of its own."""
    if _is_scheduler(process.cmdline()):
        return True
    children = {child.pid for child in process.children(recursive=True)}
    return not any(each.pid in children for each in find()) and bool(read_workers(process))


def orphans() -> list[int]:
    """Return the workers whose scheduler has ended without them."""
    with suppress(psutil.Error):
        # In a container, the first process may be a scheduler itself.
        if _is_scheduler(psutil.Process(1).cmdline()):
            return []
    processes = psutil.process_iter(["cmdline", "ppid"])
    return [
        p.pid for p in processes if p.info["ppid"] == 1 and _TITLE.match(" ".join(p.info["cmdline"] or ()))
    ]


@dataclass(frozen=True)
class Place:
    """Where a process finds its files."""

    root: Path
    """What is ``/`` for it, as this process reaches it; ``/`` itself unless it is in a container."""
    paths: tuple[Path, ...]
    """Directories that it imports from, as far as they can be told; empty if they cannot."""
    gone: tuple[str, ...]
    """Such directories that have been deleted since."""
    python_version: str | None
    shadows: tuple[str, ...]
    """Entries of PYTHONPATH with an ``airflow`` that comes before the installed one."""


def place(process: psutil.Process, environment: Mapping[str, str]) -> Place:
    """Return where ``process`` finds its files; nothing is run for it."""
    proc = Path("/proc", str(process.pid))
    root = Path("/")
    with suppress(OSError):
        if not os.path.samefile(proc / "root", "/"):
            root = proc / "root"
    sites: list[str] = []
    # Its extension modules are mapped from where its modules are. That is certain, whoever has started it.
    with suppress(OSError):
        maps = (proc / "maps").read_text(errors="surrogateescape")
        sites += re.findall(r"\s(/[^\n]*?/(?:site|dist)-packages)/", maps)
    with suppress(psutil.Error, IndexError):
        prefix = Path(process.cmdline()[0]).parent.parent
        if prefix.is_absolute():
            sites += map(str, sorted((root / prefix.relative_to("/")).glob("lib/python3*/site-packages")))
    version = next((m[1] for site in sites if (m := re.search(r"/python(3\.\d+)/", site))), None)
    paths, gone = [], []
    for site in dict.fromkeys(sites):
        path = Path(site) if site.startswith("/proc/") else root / site.lstrip("/")
        if os.path.isdir(path):
            paths.append(path)
        elif not os.path.lexists(path):
            gone.append(site)
    ahead = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry.startswith("/")]
    shadows = [entry for entry in ahead if os.path.isdir(root / entry.lstrip("/") / "airflow")]
    return Place(root, tuple(dict.fromkeys(paths)), tuple(gone), version, tuple(shadows))


@dataclass(frozen=True)
class Wait:
    """What a process waits for."""

    kind: str
    what: int | None = None
    """Inode of the lock or of the pipe, where it can be told; of what is stopped, that of the lock."""


@dataclass(frozen=True)
class Worker:
    """A worker process at one moment."""

    pid: int
    team: str | None
    idle: bool
    wait: Wait
    switches: int
    """See ``_still``."""
    own_session: bool
    """Those of the pool of this patch set lead a session of their own, those of stock never do."""


def read_workers(scheduler: psutil.Process) -> list[Worker]:
    """Return the workers of a scheduler, or of the fork server that it has."""
    found = []
    for process in scheduler.children(recursive=True):
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            match = _TITLE.match(" ".join(process.cmdline()))
            # What a worker forks has its title for a moment.
            forked = process.ppid() in {worker.pid for worker in found}
            if match and not forked and process.status() != psutil.STATUS_ZOMBIE:
                idle = match["work"].startswith("<idle>")
                own_session = os.getsid(process.pid) == process.pid
                found.append(Worker(process.pid, match["team"], idle, *_still(process), own_session))
    return found


def wait_of(process: psutil.Process) -> Wait:
    """Return what the main thread of ``process`` waits for."""
    wait = _call_of(Path("/proc", str(process.pid)))
    if process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP):
        # The system call in which it was stopped stays.
        return Wait(STOPPED, wait.what if wait.kind == LOCK else None)
    return wait


def _call_of(proc: Path) -> Wait:
    """Return what the system call is about in which a process is, if it is in one."""
    # /proc/PID/syscall needs the right to trace it; wchan, that to read of it.
    with suppress(OSError, ValueError, IndexError):
        words = (proc / "syscall").read_text().split()
        calls = _CALLS.get(platform.machine())
        if words[0] == "running":
            return Wait(ELSEWHERE)
        if calls and len(words) > 3:
            call, first = calls.get(int(words[0])), int(words[1], 16)
            if call == "futex":
                if lock := _lock_at(proc, first):
                    return Wait(LOCK, lock)
            elif call and (pipe := re.fullmatch(_PIPE, os.readlink(proc / "fd" / str(first)))):
                return Wait(QUEUE if call == "read" else FULL, int(pipe[1]))
            return Wait(ELSEWHERE)
    with suppress(OSError):
        name = (proc / "wchan").read_text()
        if name not in ("", "0"):
            kinds = {"futex": LOCK, "pipe_read": QUEUE, "pipe_write": FULL}
            return Wait(next((kind for part, kind in kinds.items() if part in name), ELSEWHERE))
    return Wait(UNKNOWN)


def _lock_at(proc: Path, address: int) -> int | None:
    """Return the inode of the semaphore shared between processes that is at ``address``, if one is."""
    for line in (proc / "maps").read_text(errors="surrogateescape").splitlines():
        if "/dev/shm/sem." in line:
            words = line.split(maxsplit=5)
            start, end = (int(word, 16) for word in words[0].split("-"))
            if start <= address < end:
                return int(words[4])
    return None


@dataclass(frozen=True)
class Finding:
    """What a scheduler's workers can be said to do."""

    workers: tuple[Worker, ...]
    problems: tuple[str, ...]
    unknown: tuple[str, ...]
    """What cannot be told, and why."""
    wedged: bool | None
    """Whether no idle worker can get a task any more; None if that cannot be told."""
    holder: int | None
    """The living process that holds the lock that the others wait for."""
    unread: int | None
    """Bytes of tasks that are handed to the executor, and that no worker has taken yet."""

    @property
    def patched(self) -> bool | None:
        """Whether the workers are those of this patch set; None if there are none."""
        return all(worker.own_session for worker in self.workers) if self.workers else None


def look(scheduler: psutil.Process, pause: float = 0.1) -> Finding:
    """Look at a scheduler and its workers, twice, with ``pause`` seconds between."""
    first, before = read_workers(scheduler), _still(scheduler)
    time.sleep(pause)
    workers, after = read_workers(scheduler), _still(scheduler)
    stopped = [f"worker {worker.pid}" for worker in workers if worker.wait.kind == STOPPED]
    if after[0].kind == STOPPED:
        stopped.append(f"the scheduler {scheduler.pid}")
    problems = [f"{each} is stopped (SIGCONT lets it go on)" for each in stopped]
    unknown: list[str] = []
    wedged, holder, unread = False, None, None
    if workers and not all(worker.own_session for worker in workers):
        unread = _unread(scheduler.pid, workers)
        if before == after and after[0].kind == FULL:
            problems.append("the scheduler hangs: it writes to a full queue that no worker reads")
        elif before == after and after[0].kind == LOCK and after[0].what:
            problems.append("the scheduler hangs: it waits for a lock that it shares with its workers")
        states = []
        for team in {worker.team for worker in workers}:
            group = [worker for worker in workers if worker.team == team]
            state, who, said = _judge(group, set(first) & set(workers), after[0])
            if said:
                (problems if state else unknown).append(said)
            states.append(state)
            holder = holder or who
        wedged = True if True in states else None if None in states else False
        if wedged and unread:
            problems.append(f"{unread} bytes of tasks wait in its queue")
    return Finding(tuple(workers), tuple(problems), tuple(unknown), wedged, holder, unread)


def _judge(
    workers: list[Worker], asleep: set[Worker], scheduler: Wait
) -> tuple[bool | None, int | None, str | None]:
    """
    Return whether the workers of one stock executor are wedged, who holds the lock, and what to say.

    All idle workers wait for one lock, but the one that has it, which waits for a task. The lock does not say
    who has it; what waits for it, stopped or not, does not. If none of the living can, it is lost for good.
    """
    idle = [worker for worker in workers if worker.idle]
    waiting = [worker for worker in idle if worker.wait.kind == LOCK]
    if any(worker.wait.kind == UNKNOWN for worker in idle):
        return None, None, "whether it is wedged: its workers cannot be read; run this as root"
    # One that has not run between two looks has not been given the lock meanwhile either.
    if (
        not waiting
        or any(worker.wait.kind not in (LOCK, STOPPED) for worker in idle)
        or not asleep.issuperset(waiting)
        or len({worker.wait.what for worker in waiting}) > 1
    ):
        return False, None, None
    count = f"{len(waiting)} idle workers wait" if len(waiting) > 1 else "one idle worker waits"
    for worker in idle:
        if worker.wait.kind == STOPPED and not worker.wait.what:
            line = f"wedged: {count} for a lock that worker {worker.pid} holds, which is stopped"
            return True, worker.pid, line
    for worker in workers:
        if worker.wait.kind == FULL:
            reads = "which waits for the scheduler to read its result"
            return True, worker.pid, f"wedged: {count} for worker {worker.pid}, {reads}"
    if any(wait.kind == STOPPED and not wait.what for wait in (scheduler, *(w.wait for w in workers))):
        return None, None, "whether it is wedged: what is stopped may hold the lock that its workers wait for"
    died = "has died" if all(worker.wait.what for worker in waiting) else "has probably died"
    until = "no task will start until the scheduler is restarted"
    return True, None, f"wedged: {count} for a lock whose holder {died}; {until}"


def _still(process: psutil.Process) -> tuple[Wait, int]:
    """Return what a process waits for, and a number that stays the same for as long as it has not run."""
    switches = process.num_ctx_switches()
    return wait_of(process), switches.voluntary + switches.involuntary


def _unread(pid: int, workers: Iterable[Worker]) -> int | None:
    """
    Return how many bytes lie in the queue of tasks of a stock scheduler; None if that cannot be told.

    It has both ends of its two queues, and so has each worker; that of the tasks is made first.
    """
    theirs = next(filter(None, (_pipes(worker.pid) for worker in workers)), {})
    shared = [fd for inode, fd in _pipes(pid).items() if inode in theirs]
    if len(shared) != 2:
        return None
    try:
        # This opens the pipe once more for reading, and reads nothing.
        fd = os.open(f"/proc/{pid}/fd/{min(shared)}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0]
        finally:
            os.close(fd)
    except OSError:
        return None


def _pipes(pid: int) -> dict[int, int]:
    """Return the pipes that a process has both ends of: inode and lowest descriptor."""
    ends: dict[int, dict[bool, int]] = {}
    directory = Path("/proc", str(pid), "fd")
    names: list[str] = []
    with suppress(OSError):
        names = sorted(os.listdir(directory), key=int)
    for name in names:
        with suppress(OSError):
            if match := re.fullmatch(_PIPE, os.readlink(directory / name)):
                writes = bool(os.lstat(directory / name).st_mode & 0o200)
                ends.setdefault(int(match[1]), {}).setdefault(writes, int(name))
    return {inode: min(found.values()) for inode, found in ends.items() if len(found) == 2}


HEALTH_CHECK = "health check"
"""Role of the scheduler's child that answers health checks: it keeps the scheduler's title."""


def read_memory(scheduler: psutil.Process) -> memory.Sample:
    """Read the memory of a scheduler's tree, by role."""
    sample = memory.read_tree(scheduler.pid)
    title, readings = scheduler.cmdline(), []
    for reading in sample.readings:
        with suppress(psutil.Error):
            if reading.role == memory.OTHER and psutil.Process(reading.pid).cmdline() == title:
                reading = replace(reading, role=HEALTH_CHECK)
        readings.append(reading)
    return replace(sample, readings=tuple(readings))


@dataclass(frozen=True)
class Saving:
    """What was measured of stock and patched at a moment like this one."""

    ratio: float
    """PSS of the tree, patched to stock."""
    moment: str
    grown: bool
    """Whether the workers have run enough to be compared; before that, the patched one takes more."""
    file: Path


def saving(base: Base, sample: memory.Sample) -> Saving | None:
    """Return what the patches would save of a stock tree, as it was measured; None if it was not."""
    moment = "at the peak" if sample.count(memory.TASK) else "60 s after"
    for file in sorted((ROOT / "docs" / "benchmarks").glob("*/memory.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        # As bench calls them: another base than the one that was measured first has its name there.
        suffix = "" if data["base"] == base.name else f" {base.name}"
        stock, patched = (
            [
                memory.Sample.from_json(run["moments"][moment])
                for run in data["runs"]
                if run["label"] == kind + suffix and moment in run.get("moments", ())
            ]
            for kind in ("stock", "patched")
        )
        if stock and patched:
            now, then = (s.median("uss", *memory.WORKERS) or 0 for s in (sample, stock[0]))
            before, after = (
                statistics.median(s.total("pss") for s in samples) for samples in (stock, patched)
            )
            return Saving(after / before, moment, now > then / 2, file)
    return None
