# SPDX-License-Identifier: Apache-2.0
"""What is left of an executor that has ended, and of workers that have died."""

from __future__ import annotations

import gc
import os
import signal
import threading
from pathlib import Path

import psutil

from inside.pool import Pool
from inside.trial import Runner, Trial


def leaks(run: Runner, cycles: int = 50, parallelism: int = 4) -> list[dict]:
    """Start and end executors, and replace workers, many times."""
    return [
        run.case("start and end one executor", _cycle, [(cycles, parallelism, "same")]),
        run.case("start and end new executors", _cycle, [(cycles // 2, parallelism, "new")]),
        run.case("start and end, workers killed", _cycle, [(cycles // 5, parallelism, "killed")]),
        run.case("terminate", _cycle, [(cycles // 5, parallelism, "terminate")]),
        run.case("descriptors of replaced workers", _replace, [(parallelism,)]),
    ]


def _descriptors(pid: int | str) -> list[str]:
    """Return what the open descriptors of a process lead to."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(entry))
        except OSError:
            continue  # The one that this very look needs.
    return sorted(found)


def _cycle(trial: Trial, cycles: int, parallelism: int, mode: str) -> None:
    pool = Pool(trial, parallelism)
    before = None
    for number in range(cycles):
        if number and mode == "new":
            pool.executor = type(pool.executor)(parallelism=parallelism)
        pool.start()
        if mode == "killed":
            pool.settle(pool.offer(parallelism, "sleep", "0.01"))
            pool.until(lambda: pool.idle(), "no idle worker")
            pool.kill(pool.idle()[0], signal.SIGKILL)
        else:
            pool.offer(parallelism, "nothing")
            pool.settle()
        if mode == "terminate":
            pool.call("terminate")
        pool.end()
        if number == 1:
            # What is made once for all, such as a tracker of resources, is there by now.
            before = _state()
    after = _state()
    for what, count in after.items():
        trial.expect(count <= before[what], f"{what}: {before[what]} before, {count} after {cycles} cycles")
    trial.result.update(after)


def _state() -> dict[str, int]:
    gc.collect()
    return {
        "descriptors": len(_descriptors("self")),
        "processes": len(psutil.Process().children(recursive=True)),
        "threads": threading.active_count(),
        "mappings": sum("/dev/" in line for line in Path("/proc/self/maps").read_text().splitlines()),
    }


def _replace(trial: Trial, parallelism: int) -> None:
    """Replace every worker some times: a new one must not have more open than the first had."""
    pool = Pool(trial, parallelism)
    pool.start()
    pool.fill()
    first = {len(_descriptors(pid)) for pid in pool.idle()}
    for _ in range(3):
        for pid in pool.idle():
            pool.kill(pid, signal.SIGKILL)
            pool.settle(pool.offer(parallelism, "sleep", "0.02"))
        pool.fill(gate=10)
    last = {len(_descriptors(pid)) for pid in pool.idle()}
    trial.result.update(first=sorted(first), last=sorted(last))
    # The first ones differ: each has something of those that were forked before it.
    trial.expect(max(last) <= max(first), f"descriptors of workers at first {first}, of later ones {last}")
    pool.goes_on()
