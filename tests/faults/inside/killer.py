# SPDX-License-Identifier: Apache-2.0
"""
Kills random workers of its parent process at random moments until its standard input is closed.

Usage: ``killer.py INTERVAL SEED``; prints the process ids. Standard library only, so that it starts at once.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
from pathlib import Path

TITLE = b"airflow worker -- LocalExecutor"


def children(pid: int) -> list[int]:
    found: list[int] = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found.append(int(child))
        try:
            found += children(int(child))
        except OSError:
            continue
    return found


def kill(pid: int) -> bool:
    """Kill ``pid`` if it is a worker; a process that got the number since then is safe."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(TITLE):
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def main(interval: float, seed: int) -> None:
    chance = random.Random(seed)
    parent = os.getppid()
    while not select.select([sys.stdin], [], [], chance.expovariate(1 / interval))[0]:
        pids = children(parent)
        chance.shuffle(pids)
        for pid in pids:
            if kill(pid):
                print(pid, flush=True)
                break


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
