# SPDX-License-Identifier: Apache-2.0
"""Workers that are killed at random moments, again and again."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from inside.pool import Pool
from inside.trial import Runner, Trial

KILLER = Path(__file__).with_name("killer.py")


def storm(
    run: Runner,
    workloads: int = 2000,
    parallelism: int = 8,
    kills: int = 120,
    delay: float = 0.01,
    seeds: tuple[int, ...] = (1, 2, 3),
    limit: float = 90.0,
) -> list[dict]:
    """
    Offer workloads while workers are killed.

    :param kills: number of SIGKILLs in each trial, spread over it
    :param delay: mean seconds between the moment that a kill is due and the kill
    """
    arguments = [(workloads, parallelism, kills, delay, seed) for seed in seeds]
    return [run.case("workers killed at random moments", _storm, arguments, limit=limit)]


def _storm(trial: Trial, workloads: int, parallelism: int, kills: int, delay: float, seed: int) -> None:
    chance = random.Random(seed)
    pool = Pool(trial, parallelism)
    pool.start()
    arguments = [sys.executable, "-I", str(KILLER), str(delay), str(seed)]
    killer = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    # By how much is done, not by the clock: a slow machine must not have more kills for each workload.
    due = sorted(chance.sample(range(workloads), kills))

    def kill_when_due() -> None:
        while due and len(pool.reports) > due[0]:
            due.pop(0)
            os.write(killer.stdin.fileno(), b"k")

    pool.after_beat = kill_when_due
    # A few at a time, as a scheduler does. Most tasks are short, so that many kills hit a worker between two.
    while len(pool.offered) < workloads:
        count = min(chance.randint(1, 4 * parallelism), workloads - len(pool.offered))
        for _ in range(count):
            pool.offer(1, "sleep", f"{chance.expovariate(1 / 0.01):.4f}")
        # Not more before most of these are done.
        pool.settle(pool.offered[: max(0, len(pool.offered) - 4 * parallelism)])
    pool.settle()
    # Closing it would not do: workers have it open as well.
    os.write(killer.stdin.fileno(), b"q")
    # It may wait for a worker to kill, which takes beats to be replaced.
    pool.until(lambda: killer.poll() is not None, "there is no worker to kill")
    said = killer.stdout.read()
    pool.killed.update(map(int, said.split()))
    trial.expect(len(said.split()) == kills, f"only {len(said.split())} kills")
    pool.until(pool.full, "the pool is not full again")
    pool.goes_on()
