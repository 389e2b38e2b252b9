# SPDX-License-Identifier: Apache-2.0
"""More work than slots, large workloads, and workloads that cannot be sent."""

from __future__ import annotations

import itertools
import os
import resource
import signal
from pathlib import Path

from inside import system
from inside.pool import Pool
from inside.registry import scenario
from inside.tasks import BOARD_VARIABLE


@scenario(parallelism=2)
def more_work_than_slots(pool: Pool) -> None:
    """Nothing holds the scheduler up, however large it is, and slots are what they say."""
    pool.start()
    executor, slots = pool.executor, pool.parallelism
    pool.expect(executor.slots_available == slots, "not all slots are free at first")
    pool.busy("wait", 1, size=100_000)
    for waiting in (0, 10, 40):
        more = waiting - (len(pool.queued) - slots)
        pool.queue(more, "wait", 1, size=100_000)
        for _ in range(5):
            pool.beat()
        pool.expect(len(executor.running) == slots, f"{len(executor.running)} running with {waiting} waiting")
        counted = slots - executor.slots_available - len(executor.running)
        pool.expect(counted == waiting, f"{counted} wait for a slot, not {waiting}")
    pool.board.open(1)
    pool.settle(state="success")
    pool.expect(executor.slots_available == slots, "not all slots are free afterwards")
    pool.end()


@scenario()
def large_workload_in_an_idle_scheduler(pool: Pool) -> None:
    """A heartbeat comes a second after the other: few of them must do."""
    pool.fill()
    index = pool.queue(1, "nothing", size=5_000_000)
    for _ in range(3):
        pool.beat()
        # Until the next one, the workers read all that was sent.
        pool.eventually(lambda: {"S"} == set(map(system.state, pool.workers())), "the workers do not rest")
    pool.expect(pool.have_started(index), "not sent after 3 heartbeats")
    pool.settle(index, "success")
    pool.goes_on()


SECRET = "hunter2-of-the-connection"


class Unpicklable:
    def __reduce__(self):
        raise ValueError(f"cannot pickle a client with password {SECRET}")

    def __repr__(self):
        return f"<client with password {SECRET}>"


@scenario()
def secret_in_a_workload_that_cannot_be_pickled(pool: Pool) -> None:
    """It fails alone, and nothing of it is in the log."""
    pool.fill()
    others = pool.queue(2, "nothing")
    (index,) = pool.queue(1, "nothing", executor_config={"client": Unpicklable()})
    pool.settle([index], "failed")
    pool.settle(others, "success")
    pool.goes_on()
    log = Path(os.environ[BOARD_VARIABLE]).with_suffix(".log").read_text(errors="replace")
    pool.expect(SECRET not in log, "the secret is in the log")


@scenario(parallelism=64)
def few_descriptors(pool: Pool) -> None:
    """The scheduler keeps some for itself: files, connections, the log."""
    free = (n for n in itertools.count() if not os.path.lexists(f"/proc/self/fd/{n}"))
    limit = next(itertools.islice(free, 120, None))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    pool.start()
    pool.settle(pool.queue(2 * pool.parallelism, "nothing"), "success")
    workers = len(pool.workers())
    opened = []
    try:
        for _ in range(16):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pool.expect(False, f"the scheduler can open {len(opened)} files, with {workers} workers")
    for fd in opened:
        os.close(fd)
    pool.end()


@scenario(parallelism=8)
def threads_left_by_tasks(pool: Pool) -> None:
    """A worker that is to end waits for them; the scheduler does not."""
    pool.fill()
    pool.settle(pool.busy("leave_thread", 1))
    pool.until(pool.is_idle, "not all workers are idle")
    pool.kill(pool.workers(), signal.SIGTERM)
    pool.beats(20)
    pool.settle(pool.queue(2 * pool.parallelism, "nothing"), "success")
    pool.board.open(1)
    pool.goes_on()
