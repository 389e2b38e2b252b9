# SPDX-License-Identifier: Apache-2.0
"""What is left of executors that have ended, and of workers that have died."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

from inside import system
from inside.pool import Pool
from inside.registry import scenario


@scenario()
def start_and_end_many_times(pool: Pool) -> None:
    """One executor or several, with all workers or without some, or after ``terminate()``."""
    states = []
    for _ in range(3):
        pool.executor = type(pool.executor)(parallelism=pool.parallelism)
        for what in ("nothing", "kill", "terminate"):
            pool.start()
            pool.settle(pool.queue(pool.parallelism, "nothing"))
            if what == "kill":
                pool.kill(pool.workers()[:1])
            if what == "terminate":
                pool.call("terminate")
            pool.end()
        states.append(_state())
    # What is made once for all, such as a tracker of resources, is there after the first ones.
    _, before, after = states
    pool.expect(all(after[what] <= before[what] for what in after), f"{before} before, {after} after")


def _state() -> dict[str, int]:
    gc.collect()
    return {
        "descriptors": system.descriptors(),
        "processes": len(system.descendants()),
        "threads": threading.active_count(),
        "shared memory": sum("/dev/" in line for line in Path("/proc/self/maps").read_text().splitlines()),
    }


@scenario()
def descriptors_of_replaced_workers(pool: Pool) -> None:
    """A new worker has no more open than the first had."""
    pool.fill()
    first = [system.descriptors(pid) for pid in pool.workers()]
    for _ in range(2):
        pool.kill(pool.workers())
        pool.queue(pool.parallelism, "sleep", "0.02")
        pool.settle()
        pool.until(pool.is_idle, "the pool is not complete again")
    last = [system.descriptors(pid) for pid in pool.workers()]
    # The first ones differ: each has something of those that were forked before it.
    pool.expect(max(last) <= max(first), f"descriptors of workers: {first} at first, {last} later")
    pool.goes_on()
