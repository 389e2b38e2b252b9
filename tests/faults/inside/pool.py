# SPDX-License-Identifier: Apache-2.0
"""A LocalExecutor as its scheduler sees it: every call is timed and limited, every report is counted."""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
from airflow.executors import workloads
from airflow.executors.local_executor import LocalExecutor
from airflow.utils.state import TaskInstanceState
from sqlalchemy.orm import Session
from uuid6 import uuid7

from inside.tasks import FAILING
from inside.trial import Stop, Trial

TITLE = "airflow worker -- LocalExecutor"
IDLE = "<idle>"
# Seconds after which a call counts as hung. Far beyond what any call may take, so that a busy machine does
# not make a hang of it.
CALL_LIMIT = 8.0
END_LIMIT = 15.0
PAUSE = 0.005
"""Seconds between two heartbeats; the scheduler's own are further apart."""


class Events(dict):
    """An event buffer that also counts reports which overwrite each other before anybody has read them."""

    def __init__(self, reports: list):
        super().__init__()
        self._reports = reports

    def __setitem__(self, key, value):
        self._reports.append((key, value[0]))
        super().__setitem__(key, value)


def run_delay() -> float:
    """Return how many seconds this process has waited for a processor, which no executor can help."""
    return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9


class Collector:
    """Measures the garbage collector: a collection can fall into any call, and is nobody's in particular."""

    def __init__(self):
        self.seconds = 0.0
        """Processor time of all collections so far."""
        self._started = 0.0
        gc.callbacks.append(self._on_collection)

    def _on_collection(self, phase: str, info: dict) -> None:
        if phase == "start":
            self._started = time.thread_time()
        else:
            self.seconds += time.thread_time() - self._started


collector = Collector()


