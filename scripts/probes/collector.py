# SPDX-License-Identifier: Apache-2.0
"""
What the garbage collector costs a process that forks LocalExecutor's workers, and what it costs the workers.

Runs inside the Airflow that is measured:

    python collector.py '{"objects": 1000000, "workers": 4, "cycles": 30, "timeout": 120}'

The last line of stdout is a JSON object, with times in seconds and memory in bytes.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time

import psutil
from dispatch import Marks, Run, Stuck, limit, new_executor, replace_supervise


def timed(function) -> float:
    """Return the CPU time of a call, which does not wait: what else the machine does is not in it."""
    began = time.process_time()
    function()
    return time.process_time() - began


def ballast(count: int) -> list:
    """Return a structure of ``count`` objects that the collector visits, in its oldest generation."""
    gc.disable()
    found = [[[number] for number in range(part, min(part + 1000, count))] for part in range(0, count, 1000)]
    gc.enable()
    return found


def forks(count: int) -> list[float]:
    """Return how long the forking process is held up by each of some forks, as there is no cheaper way."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        pid = os.fork()
        if not pid:
            os._exit(0)
        took.append(time.perf_counter() - began)
        os.waitpid(pid, 0)
    return took


def plain_cycle() -> None:
    gc.freeze()
    gc.unfreeze()


def own_cycle():
    """Return the executor's own context manager around forks as a function; None if it has none."""
    from airflow.executors import local_executor

    manager = getattr(local_executor, "_frozen_for_fork", None)
    if manager is None:
        return None

    def cycle() -> None:
        with manager():
            pass

    return cycle


def workers_collect(workers: int) -> dict:
    """Start a pool, and let each worker run a full collection, as a long-lived one does sooner or later."""
    marks = [Marks(workers) for _ in range(4)]
    ready, took, before, after = marks

    def work(index: int) -> None:
        ready.set(index)
        # Not before all are there: what one makes private is then no longer shared by the others.
        while not all(ready.all()):
            time.sleep(0.001)
        process = psutil.Process()
        before.put(index, process.memory_full_info().uss)
        took.put(index, timed(gc.collect))
        after.put(index, process.memory_full_info().uss)

    replace_supervise(work)
    executor = new_executor(workers)
    run = Run(executor, workers)
    try:
        run.held(executor.start)
        for _ in range(workers):
            run.offer()
        run.until_reported()
        held = run.held.as_json()
        executor.end()
    except Stuck:
        return {"stuck": True, "succeeded": run.states.count("success"), "started": ready.all()}
    return {
        "stuck": False,
        "succeeded": run.states.count("success"),
        "worker_collection": took.all(),
        "worker_private": [b - a for a, b in zip(before.all(), after.all(), strict=True)],
        **held,
    }


def main() -> None:
    options = json.loads(sys.argv[1])
    import airflow.executors.local_executor
    import airflow.jobs.scheduler_job_runner  # noqa: F401

    kept = ballast(options["objects"])
    gc.collect()
    result: dict = {
        "tracked": len(gc.get_objects()),
        "collection_before": [timed(gc.collect) for _ in range(3)],
        "fork": forks(5),
        "plain_cycle": [timed(plain_cycle) for _ in range(options["cycles"])],
        "own_cycle": None,
    }
    if (cycle := own_cycle()) is not None:
        result["own_cycle"] = [timed(cycle) for _ in range(options["cycles"])]
    limit(options["timeout"])
    result |= workers_collect(options["workers"])
    limit(0)
    result["collection_after"] = [timed(gc.collect) for _ in range(3)]
    result["frozen_after"] = gc.get_freeze_count()
    result["fork_median"] = statistics.median(result["fork"])
    print(json.dumps(result), flush=True)
    del kept[:]
    os._exit(0)


if __name__ == "__main__":
    main()
