# SPDX-License-Identifier: Apache-2.0
"""Runs one scenario within a hard limit, and kills whatever it leaves."""

from __future__ import annotations

import json
import multiprocessing
import os
import select
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from inside import system, tasks
from inside.board import Board
from inside.registry import Scenario


def start(scenario: Scenario, directory: Path, patience: float) -> tuple[int, int]:
    """
    Fork a warden; return its process id, and a descriptor to read the result from, as JSON.

    :param directory: for logs, and for what the processes of the scenario share
    :param patience: seconds without progress, or in one call, after which something counts as lost or hung
    """
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        os.setsid()
        result = run(scenario, directory, patience)
        os.write(write_end, json.dumps(result).encode())
        os._exit(0)
    os.close(write_end)
    return pid, read_end


def run(scenario: Scenario, directory: Path, patience: float) -> dict[str, Any]:
    """Run a scenario and return its result; all of its processes have ended then."""
    system.become_subreaper()
    place = directory / scenario.name.replace("/", " ")
    log = os.open(f"{place}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    read_end, write_end = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        os.setsid()
        _play(scenario, patience, Path(f"{place}.board"), write_end)
    os.close(write_end)
    # Each of its steps is bound by ``patience``, so this limit is for what nobody thought of.
    data = _read(read_end, pid, 30 + 20 * patience)
    result = json.loads(data) if data else {"problems": ["killed: no result in time"], "broken": None}
    if not result["problems"] and (left := _left(patience)):
        result["problems"].append(f"{len(left)} processes left: {sorted(set(left))}")
    _kill_all()
    return {"scenario": scenario.name, "seconds": round(time.monotonic() - started, 1), **result}


def _play(scenario: Scenario, patience: float, board: Path, fd: int) -> None:
    """Be the scheduler. Does not return."""
    from inside.pool import Absent, Pool, Stop

    os.environ[tasks.BOARD_VARIABLE] = str(board)
    shared = Board(board)
    tasks.install(str(board))
    multiprocessing.set_start_method(scenario.start_method)
    pool = Pool(shared, scenario.parallelism, patience, fd)
    try:
        scenario.function(pool, *scenario.arguments)
    except Stop:
        pass
    except Absent as e:
        pool.tell(absent=str(e))
    except BaseException as e:
        # A fault of the scenario, never to be taken for one of the executor.
        traceback.print_exc()
        pool.tell(broken=f"{type(e).__name__}: {e}")
    pool.tell()


def _read(fd: int, pid: int, limit: float) -> bytes:
    """Return what process ``pid`` says until it ends; its workers may hold the pipe open after that."""
    data, ended, deadline = b"", False, time.monotonic() + limit
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while time.monotonic() < deadline:
        if poll.poll(20):
            chunk = os.read(fd, 65536)
            data += chunk
            if not chunk:
                break
        elif ended:
            break
        ended = ended or os.waitpid(pid, os.WNOHANG)[0] != 0
    return data


def _left(patience: float) -> list[str]:
    """Return the titles of the processes that do not end by themselves."""
    deadline = time.monotonic() + patience
    while True:
        system.reap()
        left = system.descendants()
        if not left or time.monotonic() > deadline:
            return [system.title(pid)[:80] for pid in left]
        time.sleep(0.01)


def _kill_all() -> None:
    """Kill all processes below this one, again and again: they may fork meanwhile."""
    while left := system.descendants():
        for pid in left:
            system.kill(pid)
        time.sleep(0.01)
        system.reap()
    sys.stderr.flush()
