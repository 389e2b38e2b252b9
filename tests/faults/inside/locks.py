# SPDX-License-Identifier: Apache-2.0
"""
A thread of the scheduler holds a lock while workers are forked, which then is held for ever in them.

A task that needs such a lock is lost to the fork, whoever forks. What is tested here is that the executor's
own code needs none.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from inside.pool import Pool
from inside.trial import Runner, Trial


def _handlers() -> list[logging.Handler]:
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.Logger.manager.loggerDict))]
    return [handler for logger in loggers for handler in logger.handlers]


def _logging_locks() -> list[Any]:
    return [logging._lock, *(handler.lock for handler in _handlers() if handler.lock)]  # type: ignore[attr-defined]


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


def _plain_lock() -> list[Any]:
    return [threading.Lock()]


KINDS: dict[str, Callable[[], list[Any]]] = {
    "of logging": _logging_locks,
    "of structlog": _structlog_locks,
    "of the resource tracker": _tracker_lock,
    "of its own": _plain_lock,
}


def locks(run: Runner, parallelism: int = 4) -> list[dict]:
    """Hold locks in a thread while workers are started and while they are replaced."""
    cases = [
        run.case(f"thread holds a lock {kind} at the fork", _hold, [(parallelism, kind)], limit=40)
        for kind in KINDS
    ]
    cases.append(run.case("thread writes to stderr at the fork", _write, [(parallelism,)], limit=40))
    return cases


@contextmanager
def held(locks: list[Any]) -> Iterator[None]:
    """Have a thread hold all ``locks``."""
    holds, release = threading.Event(), threading.Event()

    def hold() -> None:
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            holds.set()
            release.wait()

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    holds.wait()
    try:
        yield
    finally:
        release.set()
        thread.join()


def _hold(trial: Trial, parallelism: int, kind: str) -> None:
    pool = Pool(trial, parallelism)
    with held(KINDS[kind]()):
        # In a fork while the lock is held, the executor may have nothing to say that needs it.
        quiet = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        pool.start()
        logging.disable(quiet)
    pool.settle(pool.offer(2 * parallelism, "sleep", "0.01"))
    pool.until(lambda: pool.idle(), "no idle worker")
    for pid in pool.idle():
        pool.kill(pid, signal.SIGKILL)
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
    pool.start()
    for _ in range(10):
        pool.settle(pool.offer(parallelism, "raise", "plain"))
        pool.until(lambda: pool.idle(), "no idle worker")
        pool.kill(pool.idle()[0], signal.SIGKILL)
    stop.set()
    thread.join()
    pool.goes_on()