class Pool:
    """An executor, the workloads offered to it, and what came of them."""

    # Indices on the board, over all pools of a trial.
    _next_index = 0

    def __init__(self, trial: Trial, parallelism: int, executor: LocalExecutor | None = None):
        self.trial = trial
        self.board = trial.board
        self.parallelism = parallelism
        self.reports: Counter[int] = Counter()
        self.states: dict[int, str] = {}
        self.offered: list[int] = []
        self.to_fail: set[int] = set()
        """Workloads that fail without anybody killing their worker."""
        self.killed: set[int] = set()
        self.raised: Counter[str] = Counter()
        self.longest: dict[str, float] = {}
        self.longest_held_up = 0.0
        self.unknown = 0
        self.after_beat: Callable[[], None] = lambda: None
        self._own: set[int] = set()
        self._events: list = []
        self._session = Session()
        self.executor = executor if executor is not None else LocalExecutor(parallelism=parallelism)
        trial.pools.append(self)

    # Calls into the executor

    def call(
        self,
        name: str,
        *args: Any,
        limit: float = CALL_LIMIT,
        own_work: float = 0.0,
        expected: type[BaseException] | tuple = (),
    ) -> bool:
        """
        Call the method ``name`` of the executor; return whether it returned without an exception.

        :param limit: seconds after which the trial is cut
        :param own_work: seconds that the call may take besides being held up
        :param expected: what it may raise, because the trial itself sees to that
        """
        function = getattr(self.executor, name)
        self.trial.enter(name, limit)
        delay, collecting, started = run_delay(), collector.seconds, time.monotonic()
        try:
            function(*args)
        except expected:
            ok = False
        except BaseException as e:
            self.raised[f"{name}: {type(e).__name__}: {str(e)[:100]}"] += 1
            ok = False
        else:
            ok = True
        finally:
            took = time.monotonic() - started
            delay = run_delay() - delay
            collecting = collector.seconds - collecting
            self.trial.leave()
        self.longest[name] = max(self.longest.get(name, 0.0), took)
        if name in ("queue_workload", "heartbeat"):
            self.longest_held_up = max(self.longest_held_up, took - delay - collecting - own_work)
        self._collect()
        return ok

    def _collect(self) -> None:
        """Take the events out of the buffer and count all terminal ones that were ever put there."""
        if isinstance(self.executor.event_buffer, Events):
            self.executor.get_event_buffer()
            events = self._events
        else:
            # The first call, or the executor has made itself a new buffer.
            events = self._events + [(k, v[0]) for k, v in self.executor.get_event_buffer().items()]
        self._events = []
        self.executor.event_buffer = Events(self._events)
        for key, state in events:
            if state not in (TaskInstanceState.SUCCESS, TaskInstanceState.FAILED):
                continue
            if key.map_index not in self._own:
                self.unknown += 1
            self.reports[key.map_index] += 1
            self.states.setdefault(key.map_index, str(getattr(state, "value", state)))

    def start(self) -> bool:
        return self.call("start", limit=END_LIMIT)

    def beat(self, own_work: float = 0.0) -> bool:
        ok = self.call("heartbeat", own_work=own_work)
        self.after_beat()
        return ok

    def end(self, limit: float = END_LIMIT) -> bool:
        return self.call("end", limit=limit)

    def offer(self, count: int, action: str, argument: str = "", token: str = "") -> list[int]:
        """Queue ``count`` workloads and return their indices; the next heartbeat may dispatch them."""
        offered = []
        for _ in range(count):
            index = Pool._next_index
            Pool._next_index += 1
            self.offered.append(index)
            self._own.add(index)
            offered.append(index)
            if action in FAILING:
                self.to_fail.add(index)
            self.call("queue_workload", make_workload(index, action, argument, token), self._session)
        return offered

    # Waiting

    def until(self, condition: Callable[[], object], otherwise: str, seconds: float | None = None) -> None:
        """
        Beat until ``condition`` holds; stop the trial if it does not.

        :param otherwise: the problem if it does not
        :param seconds: time for that; the patience if not given
        """
        seconds = self.trial.patience if seconds is None else seconds
        deadline = time.monotonic() + seconds
        while not condition():
            self.trial.require(time.monotonic() < deadline, f"after {seconds:g} s: {otherwise}")
            self.beat()
            time.sleep(PAUSE)

    def settle(self, indices: Iterable[int] | None = None) -> None:
        """Beat until ``indices`` (all) are reported; stop the trial when nothing happens for too long."""
        waiting = set(self.offered if indices is None else indices)
        progress, last = None, time.monotonic()
        while waiting := {index for index in waiting if not self.reports[index]}:
            self.beat()
            state = (len(waiting), sum(self.reports.values()), self._starts())
            if state != progress:
                progress, last = state, time.monotonic()
            elif time.monotonic() - last > self.trial.patience:
                raise Stop  # What is not reported is counted as lost.
            time.sleep(PAUSE)
        # A second report would come with what comes next.
        for _ in range(3):
            self.beat()

    def _starts(self) -> int:
        return sum(self.board.entry(index).starts for index in self.offered[-64:])

    def running_of(self, indices: Iterable[int]) -> list[int]:
        """Return which of these workloads have a task that has started and not ended."""
        return [index for index in indices if not self.reports[index] and self.board.is_running(index)]

    # Workers

    def workers(self) -> dict[int, str]:
        """Return the workers that live, with their titles, however they were started."""
        found = {}
        for process in psutil.Process().children(recursive=True):
            try:
                title = " ".join(process.cmdline())
                if title.startswith(TITLE) and process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = title
            except psutil.NoSuchProcess:
                continue
        return found

    def idle(self) -> list[int]:
        """Return the workers that wait for work."""
        found = []
        for pid, title in self.workers().items():
            try:
                if IDLE in title and psutil.Process(pid).status() == psutil.STATUS_SLEEPING:
                    found.append(pid)
            except psutil.NoSuchProcess:
                continue
        return sorted(found)

    def all_idle(self) -> bool:
        return len(self.idle()) == self.parallelism

    def fill(self, gate: int = 255) -> None:
        """Have every worker started and idle, also where workers are only made when there is work."""
        first = self.offer(self.parallelism, "wait", str(gate))
        started = self.board.entry
        self.until(lambda: all(started(index).starts for index in first), "the pool does not fill")
        self.board.open(gate)
        self.settle(first)
        self.until(self.all_idle, "not all workers are idle")

    def busy(self, action: str = "wait", argument: str = "1", token: str = "") -> list[int]:
        """Have every worker run a task of its own; return the workloads in the order of their start."""
        indices = self.offer(self.parallelism, action, argument, token)
        entry = self.board.entry
        self.until(lambda: all(entry(index).starts for index in indices), "not all workers start a task")
        return sorted(indices, key=lambda index: entry(index).started)

    def goes_on(self) -> None:
        """Check that the pool does its work and is full, and end it."""
        more = self.offer(2 * self.parallelism, "sleep", "0.01")
        self.settle(more)
        states = {self.states[index] for index in more}
        self.trial.expect(states == {"success"}, f"workloads offered afterwards end as {sorted(states)}")
        self.until(self.full, "the pool is not full again")
        self.end()

    def kill(self, pid: int, number: int) -> None:
        """Send a worker a signal."""
        self.killed.add(pid)
        os.kill(pid, number)

    def full(self) -> bool:
        """Return whether the pool is complete, as the executor and the system see it."""
        alive = self.workers()
        return len(self.executor.workers) == self.parallelism and set(alive) == set(self.executor.workers)

    # What came of it

    def wrong_states(self) -> list[int]:
        """Return the workloads whose report cannot be right."""
        wrong = []
        for index, state in self.states.items():
            entry = self.board.entry(index)
            if state == "success":
                wrong += [index] * (entry.finishes == 0)
            elif state == "failed":
                raised = entry.finishes and entry.pid not in self.killed
                wrong += [index] * (bool(raised) and index not in self.to_fail)
        return wrong

    def abandon(self) -> None:
        """Do not call lost what is not reported by now: the executor was told to drop it."""
        self.offered = [index for index in self.offered if self.reports[index]]

    def counts(self) -> dict[str, Any]:
        """Return what happened to the workloads and how long calls took."""
        lost = [index for index in self.offered if not self.reports[index]]
        return {
            "offered": len(self.offered),
            "reported": len(self.offered) - len(lost),
            "failed": sum(state == "failed" for state in self.states.values()),
            "lost": len(lost),
            "reported_twice": sum(count > 1 for count in self.reports.values()) + self.unknown,
            "run_twice": sum(self.board.entry(index).starts > 1 for index in self.offered),
            "wrong_state": len(self.wrong_states()),
            "kills": len(self.killed),
            "longest_call_ms": round(1000 * max(self.longest.values(), default=0), 1),
            "longest_held_up_ms": round(1000 * self.longest_held_up, 1),
            "raised": [f"{what} ({count} times)" for what, count in self.raised.most_common(5)],
        }


def make_workload(index: int, action: str, argument: str, token: str = "") -> workloads.ExecuteTask:
    """Return a workload that ``tasks.supervise`` understands."""
    # Renamed in later releases, with fields that are not needed here.
    dto = getattr(workloads, "TaskInstance", None) or workloads.TaskInstanceDTO
    ti = dto(
        id=uuid7(),
        dag_version_id=uuid7(),
        task_id=action,
        dag_id="faults",
        run_id=argument,
        try_number=1,
        map_index=index,
        pool_slots=1,
        queue="default",
        priority_weight=1,
    )
    return workloads.ExecuteTask(
        token=token,
        ti=ti,
        dag_rel_path=Path("faults.py"),
        log_path=None,
        bundle_info={"name": "faults", "version": None},
    )
