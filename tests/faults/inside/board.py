# SPDX-License-Identifier: Apache-2.0
"""
What the tasks of a trial tell the trial: who ran what, when, and how often.

Memory in a file that all processes map, with a fixed place for each workload and no lock: a worker can be
killed at any instant without harm to what the others tell.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass

_RECORD = struct.Struct("=IIIIdd")
_GATES = 256


@dataclass(frozen=True)
class Entry:
    """One workload, as its tasks told it."""

    pid: int
    """Process that ran it last; 0 if none did."""
    starts: int
    finishes: int
    started: float
    """Seconds of ``time.monotonic``."""
    ended: float


class Board:
    """Places for ``capacity`` workloads, and gates that tasks wait at."""

    def __init__(self, path: str, capacity: int | None = None):
        self.path = path
        if capacity is not None:
            with open(path, "wb") as file:
                file.truncate(_GATES + capacity * _RECORD.size)
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def clear(self) -> None:
        """Forget everything and close all gates."""
        self._memory[:] = bytes(len(self._memory))

    def _place(self, index: int) -> int:
        return _GATES + index * _RECORD.size

    def entry(self, index: int) -> Entry:
        pid, starts, finishes, _, started, ended = _RECORD.unpack_from(self._memory, self._place(index))
        return Entry(pid, starts, finishes, started, ended)

    def start(self, index: int) -> None:
        """Say that this process starts workload ``index``."""
        before = self.entry(index)
        values = (os.getpid(), before.starts + 1, before.finishes, 0, time.monotonic(), before.ended)
        _RECORD.pack_into(self._memory, self._place(index), *values)

    def finish(self, index: int) -> None:
        """Say that the task of workload ``index`` is done and only its result is to be reported."""
        before = self.entry(index)
        values = (before.pid, before.starts, before.finishes + 1, 0, before.started, time.monotonic())
        _RECORD.pack_into(self._memory, self._place(index), *values)

    def is_running(self, index: int) -> bool:
        """Return whether a task has started and not finished (its process may have been killed since)."""
        entry = self.entry(index)
        return entry.starts > entry.finishes

    def open(self, gate: int) -> None:
        """Let the tasks that wait at ``gate``, now or later, go on."""
        self._memory[gate] = 1

    def wait(self, gate: int) -> None:
        """Return when ``gate`` is open."""
        while not self._memory[gate]:
            time.sleep(0.002)
