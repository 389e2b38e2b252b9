# SPDX-License-Identifier: Apache-2.0
"""
What the workloads of a trial do, in place of Airflow's supervisor and task.

A workload says in its task instance what it does: ``map_index`` is its place on the board, ``task_id`` the
action and ``run_id`` the argument.
"""

from __future__ import annotations

import os
import signal
import threading
import time

from inside import exceptions
from inside.board import Board

BOARD_VARIABLE = "PATCHSET_FAULTS_BOARD"
board: Board
lock = threading.Lock()


def _sleep(seconds: str) -> None:
    time.sleep(float(seconds))


def _wait(gate: str) -> None:
    board.wait(int(gate))


def _wait_deaf(gate: str) -> None:
    """Wait in a way that only SIGKILL ends."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    board.wait(int(gate))


def _then_raise(argument: str) -> BaseException:
    """Wait at a gate, then raise, e.g. ``3 huge``."""
    gate, kind = argument.split()
    board.wait(int(gate))
    return exceptions.make(kind)


def _lock(argument: str) -> None:
    with lock:
        pass


ACTIONS = {
    "nothing": lambda argument: None,
    "sleep": _sleep,
    "wait": _wait,
    "wait_deaf": _wait_deaf,
    "raise": exceptions.make,
    "return": exceptions.make_value,
    "then_raise": _then_raise,
    "lock": _lock,
    "exit": lambda code: os._exit(int(code)),
}

# Those after which failed is the right report.
FAILING = {"raise", "then_raise", "exit"}


def supervise(**kwargs):
    """Do what ``ti`` says, as ``airflow.sdk.execution_time.supervisor.supervise`` would run its task."""
    ti = kwargs["ti"]
    board.start(ti.map_index)
    outcome = ACTIONS[ti.task_id](ti.run_id)
    board.finish(ti.map_index)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome if outcome is not None else 0


def install(path: str) -> None:
    """
    Put ``supervise`` in the place of Airflow's own, here and in all processes forked from here.

    It is called again in processes that are not forked, see ``main``.
    """
    global board
    from airflow.sdk.execution_time import supervisor

    board = Board(path)
    # Renamed in Airflow 3.3, where the old name is a wrapper of the new one.
    for name in ("supervise", "supervise_task"):
        if hasattr(supervisor, name):
            setattr(supervisor, name, supervise)
