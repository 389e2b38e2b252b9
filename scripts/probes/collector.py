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
import sys
import time

import psutil
from dispatch import Run, limit, new_executor, replace_supervise, shared


def cpu_time(function) -> float:
    """Return the CPU time of a call: what else the machine does is not in it."""
    began = time.process_time()
    function()
    return time.process_time() - began


def ballast(count: int) -> list:
    """Return a structure of ``count`` objects that the collector visits, in its oldest generation."""
    gc.disable()
    found = [[[number] for number in range(part, min(part + 1000, count))] for part in range(0, count, 1000)]
    gc.enable()
    gc.collect()
    return found


def fork() -> float:
    """Return how long a fork holds up the forking process, as there is no cheaper way to start a worker."""
    began = time.perf_counter()
    pid = os.fork()
    if not pid:
        os._exit(0)
    took = time.perf_counter() - began
    os.waitpid(pid, 0)
    return took


def workers_collect(workers: int) -> dict:
    """Start a pool, and let each worker run a full collection, as a long-lived one does sooner or later."""
    ready, took, before, after = (shared(workers) for _ in range(4))

    def work(index: int) -> None:
        ready[index] = 1
        # Not before all are there: what one makes private is then no longer shared by the others.
        while not all(ready):
            time.sleep(0.001)
        process = psutil.Process()
        before[index] = process.memory_full_info().uss
        took[index] = cpu_time(gc.collect)
        after[index] = process.memory_full_info().uss

    replace_supervise(work)
    run = Run(new_executor(workers), workers)
    run.held(run.executor.start)
    run.offer_all(workers)
    found = run.as_json(ready)
    if not run.stuck:
        found["worker_collection"] = list(took)
        found["worker_private"] = [b - a for a, b in zip(before, after, strict=True)]
    return found


def main() -> None:
    options = json.loads(sys.argv[1])
    new_executor(1)
    kept = ballast(options["objects"])
    result: dict = {
        "tracked": len(gc.get_objects()),
        "collection": [cpu_time(gc.collect) for _ in range(3)],
        "fork": [fork() for _ in range(5)],
        "freeze_cycle": [cpu_time(lambda: (gc.freeze(), gc.unfreeze())) for _ in range(options["cycles"])],
    }
    limit(options["timeout"])
    result |= workers_collect(options["workers"])
    limit(0)
    result["frozen_after"] = gc.get_freeze_count()
    print(json.dumps(result), flush=True)
    del kept[:]
    os._exit(0)


if __name__ == "__main__":
    main()
