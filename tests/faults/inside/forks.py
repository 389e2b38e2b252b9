# SPDX-License-Identifier: Apache-2.0
"""The system refuses new processes, for a while."""

from __future__ import annotations

import errno
import os
import resource
import signal
import time

from inside.pool import PAUSE, Pool
from inside.trial import Runner, Trial

REFUSED = 3.0
"""Seconds that forks are refused for."""
MOST_ATTEMPTS = 20
"""Forks that may be tried in that time. A pool without a pause would try hundreds of times."""
AGAIN_WITHIN = 20.0
"""Seconds that a pool may take to be full again: the pauses between attempts get longer."""
NOBODY = 54321
"""A user who has no other process, so that a limit on processes counts those of the trial alone."""


def fork_refused(run: Runner, parallelism: int = 4) -> list[dict]:
    """Refuse forks from the start, half way through it, and when workers have died."""
    cases = []
    for name in ("EAGAIN", "ENOMEM"):
        number = getattr(errno, name)
        for allowed in (0, parallelism // 2):
            label = f"fork refused ({name}) after {allowed} of {parallelism}"
            cases.append(run.case(label, _refuse_at_start, [(parallelism, number, allowed)]))
        label = f"fork refused ({name}), workers killed"
        cases.append(run.case(label, _refuse_replacements, [(parallelism, number)]))
    if os.geteuid() == 0:
        cases.append(run.case("limit on processes", _limit, [(parallelism,)]))
    return cases


class Forks:
    """Lets some forks of this process through and refuses the rest, as the system would."""

    def __init__(self, allowed: int, number: int):
        self.allowed = allowed
        self.attempts = 0
        """Refused ones."""
        self._number = number
        self._fork = os.fork
        os.fork = self

    def __call__(self) -> int:
        if self.allowed <= 0:
            self.attempts += 1
            raise OSError(self._number, os.strerror(self._number))
        self.allowed -= 1
        return self._fork()


def _refused(trial: Trial, pool: Pool, forks: Forks) -> None:
    """Beat for a while and check that the executor tries to fork again, but not all the time."""
    ends = time.monotonic() + REFUSED
    while time.monotonic() < ends:
        pool.beat()
        time.sleep(PAUSE)
    trial.result["attempts"] = forks.attempts
    trial.expect(forks.attempts >= 2, f"tries {forks.attempts} times in {REFUSED:g} s")
    trial.expect(forks.attempts <= MOST_ATTEMPTS, f"tries {forks.attempts} times in {REFUSED:g} s")


def _refuse_at_start(trial: Trial, parallelism: int, number: int, allowed: int) -> None:
    pool = Pool(trial, parallelism)
    forks = Forks(allowed, number)
    pool.start()
    first = pool.offer(2 * parallelism, "sleep", "0.01")
    _refused(trial, pool, forks)
    done = sum(bool(pool.reports[index]) for index in first)
    # It has to do with what it got.
    trial.expect(done == (len(first) if allowed else 0), f"{done} of {len(first)} done on {allowed} workers")
    _recover(trial, pool, forks)


def _recover(trial: Trial, pool: Pool, forks: Forks) -> None:
    forks.allowed = 1000
    allowed_at = time.monotonic()
    # There is work for every worker, so those that are only made for work are made as well.
    pool.offer(pool.parallelism, "wait", "1")
    pool.until(pool.full, "the pool is not full again", AGAIN_WITHIN)
    trial.result["full_after_s"] = round(time.monotonic() - allowed_at, 2)
    trial.board.open(1)
    pool.settle()
    pool.goes_on()


def _refuse_replacements(trial: Trial, parallelism: int, number: int) -> None:
    pool = Pool(trial, parallelism)
    pool.start()
    pool.fill()
    forks = Forks(0, number)
    running = pool.busy("wait", "2")
    for index in running:
        pool.kill(trial.board.entry(index).pid, signal.SIGKILL)
    pool.offer(parallelism, "nothing")
    _refused(trial, pool, forks)
    pool.settle(running)
    _recover(trial, pool, forks)


def _limit(trial: Trial, parallelism: int) -> None:
    # Once before, since another user may not be able to read what is imported on the way.
    pool = Pool(trial, parallelism)
    pool.start()
    pool.fill(gate=250)
    pool.end()

    os.setresuid(NOBODY, NOBODY, NOBODY)
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    resource.setrlimit(resource.RLIMIT_NPROC, (1 + parallelism // 2, hard))
    pool = Pool(trial, parallelism)
    pool.start()
    pool.settle(pool.offer(2 * parallelism, "sleep", "0.01"))
    for _ in range(20):
        pool.beat()
        time.sleep(PAUSE)
    started = len(pool.workers())
    trial.expect(started == parallelism // 2, f"{started} workers where {parallelism // 2} were possible")

    resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
    pool.offer(parallelism, "wait", "1")
    pool.until(pool.full, "the pool is not full once there is no limit", AGAIN_WITHIN)
    trial.board.open(1)
    pool.settle()
    pool.goes_on()
