# SPDX-License-Identifier: Apache-2.0
"""
What workloads do, in place of Airflow's supervisor and task.

A workload says it in its task instance: ``map_index`` is its place on the board, ``task_id`` the action and
``run_id`` the argument.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from inside.board import Board
from inside.exceptions import EXCEPTIONS, VALUES

BOARD_VARIABLE = "PATCHSET_FAULTS_BOARD"
board: Board
lock = threading.Lock()


def _wait_deaf(gate: str) -> None:
    """Wait in a way that only SIGKILL ends."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    board.wait(int(gate))


def _raise_at(argument: str) -> BaseException:
    """Wait at a gate, then raise, e.g. ``3 huge``."""
    gate, kind = argument.split()
    board.wait(int(gate))
    return EXCEPTIONS[kind]()


def _leave_thread(gate: str) -> None:
    threading.Thread(target=board.wait, args=(int(gate),), daemon=False).start()


def _lock(argument: str) -> None:
    with lock:
        pass


def _child(gate: str, index: int) -> None:
    """Wait for a child, as a supervisor does for its task; the child waits at a gate."""
    pid = os.fork()
    if pid == 0:
        board.wait(int(gate))
        os._exit(0)
    board.write(index, replace(board.entry(index), child=pid))
    os.waitpid(pid, 0)


ACTIONS: dict[str, Any] = {
    "nothing": lambda argument: None,
    "sleep": lambda seconds: time.sleep(float(seconds)),
    "wait": lambda gate: board.wait(int(gate)),
    "wait_deaf": _wait_deaf,
    "raise": lambda kind: EXCEPTIONS[kind](),
    "raise_at": _raise_at,
    "return": lambda kind: VALUES[kind](),
    "leave_thread": _leave_thread,
    "lock": _lock,
    "exit": lambda code: os._exit(int(code)),
}
# Those after which failed is the right report.
FAILING = ("raise", "raise_at", "exit")


def supervise(**kwargs: Any) -> Any:
    """Do what ``ti`` says, as ``airflow.sdk.execution_time.supervisor.supervise`` would run its task."""
    ti = kwargs["ti"]
    index = ti.map_index
    before = board.entry(index)
    board.write(index, replace(before, pid=os.getpid(), starts=before.starts + 1))
    outcome = _child(ti.run_id, index) if ti.task_id == "child" else ACTIONS[ti.task_id](ti.run_id)
    before = board.entry(index)
    board.write(index, replace(before, finishes=before.finishes + 1))
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome if outcome is not None else 0


def install(path: str) -> None:
    """Put ``supervise`` in the place of Airflow's own, here and in all processes forked from here."""
    global board
    from airflow.sdk.execution_time import supervisor

    board = Board(Path(path))
    # Renamed in Airflow 3.3, where the old name is a wrapper of the new one.
    for name in ("supervise", "supervise_task"):
        if hasattr(supervisor, name):
            setattr(supervisor, name, supervise)
