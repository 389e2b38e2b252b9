# SPDX-License-Identifier: Apache-2.0
"""Processes and descriptors, as Linux shows them."""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Adopt descendants whose parents end."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _read(pid: int, name: str) -> str:
    """Return a file of a process; empty if it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
    return ""


def descendants(pid: int | None = None) -> list[int]:
    """Return all processes below ``pid`` (this one) that have not ended."""
    found = []
    for child in map(int, _read(pid or os.getpid(), f"task/{pid or os.getpid()}/children").split()):
        found += [child] if is_alive(child) else []
        found += descendants(child)
    return found


def state(pid: int) -> str:
    """Return the state of a process: ``R`` running, ``S`` sleeping, ``Z`` zombie, empty: gone."""
    return (_read(pid, "stat").rpartition(")")[2].split() or [""])[0]


def is_alive(pid: int) -> bool:
    return state(pid) not in ("Z", "X", "")


def title(pid: int) -> str:
    return _read(pid, "cmdline").replace("\0", " ").strip()


def is_writing(pid: int) -> bool:
    """Return whether a process waits for room in a pipe."""
    return "pipe_write" in _read(pid, "wchan")


def seconds_waited_for_cpu() -> float:
    """Return how long this process has waited for a processor so far: time that it cannot help."""
    # Empty in a process that can open no more files.
    return int((_read(os.getpid(), "schedstat").split() or "00")[1]) / 1e9


def descriptors(pid: int | None = None) -> int:
    """Return how many descriptors a process (this one) has open."""
    # Of this process, without the one for this look.
    return len(os.listdir(f"/proc/{pid or os.getpid()}/fd")) - (pid is None)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def reap() -> None:
    """Collect all children that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
