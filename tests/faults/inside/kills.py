# SPDX-License-Identifier: Apache-2.0
"""Workers that are killed: while idle, running, receiving, reporting."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from inside.pool import Pool
from inside.trial import Runner, Trial

LARGE = 16_000_000
"""Bytes of a workload that no pipe takes in one piece."""


def idle_killed(run: Runner, parallelism: int = 4) -> list[dict]:
    """Kill each idle worker in turn, then all of them."""
    each = [(parallelism, [number]) for number in range(parallelism)]
    return [
        run.case("idle worker killed, each in turn", _kill_idle, each),
        run.case("all idle workers killed at once", _kill_idle, [(parallelism, range(parallelism))]),
        run.case("idle workers killed, then end()", _kill_idle_and_end, [(parallelism,)]),
    ]


def _kill_idle(trial: Trial, parallelism: int, numbers: list[int]) -> None:
    pool = Pool(trial, parallelism)
    pool.start()
    pool.fill()
    idle = pool.idle()
    for number in numbers:
        pool.kill(idle[number], signal.SIGKILL)
    pool.offer(2 * parallelism, "sleep", "0.01")
    pool.settle()
    pool.goes_on()


def _kill_idle_and_end(trial: Trial, parallelism: int) -> None:
    pool = Pool(trial, parallelism)
    pool.start()
    pool.fill()
    for pid in pool.idle():
        pool.kill(pid, signal.SIGKILL)
    pool.end()


def busy_killed(run: Runner, parallelism: int = 4, random_trials: int = 10) -> list[dict]:
    """Kill a worker that has a workload."""
    each = [(parallelism, [number]) for number in range(parallelism)]
    seeds = [(parallelism, seed) for seed in range(random_trials)]
    return [
        run.case("killed while running, each in turn", _kill_running, each),
        run.case("all killed while running", _kill_running, [(parallelism, range(parallelism))]),
        run.case("killed while receiving", _kill_receiving, [(parallelism,)] * 2),
        run.case("killed at a random moment of receiving", _kill_receiving_at_random, seeds),
        run.case("killed while reporting", _kill_reporting, [(parallelism,)] * 2),
        run.case("killed at a random moment of reporting", _kill_reporting_at_random, seeds),
        run.case("all killed after reporting", _kill_after_reporting, [(parallelism,)]),
    ]


def _kill_running(trial: Trial, parallelism: int, numbers: list[int]) -> None:
    pool = Pool(trial, parallelism)
    pool.start()
    pool.fill()
    running = pool.busy("wait", "1")
    killed = [running[number] for number in numbers]
    for index in killed:
        pool.kill(trial.board.entry(index).pid, signal.SIGKILL)
    # The report of the dead must not need an end of the living.
    pool.settle(killed)
    trial.expect(all(pool.states[index] == "failed" for index in killed), "reported as success")
    trial.board.open(1)
    others = [index for index in running if index not in killed]
    pool.settle(others)
    states = {pool.states[index] for index in others}
    trial.expect(states <= {"success"}, f"the others end as {sorted(states)}")
    pool.goes_on()


def _kill_receiving(trial: Trial, parallelism: int) -> None:
    pool = Pool(trial, parallelism)
    pool.start()
    pool.fill()
    stopped = pool.idle()
    # A worker that is stopped stays in the middle of what is written to it.
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    (index,) = pool.offer(1, "nothing", token="x" * LARGE)
    for _ in range(20):
        pool.beat()
    for pid in stopped:
        pool.kill(pid, signal.SIGKILL)
    pool.settle([index])
    pool.goes_on()


def _kill_receiving_at_random(trial: Trial, parallelism: int, seed: int) -> None:
    chance = random.Random(seed)
    pool = Pool(trial, parallelism)
    pool.start()
    pool.fill()
    for _ in range(5):
        victim = chance.choice(pool.idle())
        indices = pool.offer(parallelism, "nothing", token="x" * (LARGE // 4))
        # Forked, so that it happens while this process is in the executor's hands.
        kill_soon(victim, chance.uniform(0, 0.05), pool)
        pool.beat()
        pool.settle(indices)
        pool.until(pool.all_idle, "not all workers are idle")
    pool.goes_on()


def kill_soon(pid: int, seconds: float, pool: Pool) -> None:
    """Kill a worker from another process, after ``seconds``."""
    pool.killed.add(pid)
    if os.fork() == 0:
        time.sleep(seconds)
        try:
            os.kill(pid, signal.SIGKILL)
        finally:
            os._exit(0)


def is_writing(pid: int) -> bool:
    """Return whether a process waits for room in a pipe."""
    return "pipe_write" in Path(f"/proc/{pid}/wchan").read_text()


def _kill_reporting(trial: Trial, parallelism: int) -> None:
    pool = Pool(trial, parallelism)
    pool.start()
    pool.fill()
    running = pool.busy("then_raise", "1 huge")
    victim = trial.board.entry(running[0]).pid
    trial.board.open(1)
    # It waits for somebody to read its result, or has found a way not to wait.
    deadline = time.monotonic() + 1
    trial.eventually(lambda: is_writing(victim) or time.monotonic() > deadline, "")
    pool.kill(victim, signal.SIGKILL)
    pool.settle()
    states = {pool.states[index] for index in running}
    trial.expect(states == {"failed"}, f"tasks that raise end as {sorted(states)}")
    pool.goes_on()


def _kill_reporting_at_random(trial: Trial, parallelism: int, seed: int) -> None:
    chance = random.Random(seed)
    pool = Pool(trial, parallelism)
    pool.start()
    pool.fill()
    for number in range(5):
        kind = chance.choice(["wait", "then_raise"])
        gate = 10 + number
        argument = str(gate) if kind == "wait" else f"{gate} {chance.choice(['plain', 'large'])}"
        running = pool.busy(kind, argument)
        victim = running[-1]
        trial.board.open(gate)
        while not trial.board.entry(victim).finishes:
            pass  # Without a pause: the moment counts. The limit of the trial is there if it never comes.
        time.sleep(chance.uniform(0, 0.002))
        pool.kill(trial.board.entry(victim).pid, signal.SIGKILL)
        pool.settle(running)
    pool.goes_on()


def _kill_after_reporting(trial: Trial, parallelism: int) -> None:
    """Kill workers whose reports have not been read yet: what they have told counts."""
    pool = Pool(trial, parallelism)
    pool.start()
    pool.fill()
    running = pool.busy("wait", "1")
    trial.board.open(1)
    trial.eventually(pool.all_idle, "not all workers are idle")
    for pid in pool.idle():
        pool.kill(pid, signal.SIGKILL)
    pool.settle(running)
    states = {pool.states[index] for index in running}
    trial.expect(states == {"success"}, f"reported as {sorted(states)}")
    pool.goes_on()
