# SPDX-License-Identifier: Apache-2.0
"""Signals to workers and to the whole process group, and the ways to end."""

from __future__ import annotations

import os
import signal
import time

from inside.kills import kill_soon
from inside.pool import Pool
from inside.trial import Runner, Trial

GONE_WITHIN = 10.0
"""Seconds until everything has gone that was told to go."""


def signals(run: Runner, parallelism: int = 4) -> list[dict]:
    """Send signals at rest and under load, once and twice."""
    both = [(parallelism, number) for number in (signal.SIGTERM, signal.SIGINT)]
    return [
        run.case("SIGTERM to idle workers", _to_workers, [(parallelism, signal.SIGTERM, "idle")]),
        run.case("SIGTERM to busy workers", _to_workers, [(parallelism, signal.SIGTERM, "busy")]),
        run.case("SIGTERM twice to busy workers", _to_workers, [(parallelism, signal.SIGTERM, "twice")]),
        run.case("SIGINT to idle workers", _to_workers, [(parallelism, signal.SIGINT, "idle")]),
        run.case("SIGINT to busy workers", _to_workers, [(parallelism, signal.SIGINT, "busy")]),
        run.case("signal to the group at rest", _to_group, [(*args, "idle") for args in both]),
        run.case("signal to the group under load", _to_group, [(*args, "busy") for args in both]),
        run.case("signal twice to the group under load", _to_group, [(*args, "twice") for args in both]),
        run.case("signal twice to the group at rest", _to_group, [(*args, "idle twice") for args in both]),
        run.case("signal to the group, tasks deaf to SIGTERM", _to_group, [(*args, "deaf") for args in both]),
    ]


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


def _to_workers(trial: Trial, parallelism: int, number: int, mode: str) -> None:
    _as_scheduler()
    pool = Pool(trial, parallelism)
    pool.start()
    pool.fill()
    if mode == "idle":
        hit = pool.idle()
    else:
        running = pool.busy("sleep", "1.5")
        hit = [trial.board.entry(index).pid for index in running]
    for _ in range(2 if mode == "twice" else 1):
        for pid in hit:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        time.sleep(0.2)
    if number == signal.SIGTERM:
        # Whether their tasks may end first is their business; that they are asked to go is not.
        pool.killed.update(hit)
        pool.until(lambda: not set(hit) & set(pool.workers()), "workers stay", GONE_WITHIN)
    pool.settle()
    if number == signal.SIGINT:
        trial.expect(set(hit) <= set(pool.workers()), "workers have gone")
        trial.expect("failed" not in pool.states.values(), "tasks fail")
    pool.settle(pool.offer(6, "sleep", "0.01"))
    pool.goes_on()


def _to_group(trial: Trial, parallelism: int, number: int, mode: str) -> None:
    """Signal the whole group, as a terminal or a container does, and shut down as the scheduler does."""
    _as_scheduler()
    pool = Pool(trial, parallelism)
    pool.start()
    pool.fill()
    if mode in ("deaf", "twice"):
        running = pool.busy("wait_deaf" if mode == "deaf" else "wait", "1")
    elif mode == "busy":
        running = pool.busy("sleep", "1")
    else:
        running = []
    pool.killed.update(trial.board.entry(index).pid for index in running)
    try:
        os.killpg(os.getpgid(0), number)
        time.sleep(5)
        trial.require(False, "the signal does not arrive")
    except Exit:
        pass
    if mode in ("deaf", "twice", "idle twice"):
        # "Signal again if you don't want to wait."
        _signal_group_soon(number, 0.3)
        pool.call("end", expected=Exit)
        pool.call("terminate", limit=GONE_WITHIN)
        pool.abandon()
    else:
        pool.end()
    _expect_gone(pool)


def _signal_group_soon(number: int, seconds: float) -> None:
    """Signal the group from another process that survives it."""
    if os.fork() == 0:
        signal.signal(number, signal.SIG_IGN)
        time.sleep(seconds)
        try:
            os.killpg(os.getpgid(0), number)
        finally:
            os._exit(0)


