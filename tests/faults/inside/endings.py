# SPDX-License-Identifier: Apache-2.0
"""Signals to workers and to the whole process group, and the ways to end."""

from __future__ import annotations

import os
import signal
import time

from inside import system
from inside.pool import Pool, is_worker
from inside.registry import scenario

ENDING = 20
"""Gate that opens when the executor is about to end."""


class Exit(BaseException):
    """What the scheduler's signal handler raises."""


def _as_scheduler() -> None:
    """Handle signals as the scheduler does: leave what is being done, but only in its own process."""
    scheduler = os.getpid()

    def leave(number: int, frame: object) -> None:
        if os.getpid() == scheduler:
            raise Exit

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)


@scenario("idle", "busy")
def sigterm_to_workers(pool: Pool, which: str) -> None:
    """They go, the busy ones after their tasks, and others come."""
    _as_scheduler()
    pool.fill()
    if which == "busy":
        pool.busy("wait", 1)
    hit = pool.workers()
    pool.kill(hit, signal.SIGTERM)
    pool.board.open(1)
    pool.until(lambda: not set(hit) & set(pool.workers()), "workers stay")
    pool.settle()
    pool.goes_on()


@scenario()
def second_sigterm_to_busy_workers(pool: Pool) -> None:
    """The first asks to go after the task, the second at once."""
    _as_scheduler()
    pool.fill()
    running = pool.busy("wait", 1)
    hit = pool.workers()
    pool.after_beat = lambda: pool.kill(set(hit) & set(pool.workers()), signal.SIGTERM)
    pool.until(lambda: not set(hit) & set(pool.workers()), "workers stay")
    pool.after_beat = lambda: None
    pool.settle(running, "failed")
    pool.goes_on()


@scenario("SIGINT", "SIGTERM")
def signal_to_the_group(pool: Pool, name: str) -> None:
    """As from a terminal or a container: tasks end, then all ends."""
    _as_scheduler()
    pool.helper(lambda: (pool.board.wait(ENDING), time.sleep(0.2), pool.board.open(1)))
    pool.fill()
    running = pool.busy("wait", 1)
    try:
        os.killpg(os.getpgid(0), getattr(signal, name))
        time.sleep(60)
    except Exit:
        pass
    pool.board.open(ENDING)
    pool.end()
    pool.expect(all(pool.states.get(index) == "success" for index in running), "not all tasks succeed")


@scenario("busy", "stopped", "full pipes", "sending", "workers killed")
def end(pool: Pool, state: str) -> None:
    _as_scheduler()
    scheduler = os.getpid()

    def disturb() -> None:
        pool.board.wait(ENDING)
        time.sleep(0.2)
        for pid in filter(is_worker, system.descendants(scheduler)):
            system.kill(pid, signal.SIGKILL if state == "workers killed" else signal.SIGCONT)
        pool.board.open(1)

    pool.helper(disturb)
    running = _prepare(pool, state)
    if state == "workers killed":
        pool.killed.update(pool.workers())
    pool.board.open(ENDING)
    pool.end()
    if state == "workers killed":
        pool.expect({pool.states.get(index) for index in running} == {"failed"}, "not all reported as failed")


@scenario("busy", "deaf", "stopped", "full pipes", "sending")
def terminate(pool: Pool, state: str) -> None:
    """Ends whatever runs, and ``end()`` may be called after that, as by a finally clause."""
    _as_scheduler()
    _prepare(pool, state)
    pool.killed.update(pool.workers())
    pool.call("terminate")
    pool.abandon()
    pool.eventually(lambda: not pool.workers(), "workers are left")
    pool.end()


def _prepare(pool: Pool, state: str) -> list[int]:
    """Bring a pool into a state; return the workloads that run."""
    pool.fill()
    if state == "sending":
        # To workers that do not read for now.
        for pid in pool.workers():
            system.kill(pid, signal.SIGSTOP)
        pool.queue(pool.parallelism, "nothing", size=4_000_000)
        pool.beat()
        return []
    if state == "full pipes":
        # More than a pipe takes, from each worker, and nobody reads it until the end.
        running = pool.busy("raise_at", "2 large")
        pool.board.open(2)
        pool.eventually(lambda: pool.have_finished(running), "tasks do not end")
        return running
    running = pool.busy("wait_deaf" if state == "deaf" else "wait", 1)
    if state == "stopped":
        for pid in pool.workers():
            system.kill(pid, signal.SIGSTOP)
    return running
