# SPDX-License-Identifier: Apache-2.0
"""The scheduler's process is killed, and its workers have to notice."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

import psutil

from inside.pool import IDLE, TITLE, Pool
from inside.trial import Runner, Trial, become_subreaper, reap

GONE_WITHIN = 5.0
"""Seconds that workers may take to notice."""


def scheduler_killed(run: Runner, parallelism: int = 6) -> list[dict]:
    """Kill the process that has called the executor, with some workers busy and some idle."""
    return [
        run.case("scheduler killed", _kill_scheduler, [(parallelism, "")]),
        run.case("scheduler killed, workers replaced before", _kill_scheduler, [(parallelism, "replaced")]),
        run.case("scheduler killed, other children left", _kill_scheduler, [(parallelism, "children")]),
        run.case("scheduler killed while it sends", _kill_scheduler, [(parallelism, "sending")]),
        run.case("scheduler killed, result unread", _kill_scheduler, [(parallelism, "result")]),
    ]


def _scheduler(trial: Trial, parallelism: int, mode: str, ready: int) -> None:
    """Be the scheduler, until killed."""
    pool = Pool(trial, parallelism)
    pool.start()
    pool.fill(gate=200)
    if mode == "replaced":
        # Forked later, these inherit whatever this process has for those that were forked before.
        for pid in pool.idle()[: parallelism // 2]:
            pool.kill(pid, signal.SIGKILL)
        pool.settle(pool.offer(2 * parallelism, "sleep", "0.05"))
        pool.until(pool.all_idle, "not all workers are idle")
    if mode == "children" and os.fork() == 0:
        # As the scheduler's own helpers do, or a plugin's: it has all that this process had open.
        time.sleep(60)
        os._exit(0)
    # Half of the pool is busy, and stays so.
    busy = pool.offer(parallelism // 2, "wait", "1")
    pool.until(lambda: all(trial.board.entry(index).starts for index in busy), "not all tasks start")
    if mode == "result":
        last = pool.offer(1, "then_raise", "2 huge")
        pool.until(lambda: trial.board.entry(last[0]).starts, "the last task does not start")
        trial.board.open(2)
        trial.eventually(lambda: trial.board.entry(last[0]).finishes, "the last task does not end")
    if mode == "sending":
        for pid in pool.idle():
            os.kill(pid, signal.SIGSTOP)
        pool.offer(1, "nothing", token="x" * 4_000_000)
        os.write(ready, b"sending")
        pool.call("heartbeat", limit=60)
    os.write(ready, b"ready")
    while True:
        time.sleep(1)


def _kill_scheduler(trial: Trial, parallelism: int, mode: str) -> None:
    become_subreaper()
    ready, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        own = Trial(trial.board, write_end, 60, trial.patience)
        try:
            _scheduler(own, parallelism, mode, write_end)
        except BaseException as e:
            os.write(write_end, f"{type(e).__name__} {e} {own.problems}".encode())
        os._exit(1)
    said = os.read(ready, 4096)
    trial.require(said in (b"ready", b"sending"), f"the scheduler does not get ready: {said.decode()}")
    if said == b"sending":
        time.sleep(0.3)  # It is in the middle of it, or has put off the rest.
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for worker in _workers():
        with suppress(psutil.NoSuchProcess):
            worker.send_signal(signal.SIGCONT)

    busy = {worker.pid for worker in _workers() if IDLE not in _title(worker)}
    trial.result["busy"] = len(busy)
    trial.expect(len(busy) >= parallelism // 2, f"only {len(busy)} workers are busy")
    killed = time.monotonic()
    while [worker for worker in _workers() if IDLE in _title(worker)]:
        left = [worker for worker in _workers() if IDLE in _title(worker)]
        if time.monotonic() > killed + GONE_WITHIN:
            trial.expect(not left, f"{len(left)} idle workers after {GONE_WITHIN:g} s")
            break
        time.sleep(0.02)
    trial.result["idle_gone_after_s"] = round(time.monotonic() - killed, 2)

    # Those that are busy go on as if nothing were, even now, and end their tasks.
    waiting = [index for index in range(2000) if trial.board.is_running(index)]
    still = [index for index in waiting if psutil.pid_exists(trial.board.entry(index).pid)]
    trial.expect(len(still) >= parallelism // 2, f"only {len(still)} tasks go on")
    trial.result["offered"] = len(still)
    trial.board.open(1)
    trial.eventually(
        lambda: all(trial.board.entry(index).finishes for index in still), "tasks do not end", GONE_WITHIN
    )
    trial.eventually(lambda: not _workers(), "workers that were busy stay", GONE_WITHIN)
    for child in psutil.Process().children(recursive=True):
        if mode == "children":
            # A fork server has nobody left to fork for, and goes by itself.
            with suppress(psutil.NoSuchProcess):
                child.kill()
    trial.eventually(lambda: not _zombies(), "zombies are left", 2)


def _zombies() -> list[psutil.Process]:
    """Collect what has ended and was left to this process; return what has ended and was not."""
    reap()
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() == psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _workers() -> list[psutil.Process]:
    reap()
    return [p for p in psutil.Process().children(recursive=True) if _title(p).startswith(TITLE)]
