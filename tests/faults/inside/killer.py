# SPDX-License-Identifier: Apache-2.0
"""
Kills a random worker of its parent for each ``k`` on its standard input, a random time later; ends at ``q``.

Usage: ``killer.py SECONDS SEED``; SECONDS is the mean of that time. Prints the process ids. Standard library
only, so that it starts at once.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
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
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        print(pid, flush=True)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def main(seconds: float, seed: int) -> None:
    chance = random.Random(seed)
    parent = os.getppid()
    while os.read(0, 1) == b"k":
        time.sleep(chance.expovariate(1 / seconds))
        # There may be none at this moment, or the chosen one is dead already.
        while os.getppid() == parent and not any(map(kill, shuffled(children(parent), chance))):
            time.sleep(0.001)


def shuffled(pids: list[int], chance: random.Random) -> list[int]:
    return chance.sample(pids, len(pids))


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
