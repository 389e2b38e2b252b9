# SPDX-License-Identifier: Apache-2.0
"""
A thread of the scheduler holds a lock while workers are forked, which then is held for ever in them.

A task that needs such a lock waits for ever, whoever forks. What is tested here is that the executor's own
code needs none, and stands tasks that do.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from inside import tasks
from inside.pool import PAUSE, Pool
from inside.trial import Runner, Trial


def _handlers() -> list[logging.Handler]:
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.Logger.manager.loggerDict))]
    return list({handler for logger in loggers for handler in logger.handlers})


def _logging_locks() -> list[Any]:
    return [handler.lock for handler in _handlers() if handler.lock]


def _structlog_locks() -> list[Any]:
    """Locks for writing to a stream, which structlog keeps outside of its loggers and does not renew."""
    import structlog._output

    for stream in (sys.stdout, sys.stderr, sys.stdout.buffer, sys.stderr.buffer):
        structlog._output._get_lock_for_file(stream)
    return list(structlog._output.WRITE_LOCKS.values())


def _tracker_lock() -> list[Any]:
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()
    return [resource_tracker._resource_tracker._lock]


KINDS: dict[str, Callable[[], list[Any]]] = {
    "of logging": _logging_locks,
    "of structlog": _structlog_locks,
    "of the resource tracker": _tracker_lock,
}


def locks(run: Runner, parallelism: int = 4) -> list[dict]:
    """Hold locks in a thread while workers are started and while they are replaced."""
    cases = [
        run.case(f"thread holds a lock {kind} at the fork", _hold, [(parallelism, kind)], limit=40)
        for kind in KINDS
    ]
    return [
        *cases,
        run.case("thread writes to stderr at the fork", _write, [(parallelism,)], limit=40),
        run.case("tasks wait for a lock held at the fork", _wedged, [(parallelism,)], limit=40),
    ]


class Holder:
    """
    A thread that holds locks at every fork of this process, and at no other time.

    So this process itself never waits for it, and it is as if each fork had hit the one wrong moment.
    """

    def __init__(self, locks: list[Any]):
        self._locks = locks
        self._wanted, self._held, self._done, self._released = (threading.Semaphore(0) for _ in range(4))
        threading.Thread(target=self._run, daemon=True).start()
        os.register_at_fork(before=self._hold, after_in_parent=self._release)

    def _run(self) -> None:
        while True:
            self._wanted.acquire()
            with ExitStack() as stack:
                for lock in self._locks:
                    stack.enter_context(lock)
                self._held.release()
                self._done.acquire()
            self._released.release()

    def _hold(self) -> None:
        self._wanted.release()
        self._held.acquire()

    def _release(self) -> None:
        self._done.release()
        self._released.acquire()


def _hold(trial: Trial, parallelism: int, kind: str) -> None:
    Holder(KINDS[kind]())
    pool = Pool(trial, parallelism)
    pool.start()
    # All of them: one that is wedged starts none.
    pool.busy("wait", "1")
    trial.board.open(1)
    pool.settle()
    pool.until(pool.all_idle, "not all workers are idle")
    pool.goes_on()


def _write(trial: Trial, parallelism: int) -> None:
    """Replace workers while a thread is at work on a stream that the workers write to as well."""
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            print("." * 1000, file=sys.stderr, flush=True)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    pool = Pool(trial, parallelism)
    # Many times: the thread is in the middle of it at some forks, and not at others.
    for _ in range(10):
        pool.start()
        pool.settle(pool.offer(parallelism, "raise", "plain"))
        pool.end()
    stop.set()
    thread.join()


def _wedged(trial: Trial, parallelism: int) -> None:
    """Let the tasks themselves be lost to such a lock: that must not take the executor with them."""
    Holder([tasks.lock])
    pool = Pool(trial, parallelism)
    pool.start()
    wedged = pool.offer(parallelism, "lock")
    pool.until(lambda: all(trial.board.entry(index).starts for index in wedged), "not all tasks start")
    pool.offer(parallelism, "nothing")
    for _ in range(50):
        pool.beat()
        time.sleep(PAUSE)
    pool.call("terminate", limit=10)
    pool.abandon()
    trial.eventually(lambda: not pool.workers(), "workers are left", 2)
