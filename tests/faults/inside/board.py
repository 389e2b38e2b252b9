# SPDX-License-Identifier: Apache-2.0
"""
What tasks say: who runs what, how often, and to its end; and gates that they wait at.

Memory in a file that all processes map, with a fixed place for each workload and no lock: a worker can be
killed at any instant without harm to what others say.
"""

from __future__ import annotations

import mmap
import struct
import time
from dataclasses import dataclass
from pathlib import Path

_RECORD = struct.Struct("=IIII")
_GATES = 64
_CAPACITY = 20_000


@dataclass(frozen=True)
class Entry:
    """What was said of one workload."""

    pid: int
    """Process that ran it last; 0 if none did."""
    starts: int
    finishes: int
    child: int
    """Process that its task has started, if any."""


class Board:
    """Places for workloads, and gates; all processes that open the same file share it."""

    def __init__(self, path: Path):
        self.path = path
        if not path.exists():
            path.write_bytes(bytes(_GATES + _CAPACITY * _RECORD.size))
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def entry(self, index: int) -> Entry:
        return Entry(*_RECORD.unpack_from(self._memory, _GATES + index * _RECORD.size))

    def write(self, index: int, entry: Entry) -> None:
        values = (entry.pid, entry.starts, entry.finishes, entry.child)
        _RECORD.pack_into(self._memory, _GATES + index * _RECORD.size, *values)

    def is_open(self, gate: int) -> bool:
        return bool(self._memory[gate])

    def open(self, gate: int) -> None:
        """Let those that wait at ``gate``, now or later, go on."""
        self._memory[gate] = 1

    def wait(self, gate: int) -> None:
        """Return when ``gate`` is open."""
        while not self.is_open(gate):
            time.sleep(0.005)
