# SPDX-License-Identifier: Apache-2.0
"""
A thread of the scheduler holds a lock while workers are forked, which then is held for ever in them.

A task that needs such a lock waits for ever, whoever forks. But the executor's own code must need none, and
stand tasks that do.
"""

from __future__ import annotations

import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from typing import Any

from inside import tasks
from inside.pool import Pool
from inside.registry import scenario


def _locks() -> list[Any]:
    """Return the locks of logging, of structlog, which does not renew them, and of multiprocessing."""
    import structlog._output

    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.Logger.manager.loggerDict))]
    for stream in (sys.stdout, sys.stderr, sys.stdout.buffer, sys.stderr.buffer):
        structlog._output._get_lock_for_file(stream)
    resource_tracker.ensure_running()
    return [
        *{handler.lock for logger in loggers for handler in logger.handlers if handler.lock},
        *structlog._output.WRITE_LOCKS.values(),
        resource_tracker._resource_tracker._lock,
    ]


def hold_at_forks(locks: list[Any]) -> None:
    """
    Have another thread hold ``locks`` at every fork of this process, and at no other time.

    So this process itself never waits for it, and it is as if each fork had hit the one wrong moment.
    """
    thread = ThreadPoolExecutor(1)

    def all_of_them(method: str) -> None:
        thread.submit(lambda: [getattr(lock, method)() for lock in locks]).result()

    os.register_at_fork(before=lambda: all_of_them("acquire"), after_in_parent=lambda: all_of_them("release"))


@scenario()
def locks_held_at_the_fork(pool: Pool) -> None:
    hold_at_forks(_locks())
    logging.getLogger().setLevel(logging.INFO)
    # All workers start and log: one that is wedged does not.
    pool.fill()
    pool.settle(pool.queue(2 * pool.parallelism, "raise", "plain"))
    pool.goes_on()


@scenario()
def tasks_wait_for_a_lock_held_at_the_fork(pool: Pool) -> None:
    """Tasks that are lost to such a lock do not take the executor with them."""
    hold_at_forks([tasks.lock])
    pool.start()
    pool.busy("lock")
    pool.queue(pool.parallelism, "nothing")
    for _ in range(50):
        pool.beat()
    pool.call("terminate")
    pool.abandon()
    pool.eventually(lambda: not pool.workers(), "workers are left")
