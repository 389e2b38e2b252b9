# SPDX-License-Identifier: Apache-2.0
"""Workers that are killed or stopped: while idle, running, receiving, reporting."""

from __future__ import annotations

import os
import random
import signal
import time

from inside import system
from inside.pool import Pool, is_worker
from inside.registry import scenario

LARGE = 4_000_000
"""Bytes of a workload that no pipe takes in one piece."""


@scenario()
def idle_workers_killed(pool: Pool) -> None:
    pool.fill()
    pool.kill(pool.workers())
    pool.settle(pool.queue(2 * pool.parallelism, "sleep", "0.01"))
    pool.goes_on()


@scenario()
def idle_workers_killed_before_end(pool: Pool) -> None:
    pool.fill()
    pool.kill(pool.workers())
    pool.end()


@scenario()
def busy_workers_killed(pool: Pool) -> None:
    """The failure of the dead is reported while the others run on."""
    pool.fill()
    running = pool.busy("wait", 1)
    killed = running[: pool.parallelism // 2]
    pool.kill(map(pool.worker_of, killed))
    pool.settle(killed, "failed")
    pool.board.open(1)
    pool.settle(set(running) - set(killed), "success")
    pool.goes_on()


@scenario()
def killed_while_receiving(pool: Pool) -> None:
    pool.fill()
    stopped = pool.workers()
    # A worker that is stopped stays in the middle of what is written to it.
    for pid in stopped:
        system.kill(pid, signal.SIGSTOP)
    index = pool.queue(1, "nothing", size=LARGE)
    pool.beat()
    pool.beat()
    pool.kill(stopped)
    pool.settle(index)
    pool.goes_on()


@scenario()
def killed_while_reporting(pool: Pool) -> None:
    pool.fill()
    running = pool.busy("raise_at", "1 huge")
    pool.board.open(1)

    def writing() -> list[int]:
        return [pid for pid in pool.workers() if system.is_writing(pid)]

    # One waits for somebody to read its result, or they have found a way not to wait.
    pool.eventually(lambda: writing() or pool.is_idle(), "no task ends")
    pool.kill(writing()[:1] or [pool.worker_of(running[0])])
    pool.settle(running, "failed")
    pool.goes_on()


@scenario()
def killed_after_reporting(pool: Pool) -> None:
    """What workers have reported counts, even if it is read after their death."""
    pool.fill()
    running = pool.busy("wait", 1)
    pool.board.open(1)
    pool.eventually(pool.is_idle, "not all workers are idle")
    pool.kill(pool.workers())
    pool.settle(running, "success")
    pool.goes_on()


STORMS = {"short": (150, 15), "long": (6000, 400)}
"""Numbers of workloads and kills."""


@scenario("long", parallelism=8, nightly=True)
@scenario("short", parallelism=8, forkserver=True)
def storm(pool: Pool, length: str) -> None:
    """Workers are killed again and again, whatever they do."""
    workloads, kills = STORMS[length]
    chance, scheduler = random.Random(1), os.getpid()
    (read_commands, commands), (victims, write_victims) = os.pipe(), os.pipe()

    def kill_at_each_command() -> None:
        while os.read(read_commands, 1) == b"k":
            time.sleep(chance.expovariate(100))
            # There may be none at this moment.
            while not (workers := list(filter(is_worker, system.descendants(scheduler)))):
                time.sleep(0.001)
            victim = chance.choice(workers)
            system.kill(victim)
            os.write(write_victims, f"{victim}\n".encode())

    killer = pool.helper(kill_at_each_command)
    os.close(write_victims)
    # By how much is done, not by the clock: a slow machine must not have more kills for each workload.
    due = sorted(chance.sample(range(workloads), kills))

    def kill_when_due() -> None:
        while due and len(pool.reports) > due[0]:
            due.pop(0)
            os.write(commands, b"k")

    pool.after_beat = kill_when_due
    pool.start()
    while len(pool.queued) < workloads:
        # A few at a time, as a scheduler does. Most are short, so that many kills hit a worker between two.
        pool.queue(chance.randint(1, 16), "sleep", f"{chance.expovariate(100):.4f}")
        pool.settle(pool.queued[:-32])
    pool.settle()
    os.write(commands, b"q")
    # It may wait for a worker to kill, which takes beats to be replaced.
    pool.until(lambda: os.waitpid(killer, os.WNOHANG)[0], "there is no worker to kill")
    with open(victims) as file:
        pool.killed.update(map(int, file))
    pool.expect(not due and len(pool.killed) > kills / 2, f"only {len(pool.killed)} kills")
    pool.goes_on()


@scenario()
def task_of_killed_worker_ends_before_its_failure_is_reported(pool: Pool) -> None:
    """Otherwise its next try runs beside it. It also holds what tells of the end of its worker."""
    pool.fill()
    running = pool.busy("child", 1)
    pool.until(lambda: all(pool.board.entry(index).child for index in running), "not all tasks start")
    pool.kill(map(pool.worker_of, running))
    pool.settle(running, "failed")
    alive = [index for index in running if system.is_alive(pool.board.entry(index).child)]
    pool.expect(not alive, f"{len(alive)} tasks still run when their failure is reported")
    pool.goes_on()


@scenario()
def worker_stopped(pool: Pool) -> None:
    """SIGSTOP, a frozen cgroup, a lock inherited at the fork: others do the work."""
    pool.fill()
    (index,) = pool.queue(1, "nothing")
    pool.settle([index])
    pool.until(pool.is_idle, "not all workers are idle")
    last = pool.worker_of(index)
    # Whatever the order in which workers are used, one of these comes first.
    stopped = [last, next(pid for pid in pool.workers() if pid != last)]
    pool.kill(stopped, signal.SIGSTOP)
    pool.settle(pool.queue(2 * pool.parallelism, "nothing"), "success")
    for pid in stopped:
        system.kill(pid, signal.SIGCONT)
    pool.goes_on()
