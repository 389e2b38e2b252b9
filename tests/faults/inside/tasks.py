# SPDX-License-Identifier: Apache-2.0
"""
What workloads do, in place of Airflow's supervisor and task.

A task says it in its instance: ``map_index`` is its place on the board, ``task_id`` the action and ``run_id``
the argument. A callback and a connection test have names for it, see :func:`name`.
"""

from __future__ import annotations

import importlib
import os
import signal
import threading
import time
from contextlib import suppress
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
}


def supervise(**kwargs: Any) -> Any:
    """Do what ``ti`` says, as ``airflow.sdk.execution_time.supervisor.supervise`` would run its task."""
    ti = kwargs["ti"]
    return _run(ti.map_index, ti.task_id, ti.run_id)


def name(index: int, action: str, argument: str) -> str:
    """Return what a workload is called that is no task."""
    return f"{index}|{action}|{argument}"


def supervise_named(**kwargs: Any) -> Any:
    """The same for a callback or a connection test."""
    index, action, argument = (kwargs.get("callback_path") or kwargs["connection_id"]).split("|")
    return _run(int(index), action, argument)


def _run(index: int, action: str, argument: str) -> Any:
    before = board.entry(index)
    board.write(index, replace(before, pid=os.getpid(), starts=before.starts + 1))
    outcome = _child(argument, index) if action == "child" else ACTIONS[action](argument)
    before = board.entry(index)
    board.write(index, replace(before, finishes=before.finishes + 1))
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome if outcome is not None else 0


# By module of Airflow. In 3.3 supervise() became a wrapper of supervise_task(), and the others came.
STAND_INS = {
    "supervisor": {"supervise": supervise, "supervise_task": supervise},
    "callback_supervisor": {"supervise_callback": supervise_named},
    "connection_test_supervisor": {"supervise_connection_test": supervise_named},
}


def install(path: str) -> None:
    """Put ours in the place of Airflow's own supervisors, here and in all processes forked from here."""
    global board
    board = Board(Path(path))
    for module_name, functions in STAND_INS.items():
        with suppress(ModuleNotFoundError):
            module = importlib.import_module(f"airflow.sdk.execution_time.{module_name}")
            for function_name in functions.keys() & vars(module).keys():
                setattr(module, function_name, functions[function_name])
