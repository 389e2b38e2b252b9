# SPDX-License-Identifier: Apache-2.0
"""Callbacks and connection tests, which share the slots with tasks; and workloads that are taken back."""

from __future__ import annotations

import resource
import signal

from inside import system
from inside.pool import Pool
from inside.registry import scenario


@scenario("callback", "connection test")
def busy_worker_killed_in_a(pool: Pool, kind: str) -> None:
    """It is reported as a failed task is, and its slot is free again."""
    pool.fill()
    running = pool.queue(2, "wait", 1, kind=kind)
    pool.until(lambda: pool.have_started(running), "not all start")
    pool.kill([pool.worker_of(running[0])])
    pool.settle(running[:1], "failed")
    pool.board.open(1)
    pool.settle(running[1:], "success")
    pool.goes_on()


@scenario()
def connection_tests_in_all_slots(pool: Pool) -> None:
    """As many as there are slots start; tasks wait for them, and no longer."""
    pool.fill()
    tests = pool.queue(pool.parallelism, "wait", 1, kind="connection test")
    pool.until(lambda: pool.have_started(tests), "not all start")
    work = pool.queue(2 * pool.parallelism, "nothing")
    pool.beat()
    pool.beat()
    pool.expect(not any(pool.board.entry(index).starts for index in work), "more run than there are slots")
    pool.board.open(1)
    pool.settle(tests, "success")
    pool.settle(work, "success")
    pool.goes_on()


@scenario("runs", "was sent", "waits")
def task_is_revoked_that(pool: Pool, how: str) -> None:
    """Its worker ends, what it has run as well, and the slot is free for others; it is never reported."""
    pool.fill()
    running = pool.queue(pool.parallelism - 1, "wait", 1)
    pool.until(lambda: pool.have_started(running), "not all start")
    pool.until(lambda: len(pool.idle()) == 1, "no worker is idle")
    (last,) = pool.idle()
    if how == "was sent":
        system.kill(last, signal.SIGSTOP)
    (index,) = pool.queue(1, "child", 1)
    if how == "waits":
        pool.revoke(index)
    elif how == "was sent":
        pool.beat()
        pool.revoke(index)
        system.kill(last, signal.SIGCONT)
    else:
        pool.until(lambda: pool.board.entry(index).child, "the task does not start")
        pool.revoke(index)
        pool.until(lambda: not system.is_alive(pool.board.entry(index).child), "the task still runs")
    pool.settle(pool.queue(pool.parallelism, "nothing"), "success")
    if how != "runs":
        pool.expect(not pool.board.entry(index).starts, "it runs")
    pool.board.open(1)
    pool.settle(running, "success")
    pool.goes_on()


@scenario()
def workload_larger_than_files_may_be(pool: Pool) -> None:
    """Whatever has such a limit, or no room, delays that workload alone."""
    pool.fill()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    large = pool.queue(1, "nothing", size=4_000_000)
    pool.beat()
    pool.settle(pool.queue(2 * pool.parallelism, "nothing"), "success")
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    pool.settle(large, "success")
    pool.goes_on()
