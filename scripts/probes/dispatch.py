# SPDX-License-Identifier: Apache-2.0
"""
Drive a LocalExecutor alone, through its public interface, as the scheduler does.

Runs inside the Airflow that is measured, in a process of its own for each case:

    python dispatch.py paced    '{"workloads": 2000, "parallelism": 8}'
    python dispatch.py burst    '{"workloads": 2000, "parallelism": 8}'
    python dispatch.py start    '{"workers": 32}'
    python dispatch.py first    '{"times": 5}'

The last line of stdout is a JSON object. Times are in seconds; those of workers and of the executor's
process are comparable, as ``time.monotonic`` is one clock for all processes on Linux.
"""

from __future__ import annotations

import importlib
import json
import mmap
import os
import signal
import struct
import sys
import time
import uuid

SUPERVISOR = "airflow.sdk.execution_time.supervisor"
# Between two looks at the executor when nothing has happened; the scheduler waits up to a second.
PAUSE = 0.001
_DOUBLE = struct.Struct("d")


class Stuck(Exception):
    """The time for the case is over."""


class Marks:
    """One number for each workload, mostly a time, shared with all processes forked later; needs no locks."""

    def __init__(self, count: int):
        self.count = count
        self._memory = mmap.mmap(-1, max(1, count) * _DOUBLE.size)

    def set(self, index: int) -> None:
        self.put(index, time.monotonic())

    def put(self, index: int, value: float) -> None:
        _DOUBLE.pack_into(self._memory, index * _DOUBLE.size, value)

    def get(self, index: int) -> float:
        """Return the time that was set; 0 if none was."""
        return _DOUBLE.unpack_from(self._memory, index * _DOUBLE.size)[0]

    def all(self) -> list[float]:
        return [self.get(index) for index in range(self.count)]


class Held:
    """Times the calls into the executor."""

    def __init__(self):
        self.longest = 0.0
        self.call = ""
        self.total = 0.0

    def __call__(self, function, *args):
        began = time.monotonic()
        try:
            return function(*args)
        finally:
            took = time.monotonic() - began
            self.total += took
            if took > self.longest:
                self.longest, self.call = took, function.__name__

    def as_json(self) -> dict:
        return {"held_longest": self.longest, "held_longest_in": self.call, "held_total": self.total}


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
    supervisor = importlib.import_module(SUPERVISOR)

    def supervise(*, ti, **kwargs) -> int:
        work(ti.map_index)
        return 0

    # Newer versions call the second; the first is then a wrapper.
    for name in ("supervise", "supervise_task"):
        if hasattr(supervisor, name):
            setattr(supervisor, name, supervise)


def replace_task_process(work) -> None:
    """
    Let ``supervise`` do all it does except start the task's process, and call ``work`` at that point.

    The module is changed when it is imported, by whom and whenever that is: a worker that has to import it
    must not find that done.
    """

    class Finished:
        exit_code = 0
        final_state = "success"

        def wait(self) -> int:
            return 0

    class Finder:
        """Finds nothing itself; changes what the others found."""

        def find_spec(self, name, path=None, target=None):
            if name != SUPERVISOR:
                return None
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(name)
            sys.meta_path.insert(0, self)
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)

                def start(*args, what, **kwargs):
                    work(what.map_index)
                    return Finished()

                module.ActivitySubprocess.start = start

            spec.loader.exec_module = exec_module
            return spec

    import importlib.util

    if SUPERVISOR in sys.modules:
        raise RuntimeError(f"{SUPERVISOR} is imported already")
    sys.meta_path.insert(0, Finder())


def new_executor(parallelism: int):
    # The scheduler's own modules, so that the process is as large as one that forks workers really is.
    import airflow.jobs.scheduler_job_runner  # noqa: F401
    from airflow.executors.local_executor import LocalExecutor

    return LocalExecutor(parallelism=parallelism)


def nap() -> None:
    time.sleep(PAUSE)


