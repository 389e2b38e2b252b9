# SPDX-License-Identifier: Apache-2.0
"""The scheduler's process is killed, or ends in another way than by ``end()``."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import NoReturn

from inside import system
from inside.board import Entry
from inside.pool import Pool
from inside.registry import scenario

GO_ON, READY, ENDING, END_OTHERS = 1, 10, 11, 12
"""Gates: tasks may end; the scheduler is ready for the fault; it is ending; its other children may end."""

OTHER = 10_000
"""Place of the other child on the board."""


class Scheduler:
    """A process below this one that is the scheduler, and exits as an interpreter does."""

    def __init__(self, pool: Pool, function: Callable[[Pool], None]):
        self.pool = pool
        self.exit_code: int | None = None
        # What is left of it is then below this process.
        system.become_subreaper()
        self.pid = os.fork()
        if self.pid == 0:
            _be_scheduler(pool, function)
        pool.eventually(lambda: pool.board.is_open(READY) or self.has_ended(), "the scheduler is never ready")

    def has_ended(self) -> bool:
        if self.exit_code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.exit_code = os.waitstatus_to_exitcode(status) if pid else None
        return self.exit_code is not None

    def expect_end(self, code: int) -> None:
        """Check that it exits by itself, and that nothing is left of it."""
        self.pool.eventually(self.has_ended, "the scheduler does not exit")
        self.pool.expect(self.exit_code == code, f"the scheduler exits with {self.exit_code}, not {code}")
        self.expect_nothing_left()

    def expect_nothing_left(self, but: tuple[int, ...] = ()) -> None:
        def nothing_left() -> bool:
            system.reap()
            return set(system.descendants()) <= set(but)

        self.pool.eventually(nothing_left, "processes of the scheduler are left")


def _be_scheduler(pool: Pool, function: Callable[[Pool], None]) -> NoReturn:
    code = 0
    try:
        function(pool)
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 1
    except BaseException:
        code = 1
        try:
            traceback.print_exc()
        except OSError:
            pass
    # What Py_FinalizeEx() does first.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    os._exit(code)


@scenario("at rest", "with unread result", "sending", "workers replaced before")
@scenario("with other children", forkserver=True)
def scheduler_killed(pool: Pool, case: str) -> None:
    """Idle workers go, busy ones end their tasks first."""

    def play(pool: Pool) -> None:
        pool.fill()
        if case == "workers replaced before":
            # Forked later, these inherit whatever this process has for those that were forked before.
            pool.kill(pool.workers()[: pool.parallelism // 2])
            pool.settle(pool.queue(2 * pool.parallelism, "sleep", "0.05"))
            pool.until(pool.is_idle, "not all workers are idle")
        if case == "with other children":
            # As the scheduler's own helpers do, or a plugin's: it has all that this process has open.
            pid = os.fork()
            if pid == 0:
                pool.board.wait(END_OTHERS)
                os._exit(0)
            pool.board.write(OTHER, Entry(pid, 1, 1, 0))
        busy = pool.queue(pool.parallelism // 2, "wait", GO_ON)
        pool.until(lambda: pool.have_started(busy), "not all tasks start")
        if case == "with unread result":
            last = pool.queue(1, "raise_at", "2 huge")
            pool.until(lambda: pool.have_started(last), "the last task does not start")
            pool.board.open(2)
            pool.eventually(lambda: pool.have_finished(last), "the last task does not end")
        if case == "sending":
            for pid in pool.idle():
                system.kill(pid, signal.SIGSTOP)
            pool.queue(1, "nothing", size=4_000_000)
            pool.board.open(READY)
            pool.beat()
        pool.board.open(READY)
        signal.pause()

    scheduler = Scheduler(pool, play)
    others = (pool.board.entry(OTHER).pid,) if case == "with other children" else ()
    if case == "sending":
        # Whether in the middle of it, or with the rest put off.
        pool.eventually(lambda: system.state(scheduler.pid) == "S", "the scheduler does not send")
    system.kill(scheduler.pid)
    for pid in pool.workers():
        system.kill(pid, signal.SIGCONT)
    pool.eventually(lambda: not pool.idle(), "idle workers are left")
    entries = [(index, pool.board.entry(index)) for index in range(100)]
    alive = [index for index, e in entries if e.starts > e.finishes and system.is_alive(e.pid)]
    pool.expect(len(alive) == pool.parallelism // 2, f"{len(alive)} tasks of {pool.parallelism // 2} go on")
    pool.board.open(GO_ON)
    pool.eventually(lambda: pool.have_finished(alive), "tasks do not end")
    scheduler.expect_nothing_left(but=others)
    pool.board.open(END_OTHERS)


@scenario("after work", "while busy")
def exception_before_end(pool: Pool, case: str) -> None:
    """The process exits with its own code."""

    def play(pool: Pool) -> None:
        pool.fill()
        if case == "while busy":
            pool.busy("sleep", "0.5")
        pool.board.open(READY)
        raise SystemExit(42)

    Scheduler(pool, play).expect_end(42)


@scenario()
def second_signal_in_end(pool: Pool) -> None:
    """As the log says: signal again if you don't want to wait."""

    def play(pool: Pool) -> None:
        pid = os.getpid()

        def leave(number: int, frame: object) -> None:
            if os.getpid() == pid:
                sys.exit(0)

        signal.signal(signal.SIGTERM, leave)
        pool.fill()
        pool.busy("wait", GO_ON)
        try:
            pool.board.open(READY)
            signal.pause()
        finally:
            pool.board.open(ENDING)
            pool.executor.end()

    scheduler = Scheduler(pool, play)
    system.kill(scheduler.pid, signal.SIGTERM)
    pool.eventually(lambda: pool.board.is_open(ENDING), "end() is not reached")
    pool.eventually(lambda: system.state(scheduler.pid) == "S", "end() does not wait")
    system.kill(scheduler.pid, signal.SIGTERM)
    scheduler.expect_end(0)


@scenario("before start()", "before end()")
def output_breaks(pool: Pool, when: str) -> None:
    """The reader of the scheduler's output has gone, so that each line it logs may raise."""

    def play(pool: Pool) -> None:
        if when == "before end()":
            pool.fill()
        pool.board.open(READY)
        read_end, write_end = os.pipe()
        os.close(read_end)
        os.dup2(write_end, 1)
        os.dup2(write_end, 2)
        if when == "before start()":
            pool.executor.start()
        pool.executor.end()

    scheduler = Scheduler(pool, play)
    pool.eventually(scheduler.has_ended, "the scheduler does not exit")
    scheduler.expect_nothing_left()
