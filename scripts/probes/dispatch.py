# SPDX-License-Identifier: Apache-2.0
"""
Drive a LocalExecutor alone, through its public interface, as the scheduler does.

Runs inside the Airflow that is measured, in a process of its own for each case:

    python dispatch.py paced    '{"workloads": 2000, "parallelism": 8, "timeout": 130}'
    python dispatch.py burst    '{"workloads": 2000, "parallelism": 8, "timeout": 130}'
    python dispatch.py start    '{"workers": 32, "timeout": 90}'
    python dispatch.py first    '{"times": 5, "timeout": 110}'

The last line of stdout is a JSON object. Times are in seconds; those of workers and of the executor's
process are comparable, as ``time.monotonic`` is one clock for all processes on Linux.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import uuid
from multiprocessing.sharedctypes import RawArray

# Between two looks at the executor when nothing has happened; the scheduler waits up to a second.
PAUSE = 0.001


class Stuck(Exception):
    """The time for the case is over."""


def limit(seconds: float) -> None:
    """Raise ``Stuck`` in this process after so many seconds; 0 for never."""
    owner = os.getpid()

    def alarm(number, frame):
        if os.getpid() == owner:
            raise Stuck

    signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def shared(count: int):
    """Return ``count`` numbers, zero at first, that all processes forked later share."""
    return RawArray("d", count)


def make_workload(index: int):
    from airflow.executors import workloads

    return workloads.ExecuteTask.model_validate(
        {
            "token": "",
            "ti": {
                "id": str(uuid.UUID(int=index + 1)),
                "dag_version_id": str(uuid.UUID(int=0)),
                "task_id": "task",
                "dag_id": "dag",
                "run_id": "run",
                "try_number": 1,
                "map_index": index,
                "pool_slots": 1,
                "queue": "default",
                "priority_weight": 1,
            },
            "dag_rel_path": "dag.py",
            "bundle_info": {"name": "bundle", "version": None},
            "log_path": f"{index}.log",
        }
    )


def replace_supervise(work) -> None:
    """Let workers forked from here call ``work(index of the workload)`` instead of supervising a task."""
    from airflow.sdk.execution_time import supervisor

    def supervise(*, ti, **kwargs) -> int:
        work(ti.map_index)
        return 0

    # Newer versions call the second; the first is then a wrapper.
    supervisor.supervise = supervisor.supervise_task = supervise


def replace_task_process(work) -> None:
    """
    Let workers forked from here do all that a task needs up to the fork of its process, then call ``work()``.

    The supervisor is not imported for that: a worker that has to import it must not find that done.
    """
    owner, fork = os.getpid(), os.fork

    def fork_or_work() -> int:
        if os.getpid() != owner:
            work()
            raise RuntimeError("no task is started here")
        return fork()

    os.fork = fork_or_work


def new_executor(parallelism: int):
    # The scheduler's own modules, so that the process is as large as one that forks workers really is.
    import airflow.jobs.scheduler_job_runner  # noqa: F401
    from airflow.executors.local_executor import LocalExecutor

    return LocalExecutor(parallelism=parallelism)


class Run:
    """Offers workloads to an executor, takes in its events, and times the calls into it."""

    def __init__(self, executor, count: int):
        self.executor = executor
        self.count = count
        self.offered: list[float] = []
        self.states: list[str] = []
        self.stuck = False
        self.longest, self.longest_in, self.total = 0.0, "", 0.0
        self._waiting = [make_workload(index) for index in reversed(range(count))]

    def held(self, function, *args):
        began = time.monotonic()
        try:
            return function(*args)
        finally:
            took = time.monotonic() - began
            self.total += took
            if took > self.longest:
                self.longest, self.longest_in = took, function.__name__

    def offer(self) -> None:
        workload = self._waiting.pop()
        self.offered.append(time.monotonic())
        self.held(self.executor.queue_workload, workload, None)

    def beat(self) -> int:
        """Call the executor as one loop of the scheduler does; return how many workloads have ended."""
        self.held(self.executor.heartbeat)
        events = self.held(self.executor.get_event_buffer)
        # Newer versions may say that it runs as well.
        ended = [str(state) for state, info in events.values() if str(state) in ("success", "failed")]
        self.states += ended
        return len(ended)

    def offer_all(self, at_a_time: int) -> float:
        """Offer all workloads, so many at a time, until they have ended; return the seconds they took."""
        began = time.monotonic()
        try:
            while len(self.states) < self.count:
                while self._waiting and len(self.offered) - len(self.states) < at_a_time:
                    self.offer()
                if not self.beat():
                    time.sleep(PAUSE)
        except Stuck:
            self.stuck = True
        took = time.monotonic() - began
        # A stuck one is left to whoever started this process.
        if not self.stuck:
            self.executor.end()
        return took

    def as_json(self, started) -> dict:
        """:param started: when each workload started, 0 if it did not"""
        waits = [at - offered for offered, at in zip(self.offered, started, strict=False) if at]
        return {
            "workloads": self.count,
            "stuck": self.stuck,
            "started": sum(bool(each) for each in started),
            "reported": len(self.states),
            "succeeded": self.states.count("success"),
            "offer_to_start": sorted(waits),
            "held_longest": self.longest,
            "held_longest_in": self.longest_in,
            "held_total": self.total,
        }


def stream(workloads: int, parallelism: int, at_a_time: int) -> dict:
    """Offer workloads that do nothing."""
    started = shared(workloads)
    replace_supervise(lambda index: started.__setitem__(index, time.monotonic()))
    run = Run(new_executor(parallelism), workloads)
    run.executor.start()
    took = run.offer_all(at_a_time)
    return run.as_json(started) | {"seconds": took}


def start(workers: int) -> dict:
    """Start a pool; it is there when as many workloads run at the same time."""
    started = shared(workers)

    def work(index: int) -> None:
        started[index] = time.monotonic()
        while not all(started):
            time.sleep(PAUSE)

    replace_supervise(work)
    run = Run(new_executor(workers), workers)
    began = time.monotonic()
    run.held(run.executor.start)
    run.offer_all(workers)
    return run.as_json(started) | {"all_running": max(started) - began}


def first(times: int) -> dict:
    """Give one workload to one new worker, and that ``times`` times; only the task's process is left out."""
    started, starts = shared(times), []
    run = Run(new_executor(1), times)
    for index in range(times):
        replace_task_process(lambda index=index: started.__setitem__(index, time.monotonic()))
        began = time.monotonic()
        run.executor.start()
        starts.append(time.monotonic() - began)
        # An idle worker is what is measured, not one that is still being started.
        time.sleep(0.5)
        run.offer()
        while not started[index]:
            if not run.beat():
                time.sleep(PAUSE)
        run.executor.end()
        run.executor = new_executor(1)
    # All are reported as failed, since there was no task's process.
    return run.as_json(started) | {"succeeded": sum(map(bool, started)), "start_calls": starts}


CASES = {
    # Never more are under way than there are slots.
    "paced": lambda workloads, parallelism: stream(workloads, parallelism, at_a_time=parallelism),
    "burst": lambda workloads, parallelism: stream(workloads, parallelism, at_a_time=workloads),
    "start": start,
    "first": first,
}


def main() -> None:
    case, options = sys.argv[1], json.loads(sys.argv[2])
    limit(options.pop("timeout"))
    try:
        result = CASES[case](**options)
    except Stuck:
        result = {"stuck": True}
    limit(0)
    print(json.dumps(result), flush=True)
    # What a stuck executor would wait for at exit never comes.
    os._exit(0)


if __name__ == "__main__":
    main()
