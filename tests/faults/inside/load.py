# SPDX-License-Identifier: Apache-2.0
"""More work than slots: nothing may hold the scheduler up, and slots are what they say."""

from __future__ import annotations

import itertools
import pickle
import time

from inside.pool import PAUSE, Pool, make_workload
from inside.trial import Runner, Trial

HELD_UP = 0.1
"""Seconds that a call into the executor may take beyond its own work."""


def overload(
    run: Runner, workloads: int = 5000, size: int = 100_000, parallelism: int = 2, limit: float = 90.0
) -> list[dict]:
    """Offer many large workloads to few slots."""
    arguments = [(workloads, size, parallelism)]
    return [
        run.case("large workloads on few slots", _overload, arguments, limit=limit),
        run.case("slots while all are taken", _slots, [(parallelism, 0)]),
        run.case("slots while all are taken, large workloads", _slots, [(parallelism, size)]),
    ]


def _calibrate(size: int, queued: int) -> float:
    """Return the seconds that a call needs to order ``queued`` workloads and pickle one for each slot."""
    workload = make_workload(0, "nothing", "", "x" * size)
    started = time.process_time()
    for _ in range(10):
        pickle.dumps(workload)
    pickling = (time.process_time() - started) / 10
    items = dict.fromkeys(range(queued), workload)
    started = time.process_time()
    ordered = sorted(items.items(), key=lambda item: item[1].ti.priority_weight, reverse=True)
    ordered.pop(0)
    return pickling + time.process_time() - started


def _overload(trial: Trial, workloads: int, size: int, parallelism: int) -> None:
    own_work = parallelism * _calibrate(size, workloads)
    trial.result["own_work_ms"] = round(1000 * own_work, 1)
    pool = Pool(trial, parallelism)
    pool.start()
    # One string for all: it is the executor that is measured, not the memory of this process.
    pool.offer(workloads, "sleep", "0.001", token="x" * size)
    done, most_running, unaccounted = 0, 0, 0
    last = time.monotonic()
    while len(pool.reports) < workloads:
        # Of those that are next in line: looking at all each time would be most of the work.
        waiting = itertools.islice((index for index in pool.offered[done:] if not pool.reports[index]), 100)
        running = set(pool.running_of(waiting))
        pool.beat(own_work)
        slots = {key.map_index for key in pool.executor.running}
        # Which ran before the look at the slots and run still, have run all the while.
        running &= set(pool.running_of(running))
        most_running = max(most_running, len(running), len(slots))
        unaccounted = max(unaccounted, len(running - slots))
        if len(pool.reports) > done:
            done, last = len(pool.reports), time.monotonic()
        elif time.monotonic() - last > trial.patience:
            break
        time.sleep(PAUSE / 5)
    held_up = pool.longest_held_up
    trial.result["most_running"] = most_running
    trial.expect(held_up <= HELD_UP, f"a call is held up for {1000 * held_up:.0f} ms beyond its own work")
    trial.expect(most_running <= parallelism, f"{most_running} tasks at a time on {parallelism} slots")
    trial.expect(not unaccounted, f"up to {unaccounted} tasks run that hold no slot")
    pool.end()


def _slots(trial: Trial, parallelism: int, size: int) -> None:
    """Compare the slots with the tasks that run, at rest and with more work waiting."""
    pool = Pool(trial, parallelism)
    pool.start()
    executor = pool.executor
    trial.expect(executor.slots_available == parallelism, "not all slots are free at first")
    pool.busy("wait", "1", "x" * size)
    for waiting in (0, parallelism, 10 * parallelism):
        more = waiting - (len(pool.offered) - parallelism)
        pool.offer(more, "wait", "1", "x" * size)
        for _ in range(5):
            pool.beat()
        text = f"with {waiting} waiting"
        free = executor.parallelism - len(executor.running)
        trial.expect(free == 0, f"{free} of {parallelism} slots are open while all are taken, {text}")
        waits = executor.parallelism - executor.slots_available - len(executor.running)
        trial.expect(waits == waiting, f"{waits} workloads wait for a slot, {text}")
    trial.board.open(1)
    pool.settle()
    trial.expect(executor.slots_available == parallelism, "not all slots are free afterwards")
    pool.end()
