# SPDX-License-Identifier: Apache-2.0
"""Workers cannot be started, or start in a process that was set up in an unusual way."""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
import warnings
from multiprocessing import resource_tracker
from pathlib import Path

from inside import system
from inside.pool import Pool
from inside.registry import scenario

REFUSED = 60
"""Heartbeats in which forks are refused."""


class Forks:
    """Lets some forks of this process through and refuses the rest, as the system would."""

    def __init__(self, allowed: int, number: int):
        self.allowed = allowed
        self.refused = 0
        self._number = number
        self._fork, os.fork = os.fork, self

    def __call__(self) -> int:
        if self.allowed <= 0:
            self.refused += 1
            raise OSError(self._number, os.strerror(self._number))
        self.allowed -= 1
        return self._fork()


@scenario("at the start", "half way", "of replacements", "of those for retired workers")
def fork_refused(pool: Pool, when: str) -> None:
    """The pool does with what it has, and tries again, but not all the time."""
    if when == "of those for retired workers":
        os.environ["AIRFLOW__LOCAL_EXECUTOR__RENEW_IDLE_WORKERS_AFTER"] = "0.1"
        pool.executor = type(pool.executor)(parallelism=pool.parallelism)
        pool.fill()
        forks = Forks(0, errno.EAGAIN)
    elif when == "of replacements":
        pool.fill()
        forks = Forks(0, errno.EAGAIN)
        running = pool.busy()
        pool.kill(map(pool.worker_of, running))
    else:
        forks = Forks(0 if when == "at the start" else pool.parallelism // 2, errno.ENOMEM)
        pool.start()
    work = pool.queue(2 * pool.parallelism, "sleep", "0.01")
    pool.until(lambda: forks.refused, "no fork is tried")
    before = system.descriptors()
    pool.beats(REFUSED)
    more = system.descriptors() - before
    pool.expect(more <= 0, f"{more} descriptors more")
    # A pool without a pause tries in each, one with a pause not even if they take a minute.
    pool.expect(forks.refused <= 20, f"tries {forks.refused} times in {REFUSED} heartbeats")
    if when in ("half way", "of those for retired workers"):
        pool.settle(work, "success")
    forks.allowed = 1000
    # There is work for every worker, so those that are started only for work are started as well.
    pool.queue(pool.parallelism, "wait", 2)
    pool.until(pool.is_full, "the pool is not complete again")
    pool.board.open(2)
    pool.settle()
    pool.goes_on()


@scenario("SIGCHLD ignored, nothing collected or frozen", "timeout, umask, warnings")
def process_wide_setting(pool: Pool, names: str) -> None:
    """Whatever is set in the scheduler's process changes nothing."""
    if names.startswith("SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        gc.disable()
        gc.unfreeze()
    else:
        socket.setdefaulttimeout(0.2)
        os.umask(0o777)
        warnings.simplefilter("error")
    before = _collector(), signal.getsignal(signal.SIGCHLD), socket.getdefaulttimeout()
    pool.fill()
    workers, descriptors = sorted(pool.workers()), system.descriptors()
    # Longer than that timeout.
    pool.beats(50)
    pool.expect(sorted(pool.workers()) == workers, "workers have ended while idle")
    for _ in range(2):
        pool.kill(pool.workers()[:2])
        pool.settle(pool.queue(pool.parallelism, "sleep", "0.05"))
        pool.until(pool.is_full, "the pool is not complete again")
    more = system.descriptors() - descriptors
    pool.expect(more <= 0, f"{more} descriptors more")
    after = _collector(), signal.getsignal(signal.SIGCHLD), socket.getdefaulttimeout()
    pool.expect(after == before, f"left behind {after}, was {before}")
    pool.goes_on()


def _collector() -> tuple[bool, bool]:
    # Python 3.12 and newer count some hundred objects as frozen from the start.
    return gc.isenabled(), gc.get_freeze_count() > 1000


@scenario(forkserver=True)
def descriptors_closed_by_a_daemon(pool: Pool) -> None:
    """Nobody writes to a number that was closed since, and is a database by now."""
    resource_tracker.ensure_running()
    kept = pool.keep_descriptor(900)
    os.closerange(3, kept)
    os.closerange(kept + 1, 1024)
    content = b"database " * 100
    path = Path(f"{pool.board.path}.database")
    path.write_bytes(content)
    databases = [os.open(path, os.O_RDWR) for _ in range(40)]
    pool.fill()
    pool.kill(pool.workers()[:1])
    pool.goes_on()
    pool.expect(path.read_bytes() == content, f"the database now begins with {path.read_bytes()[:30]!r}")
    pool.expect(all(os.fstat(fd).st_ino == path.stat().st_ino for fd in databases), "descriptors were closed")