def _expect_gone(pool: Pool) -> None:
    """Check that no worker is left of a pool that was ended."""
    pool.trial.eventually(lambda: not pool.workers(), "workers are left", 2)


def endings(run: Runner, parallelism: int = 4) -> list[dict]:
    """End a pool in whatever state it is."""
    cases = [
        run.case("end() while idle", _end, [(parallelism, "idle")]),
        run.case("end() under load", _end, [(parallelism, "busy")]),
        run.case("end() with full pipes", _end, [(parallelism, "full")]),
        run.case("end() while a large workload is sent", _end, [(parallelism, "sending")]),
        run.case("end() and workers are killed meanwhile", _end, [(parallelism, "killed")]),
        run.case("end() and a worker is terminated meanwhile", _end, [(parallelism, "terminated")]),
    ]
    for mode in ("idle", "busy", "deaf", "stopped", "full", "sending"):
        cases.append(run.case(f"terminate(), workers {mode}", _terminate, [(parallelism, mode)]))
    return cases


def _prepare(pool: Pool, mode: str) -> list[int]:
    """Bring a pool into a state; return the workloads that run."""
    trial = pool.trial
    pool.start()
    pool.fill()
    if mode in ("idle", "sending"):
        if mode == "sending":
            # To workers that do not read for now.
            for pid in pool.idle():
                os.kill(pid, signal.SIGSTOP)
            pool.offer(pool.parallelism, "nothing", token="x" * 4_000_000)
            pool.beat()
        return []
    if mode == "full":
        # More than a pipe takes, from each worker, and nobody reads it until the end.
        running = pool.busy("then_raise", "1 large")
        trial.board.open(1)
        trial.eventually(
            lambda: all(trial.board.entry(index).finishes for index in running), "tasks do not end"
        )
        return running
    return pool.busy("wait_deaf" if mode == "deaf" else "wait", "1")


def _end(trial: Trial, parallelism: int, mode: str) -> None:
    _as_scheduler()
    pool = Pool(trial, parallelism)
    running = _prepare(pool, mode)
    pids = [trial.board.entry(index).pid for index in running]
    if mode == "sending":
        for pid in pool.workers():
            _signal_soon(pid, signal.SIGCONT, 0.5)
    if mode == "killed":
        for pid in pids:
            kill_soon(pid, 0.5, pool)
    if mode == "terminated":
        pool.killed.add(pids[0])
        _signal_soon(pids[0], signal.SIGTERM, 0.3)
    if mode in ("busy", "terminated"):
        _open_soon(trial, 1, 1.0)
    pool.end()
    if mode == "killed":
        trial.expect(
            {pool.states.get(index) for index in running} == {"failed"}, "not all reported as failed"
        )
    _expect_gone(pool)


def _signal_soon(pid: int, number: int, seconds: float) -> None:
    """Send a signal from another process."""
    if os.fork() == 0:
        time.sleep(seconds)
        try:
            os.kill(pid, number)
        finally:
            os._exit(0)


def _open_soon(trial: Trial, gate: int, seconds: float) -> None:
    """Open a gate from another process."""
    if os.fork() == 0:
        time.sleep(seconds)
        trial.board.open(gate)
        os._exit(0)


def _terminate(trial: Trial, parallelism: int, mode: str) -> None:
    _as_scheduler()
    pool = Pool(trial, parallelism)
    _prepare(pool, "busy" if mode == "stopped" else mode)
    if mode == "stopped":
        for pid in pool.workers():
            os.kill(pid, signal.SIGSTOP)
    pool.call("terminate", limit=GONE_WITHIN)
    pool.abandon()
    _expect_gone(pool)
    # It may be called after that, by a finally clause.
    pool.call("end", limit=GONE_WITHIN)
