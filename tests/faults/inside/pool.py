# SPDX-License-Identifier: Apache-2.0
"""A LocalExecutor as its scheduler sees it: every call is timed and limited, every report is checked."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

from inside import system
from inside.board import Board
from inside.tasks import name

TITLE = "airflow worker -- LocalExecutor"
IDLE = "<idle>"
PAUSE = 0.01
"""Seconds between two heartbeats, or two looks; the scheduler's own are further apart."""
HELD_UP = 2.0
"""Seconds that a call may wait for something, besides its own work and its turn on a processor."""


class Stop(Exception):
    """The scenario cannot go on; why is among its problems, or in what was reported."""


class Absent(Exception):
    """This release has not what the scenario is about."""


class Events(dict):
    """An event buffer that also keeps reports which overwrite each other before anybody has read them."""

    def __init__(self, reports: list):
        super().__init__()
        self._reports = reports

    def __setitem__(self, key, value):
        self._reports.append((key, value[0]))
        super().__setitem__(key, value)


def is_worker(pid: int) -> bool:
    return system.title(pid).startswith(TITLE)


class Pool:
    """An executor, the workloads offered to it, and what came of them."""

    def __init__(self, board: Board, parallelism: int, patience: float, fd: int):
        from airflow.executors.local_executor import LocalExecutor
        from sqlalchemy.orm import Session

        self.board = board
        self.parallelism = parallelism
        self.patience = patience
        self.problems: list[str] = []
        self.reports: Counter[int] = Counter()
        self.states: dict[int, str] = {}
        self.queued: list[int] = []
        self.killed: set[int] = set()
        """Processes whose workloads may fail."""
        self.raised: Counter[str] = Counter()
        self.after_beat: Callable[[], None] = lambda: None
        self._indices = itertools.count()
        self._events: list = []
        self._what: dict[int, str] = {}
        """What each workload is to do: action and argument."""
        self._places: dict[Any, int] = {}
        """By key of the workload."""
        self._tis: dict[int, Any] = {}
        self._session = Session()
        self._fd = fd
        self._pid = os.getpid()
        self._calling = ""
        signal.signal(signal.SIGALRM, self._on_alarm)
        self.executor = LocalExecutor(parallelism=parallelism)

    def _key(self, workload: Any) -> Any:
        """Return what the executor calls a workload; that has changed with the releases."""
        if hasattr(self.executor, "get_workload_key"):
            return self.executor.get_workload_key(workload)
        return workload.key if hasattr(workload, "key") else workload.ti.key

    # What is wrong

    def expect(self, condition: object, otherwise: str) -> None:
        """Note ``otherwise`` as a problem unless ``condition`` holds."""
        if not condition:
            self.problems.append(otherwise)

    def require(self, condition: object, otherwise: str) -> None:
        """The same, and stop the scenario."""
        if not condition:
            self.problems.append(otherwise)
            raise Stop

    def tell(self, broken: str | None = None, absent: str | None = None) -> NoReturn:
        """
        Tell the warden the result and end this process at once: no clean-up that could hang.

        :param broken: what went wrong in the scenario itself
        :param absent: what this release has not
        """
        lost = [index for index in self.queued if not self.reports[index]]
        counts = {
            f"lost: {', '.join(dict.fromkeys(map(self._what.get, lost)))}": len(lost),
            "reported twice": sum(count > 1 for count in self.reports.values()),
            "reported, but unknown": len(self.reports.keys() - set(self.queued)),
            "run twice": sum(self.board.entry(index).starts > 1 for index in self.queued),
            "reported with the wrong state": sum(map(self._is_wrong, self.states)),
        }
        self.problems += [f"{count} {what}" for what, count in counts.items() if count]
        self.problems += [f"raises in the scheduler: {what}" for what in self.raised]
        result = {"problems": self.problems, "broken": broken, "absent": absent}
        data = json.dumps(result).encode()
        while data:
            data = data[os.write(self._fd, data) :]
        os._exit(0)

    def keep_descriptor(self, number: int) -> int:
        """Let the one descriptor that this class needs be ``number``."""
        self._fd = os.dup2(self._fd, number, inheritable=False)
        return number

    def _is_wrong(self, index: int) -> bool:
        entry, state = self.board.entry(index), self.states[index]
        if state == "success":
            return entry.finishes == 0
        may_fail = self._what[index].startswith("raise") or entry.pid in self.killed
        return bool(entry.finishes) and not may_fail

    def abandon(self, indices: Iterable[int] | None = None) -> None:
        """Do not miss reports from now on, of workloads (all): the executor is told to drop them."""
        dropped = set(self.queued if indices is None else indices)
        self.queued = [index for index in self.queued if self.reports[index] or index not in dropped]

    def _on_alarm(self, number: int, frame: Any) -> None:
        # Workers inherit it.
        if os.getpid() == self._pid:
            print("hangs here:", *traceback.format_stack(frame, limit=8), file=sys.stderr, flush=True)
            self.problems.append(f"{self._calling}() hangs")
            self.tell()

    # Calls

    def call(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Call a method of the executor. One that hangs ends the scenario."""
        self._calling = name
        signal.setitimer(signal.ITIMER_REAL, self.patience)
        waited, worked, started = system.seconds_waited_for_cpu(), time.process_time(), time.monotonic()
        try:
            getattr(self.executor, name)(*args, **kwargs)
        except BaseException as e:
            traceback.print_exc()
            self.raised[f"{name}: {type(e).__name__}: {str(e)[:80]}"] += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        held_up = time.monotonic() - started - (time.process_time() - worked)
        held_up -= system.seconds_waited_for_cpu() - waited
        # A fork server that is starting imports Airflow first.
        if name in ("heartbeat", "queue_workload") and multiprocessing.get_start_method() == "fork":
            self.expect(held_up < HELD_UP, f"{name}() is held up for {held_up:.1f} s")
        self._collect()

    def _collect(self) -> None:
        """Take the events out of the buffer, and count all terminal ones that were ever put there."""
        known = isinstance(self.executor.event_buffer, Events)
        events = [(key, value[0]) for key, value in self.executor.get_event_buffer().items()]
        reports: list = []
        for key, state in self._events if known else events:
            state = str(getattr(state, "value", state))
            if state in ("success", "failed"):
                index = self._places.get(key, -1)
                self.reports[index] += 1
                self.states.setdefault(index, state)
        self._events = reports
        self.executor.event_buffer = Events(reports)

    def start(self) -> None:
        self.call("start")

    def beat(self) -> None:
        self.call("heartbeat")
        self.after_beat()

    def beats(self, count: int) -> None:
        for _ in range(count):
            self.beat()
            time.sleep(PAUSE)

    def end(self) -> None:
        """End the executor, and check that it leaves no worker."""
        self.call("end")
        self.eventually(lambda: not self.workers(), "workers are left")

    def queue(self, count: int, action: str, argument: object = "", **details: Any) -> list[int]:
        """
        Queue workloads, for the next heartbeat to dispatch.

        :param action: what to do, see ``tasks``
        :param details: for ``make_workload``
        :return: their places on the board
        """
        indices = list(itertools.islice(self._indices, count))
        self.queued += indices
        self._what |= dict.fromkeys(indices, f"{action} {argument}")
        for index in indices:
            workload = make_workload(index, action, str(argument), **details)
            self._places[self._key(workload)] = index
            self._tis[index] = getattr(workload, "ti", None)
            self.call("queue_workload", workload, self._session)
        return indices

    def revoke(self, index: int) -> None:
        """Take a task back, as the scheduler does if it is queued for too long: it is not reported."""
        self.abandon([index])
        self.call("revoke_task", ti=self._tis[index])

    # Waiting

    def until(
        self, condition: Callable[[], object], otherwise: str, progress: Callable[[], object] = lambda: None
    ) -> None:
        """Beat until ``condition`` holds; stop the scenario if nothing happens for too long."""
        for _ in self._pauses(otherwise, progress):
            if condition():
                break
            self.beat()

    def eventually(self, condition: Callable[[], object], otherwise: str) -> None:
        """Wait until ``condition`` holds without calling the executor; stop the scenario as above."""
        for _ in self._pauses(otherwise):
            if condition():
                break

    def _pauses(self, otherwise: str, progress: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Pause, ever longer, until ``progress`` has not changed for too long; then stop the scenario."""
        last = object()
        while True:
            if (now := progress()) != last:
                last, pause, deadline = now, PAUSE, time.monotonic() + self.patience
            self.require(time.monotonic() < deadline, otherwise)
            yield
            time.sleep(pause)
            pause = min(1.1 * pause, 10 * PAUSE)

    def settle(self, indices: Iterable[int] | None = None, state: str | None = None) -> None:
        """
        Beat until workloads (all) are reported; stop the scenario if nothing happens for too long.

        :param state: which must be reported
        """
        waiting = wanted = list(self.queued if indices is None else indices)

        def progress() -> tuple[int, int]:
            nonlocal waiting
            waiting = [index for index in waiting if not self.reports[index]]
            return len(waiting), sum(self.board.entry(index).starts for index in waiting[:64])

        self.until(lambda: not waiting, "not all is reported", progress)
        self.beat()  # A second report would come now.
        states = {self.states[index] for index in wanted}
        self.expect(state is None or states <= {state}, f"reported as {sorted(states)}, not {state}")

    # Workers

    def workers(self) -> list[int]:
        """Return the workers that live."""
        return list(filter(is_worker, system.descendants()))

    def idle(self) -> list[int]:
        """Return the workers that wait for work."""
        return [pid for pid in self.workers() if IDLE in system.title(pid) and system.state(pid) == "S"]

    def is_full(self) -> bool:
        return len(self.workers()) == self.parallelism

    def is_idle(self) -> bool:
        """Return whether all workers are there and wait for work."""
        return len(self.idle()) == self.parallelism

    def fill(self, gate: int = 63) -> None:
        """Start, and have all workers idle that have run something, also those started only for work."""
        self.start()
        self.busy("wait", gate)
        self.board.open(gate)
        self.settle()
        self.until(self.is_idle, "not all workers are idle")

    def busy(self, action: str = "wait", argument: object = 1, **details: Any) -> list[int]:
        """Have every worker run a task; return the workloads."""
        indices = self.queue(self.parallelism, action, argument, **details)
        self.until(lambda: self.have_started(indices), "not every worker starts a task")
        return indices

    def have_started(self, indices: Iterable[int]) -> bool:
        return all(self.board.entry(index).starts for index in indices)

    def have_finished(self, indices: Iterable[int]) -> bool:
        return all(self.board.entry(index).finishes for index in indices)

    def worker_of(self, index: int) -> int:
        return self.board.entry(index).pid

    def kill(self, pids: Iterable[int], number: int = signal.SIGKILL) -> None:
        """Send a signal to workers, which may cost them their workloads; after SIGKILL they are dead."""
        pids = list(pids)
        self.killed.update(pids)
        for pid in pids:
            system.kill(pid, number)
        if number == signal.SIGKILL:
            self.eventually(lambda: not any(map(system.is_alive, pids)), "killed workers live")

    def goes_on(self) -> None:
        """Check that the pool does its work, is complete, and ends."""
        self.settle(self.queue(2 * self.parallelism, "sleep", "0.01"), "success")
        self.until(self.is_full, "the pool is not complete again")
        self.end()

    def helper(self, function: Callable[[], None]) -> int:
        """
        Call ``function`` in a process beside this one, which then ends; return its process id.

        To be called before the executor starts: a process of later would have its descriptors, too.
        """
        pid = os.fork()
        if pid == 0:
            os.setsid()  # Signals to the group of the scheduler are not for it.
            try:
                function()
            finally:
                os._exit(0)
        return pid


def make_workload(
    index: int, action: str, argument: str, kind: str = "task", size: int = 0, executor_config: Any = None
) -> Any:
    """
    Return a workload that ``tasks`` understands.

    :param kind: ``task``, ``callback`` or ``connection test``
    :param size: bytes to make it longer by
    :raises Absent: if this release has no such workloads
    """
    from airflow.executors import workloads

    if kind == "connection test":
        if not hasattr(workloads, "TestConnection"):
            raise Absent(kind)
        return workloads.TestConnection(
            token="",
            connection_test_id=UUID(int=index),
            connection_id=name(index, action, argument),
            timeout=60,
        )
    common = {
        "token": "x" * size,
        "dag_rel_path": Path("faults.py"),
        "log_path": None,
        "bundle_info": {"name": "faults", "version": None},
    }
    if kind == "callback":
        if not hasattr(workloads, "ExecuteCallback"):
            raise Absent(kind)
        data = {"path": name(index, action, argument), "kwargs": {}}
        callback = {"id": str(UUID(int=index)), "fetch_method": "import_path", "data": data}
        return workloads.ExecuteCallback(callback=callback, **common)
    # Renamed in later releases, with fields that are not needed here.
    dto = getattr(workloads, "TaskInstance", None) or workloads.TaskInstanceDTO
    ti = dto(
        id=UUID(int=index),
        dag_version_id=UUID(int=0),
        task_id=action,
        dag_id="faults",
        run_id=argument,
        try_number=1,
        map_index=index,
        pool_slots=1,
        queue="default",
        priority_weight=1,
        executor_config=executor_config,
    )
    return workloads.ExecuteTask(ti=ti, **common)
