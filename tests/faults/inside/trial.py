# SPDX-License-Identifier: Apache-2.0
"""
Runs trials, each in a forked process that plays the scheduler, within hard limits.

A trial that hangs is cut: by its own alarm, which still tells what was seen until then, or from outside.
Whatever a trial leaves behind is counted, then killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import psutil

from inside.board import Board

PR_SET_CHILD_SUBREAPER = 36
# Counted over all trials of a case; the rest are the worst of them.
SUMS = (
    "offered",
    "reported",
    "failed",
    "lost",
    "reported_twice",
    "run_twice",
    "wrong_state",
    "left",
    "kills",
)
WORST = ("longest_call_ms", "longest_held_up_ms", "seconds")

WRONG = {
    "lost": "never reported",
    "reported_twice": "reported twice",
    "run_twice": "run twice",
    "wrong_state": "reported with the wrong state",
}


class Stop(Exception):
    """The trial cannot go on; why is among its problems or counts."""


class Trial:
    """What a trial knows and tells. Lives in the process that plays the scheduler."""

    def __init__(self, board: Board, fd: int, limit: float, patience: float):
        self.board = board
        self.patience = patience
        """Seconds without any progress after which a workload or worker is given up."""
        self.pools: list = []
        self.result: dict[str, Any] = {}
        self.problems: list[str] = []
        self._fd = fd
        self._pid = os.getpid()
        self._deadline = time.monotonic() + limit
        self._limit = limit
        self._calling: list[str] = []
        self._called = self._call_limit = 0.0
        signal.signal(signal.SIGALRM, self._on_alarm)
        self._arm()

    def expect(self, condition: object, otherwise: str) -> bool:
        """Note ``otherwise`` as a problem unless ``condition`` holds; return whether it does."""
        if not condition:
            self.problems.append(otherwise)
        return bool(condition)

    def require(self, condition: object, otherwise: str) -> None:
        """Note ``otherwise`` as a problem and stop the trial unless ``condition`` holds."""
        if not self.expect(condition, otherwise):
            raise Stop

    def eventually(
        self, condition: Callable[[], object], otherwise: str, seconds: float | None = None
    ) -> None:
        """
        Wait until ``condition`` holds, without calling the executor; stop the trial if it does not.

        :param seconds: time for that; the patience if not given
        """
        deadline = time.monotonic() + (self.patience if seconds is None else seconds)
        while not condition():
            self.require(time.monotonic() < deadline, f"after {seconds or self.patience:g} s: {otherwise}")
            time.sleep(0.001)

    def _arm(self, limit: float = float("inf")) -> None:
        seconds = max(0.001, min(self._deadline - time.monotonic(), limit))
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def enter(self, call: str, limit: float) -> None:
        """Say that ``call`` is made now, and must return within ``limit`` seconds."""
        self._calling.append(call)
        self._called = time.monotonic()
        self._call_limit = limit
        self._arm(limit)

    def leave(self) -> None:
        """Say that the call has returned."""
        self._calling.pop()
        self._arm()

    def _on_alarm(self, number: int, frame: object) -> None:
        # Inherited by workers, whose alarms are not for this trial.
        if os.getpid() != self._pid:
            return
        where = None
        if self._calling:
            took = time.monotonic() - self._called
            self.result["longest_call_ms"] = round(1000 * took)
            # Otherwise the trial as a whole takes too long, and was cut in just any call.
            where = self._calling[-1] if took >= 0.9 * self._call_limit else None
        stack = "".join(traceback.format_stack(frame, limit=6)) if frame else ""
        print(f"cut in {where}:\n{stack}", file=sys.stderr, flush=True)
        self.result["hung"] = where or "trial"
        self.problems.append(f"{where} does not return" if where else f"takes over {self._limit:g} s")
        self.tell()

    def tell(self) -> NoReturn:
        """Report and end this process at once: no clean-up that could hang."""
        for pool in self.pools:
            for name, value in pool.counts().items():
                if name in WORST:
                    self.result[name] = max(self.result.get(name, 0), value)
                elif isinstance(value, list):
                    self.result.setdefault(name, []).extend(value)
                else:
                    self.result[name] = self.result.get(name, 0) + value
        for name, what in WRONG.items():
            if self.result.get(name):
                self.problems.append(f"{self.result[name]} {what}")
        self.problems += [f"raises in the scheduler: {raised}" for raised in self.result.get("raised", [])]
        self.result["problems"] = self.problems
        data = json.dumps(self.result).encode()
        while data:
            data = data[os.write(self._fd, data) :]
        os._exit(0)


def become_subreaper() -> None:
    """Adopt what trials leave behind, to count it."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap() -> None:
    """Collect all children that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _left(within: float) -> list[psutil.Process]:
    """Return the processes that are still there after ``within`` seconds."""
    deadline = time.monotonic() + within
    while True:
        reap()
        left = psutil.Process().children(recursive=True)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.01)


def _kill(processes: list[psutil.Process]) -> None:
    while processes:
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
        time.sleep(0.01)
        reap()
        processes = psutil.Process().children(recursive=True)


def run(
    function: Callable[..., None],
    *args: Any,
    board: Board,
    limit: float,
    patience: float,
    leave_within: float = 2.0,
) -> dict[str, Any]:
    """
    Run ``function(trial, *args)`` in a process of its own and return what it told.

    :param limit: seconds it may take
    :param leave_within: seconds its processes may take to go after it
    """
    board.clear()
    read_end, write_end = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        os.setpgid(0, 0)
        trial = Trial(board, write_end, limit, patience)
        try:
            function(trial, *args)
        except Stop:
            pass
        except BaseException as e:
            traceback.print_exc()
            # Not a fault of the executor, and never to be taken for one.
            trial.result["broken"] = f"{type(e).__name__}: {e}"
        trial.tell()
    os.close(write_end)
    # The trial's own alarm comes first; this is for one that cannot even run that.
    data = _read(read_end, pid, limit + 3)
    os.close(read_end)
    result = json.loads(data) if data else {"hung": "trial", "problems": ["ended or killed without a word"]}
    result["seconds"] = round(time.monotonic() - started, 2)
    processes = _left(0 if result["problems"] else leave_within)
    result["left"] = len(processes)
    # After a problem they are no news: the trial may have stopped before the end of the pool.
    if processes and not result["problems"]:
        result["problems"].append(f"{len(processes)} processes left: {_titles(processes)}")
    _kill(processes)
    return result


def _titles(processes: list[psutil.Process]) -> list[str]:
    titles = []
    for process in processes:
        try:
            titles.append(f"{' '.join(process.cmdline())[:60]} ({process.status()})")
        except psutil.NoSuchProcess:
            pass
    return sorted(set(titles))


def _read(fd: int, pid: int, limit: float) -> bytes:
    """Read what the trial tells until it ends; its workers may hold the pipe open after it."""
    data = b""
    deadline = time.monotonic() + limit
    ended = False
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while True:
        if poll.poll(20):
            chunk = os.read(fd, 65536)
            data += chunk
            if not chunk:
                break
        elif ended:
            break
        ended = ended or os.waitpid(pid, os.WNOHANG)[0] != 0
        if time.monotonic() > deadline:
            break
    if not ended:
        # It has told everything, or its time is up; it has nothing more to do than to go.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return data


class Runner:
    """Runs the trials of the cases of a scenario."""

    def __init__(self, board: Board, patience: float):
        self.board = board
        self.patience = patience

    def case(
        self,
        name: str,
        function: Callable[..., None],
        arguments: Iterable[tuple] = ((),),
        *,
        limit: float = 60.0,
        stop_after: int = 1,
    ) -> dict[str, Any]:
        """
        Run ``function(trial, *args)`` for all ``arguments`` and return the trials as one result.

        :param limit: seconds for each
        :param stop_after: number of trials with problems after which there need be no more
        """
        results: list[dict[str, Any]] = []
        for args in arguments:
            result = run(function, *args, board=self.board, limit=limit, patience=self.patience)
            results.append(result)
            bad = [result for result in results if result["problems"] or result.get("broken")]
            if len(bad) >= stop_after:
                break
        return total(name, results)


def total(name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the trials of one case as one result."""
    case: dict[str, Any] = {"case": name, "trials": len(results)}
    for key in SUMS:
        case[key] = sum(result.get(key, 0) for result in results)
    for key in WORST:
        case[key] = max((result.get(key, 0) for result in results), default=0)
    case["problems"] = [
        f"trial {number}: {problem}" if len(results) > 1 else problem
        for number, result in enumerate(results)
        for problem in result["problems"]
    ]
    for key in ("raised", "hung", "broken"):
        case[key] = sorted({value for result in results for value in _as_list(result.get(key))})
    known = {*SUMS, *WORST, "problems", "raised", "hung", "broken"}
    extra = [{k: v for k, v in result.items() if k not in known} for result in results]
    case["details"] = extra if any(extra) else []
    return case


def _as_list(value: Any) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]