class Run:
    """Offers workloads to a started executor, and takes in its events."""

    def __init__(self, executor, count: int):
        self.executor = executor
        self.held = Held()
        self.offered: list[float] = []
        self.states: list[str] = []
        self._waiting = [make_workload(index) for index in range(count)]
        self._waiting.reverse()
        self.count = count

    def offer(self) -> None:
        workload = self._waiting.pop()
        self.offered.append(time.monotonic())
        self.held(self.executor.queue_workload, workload, None)

    def beat(self) -> int:
        """Call the executor as one loop of the scheduler does, and return how many events came."""
        self.held(self.executor.heartbeat)
        events = self.held(self.executor.get_event_buffer)
        # Newer versions may say that it runs as well.
        ended = [str(state) for state, info in events.values() if str(state) in ("success", "failed")]
        self.states += ended
        return len(ended)

    def until_reported(self) -> None:
        while len(self.states) < self.count:
            if not self.beat():
                nap()

    def as_json(self, marks: Marks) -> dict:
        started = marks.all()
        waits = sorted(began - at for at, began in zip(self.offered, started, strict=False) if began)
        return {
            "workloads": self.count,
            "started": sum(bool(each) for each in started),
            "reported": len(self.states),
            "succeeded": self.states.count("success"),
            "offer_to_start": waits,
            **self.held.as_json(),
        }


def paced(workloads: int, parallelism: int) -> dict:
    """Offer workloads so that never more are under way than there are slots."""
    marks = Marks(workloads)
    replace_supervise(marks.set)
    executor = new_executor(parallelism)
    executor.start()
    run = Run(executor, workloads)
    began = time.monotonic()
    stuck = False
    try:
        while len(run.states) < workloads:
            while len(run.offered) < workloads and len(run.offered) - len(run.states) < parallelism:
                run.offer()
            if not run.beat():
                nap()
    except Stuck:
        stuck = True
    return run.as_json(marks) | {"seconds": time.monotonic() - began} | finish(executor, stuck)


def burst(workloads: int, parallelism: int) -> dict:
    """Offer all workloads at once."""
    marks = Marks(workloads)
    replace_supervise(marks.set)
    executor = new_executor(parallelism)
    executor.start()
    run = Run(executor, workloads)
    began = time.monotonic()
    stuck = False
    try:
        for _ in range(workloads):
            run.offer()
        run.until_reported()
    except Stuck:
        stuck = True
    return run.as_json(marks) | {"seconds": time.monotonic() - began} | finish(executor, stuck)


def start(workers: int) -> dict:
    """Start a pool; it is there when as many workloads run at the same time."""
    marks = Marks(workers)

    def work(index: int) -> None:
        marks.set(index)
        while not all(marks.all()):
            nap()

    replace_supervise(work)
    executor = new_executor(workers)
    run = Run(executor, workers)
    began = time.monotonic()
    run.held(executor.start)
    start_call = time.monotonic() - began
    stuck = False
    try:
        for _ in range(workers):
            run.offer()
        run.until_reported()
    except Stuck:
        stuck = True
    all_running = max(marks.all()) - began
    return (
        run.as_json(marks) | {"start_call": start_call, "all_running": all_running} | finish(executor, stuck)
    )


def first(times: int) -> dict:
    """Give one workload to one new worker, and that ``times`` times; only the task's process is left out."""
    marks = Marks(times)
    replace_task_process(marks.set)
    reported, starts = [], []
    run = None
    for index in range(times):
        executor = new_executor(1)
        began = time.monotonic()
        executor.start()
        starts.append(time.monotonic() - began)
        # An idle worker is what is measured, not one that is still being started.
        time.sleep(0.5)
        run = run or Run(executor, times)
        run.executor = executor
        run.offer()
        while len(run.states) <= index:
            if not run.beat():
                nap()
        reported.append(time.monotonic() - run.offered[index])
        executor.end()
    return run.as_json(marks) | {"offer_to_report": reported, "start_calls": starts, "stuck": False}


def finish(executor, stuck: bool) -> dict:
    """End the executor and say how long that took; a stuck one is left to whoever started this process."""
    if stuck:
        return {"stuck": True, "end": None}
    began = time.monotonic()
    executor.end()
    return {"stuck": False, "end": time.monotonic() - began}


def limit(seconds: float) -> None:
    """Raise ``Stuck`` in the main thread after so many seconds; 0 for never."""
    owner = os.getpid()

    def alarm(number, frame):
        if os.getpid() == owner:
            raise Stuck

    signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def main() -> None:
    case, options = sys.argv[1], json.loads(sys.argv[2])
    limit(options.pop("timeout", 120))
    try:
        result = {"paced": paced, "burst": burst, "start": start, "first": first}[case](**options)
    except Stuck:
        result = {"stuck": True}
    limit(0)
    print(json.dumps(result), flush=True)
    # What a stuck executor would wait for at exit never comes.
    os._exit(0)


if __name__ == "__main__":
    main()
