# SPDX-License-Identifier: Apache-2.0
"""Workers that are killed at random moments, again and again."""

from __future__ import annotations

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
    kills: int = 100,
    interval: float = 0.05,
    seeds: tuple[int, ...] = (1, 2, 3),
    limit: float = 90.0,
) -> list[dict]:
    """
    Offer workloads while workers are killed.

    :param kills: the least number of SIGKILLs in each trial
    :param interval: mean seconds between two of them
    """
    arguments = [(workloads, parallelism, kills, interval, seed) for seed in seeds]
    return [run.case("workers killed at random moments", _storm, arguments, limit=limit, stop_after=1)]


def _storm(trial: Trial, workloads: int, parallelism: int, kills: int, interval: float, seed: int) -> None:
    chance = random.Random(seed)
    pool = Pool(trial, parallelism)
    pool.start()
    arguments = [sys.executable, "-I", str(KILLER), str(interval), str(seed)]
    killer = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    # A few at a time, as a scheduler does. Most tasks are short, so that many kills hit a worker between two.
    while len(pool.offered) < workloads:
        count = min(chance.randint(1, 4 * parallelism), workloads - len(pool.offered))
        for _ in range(count):
            pool.offer(1, "sleep", f"{chance.expovariate(1 / 0.01):.4f}")
        waiting = len(pool.offered) - 4 * parallelism
        # Not before most of what was offered is done.
        pool.settle(pool.offered[: max(0, waiting)])
    pool.settle()
    said, _ = killer.communicate()
    pool.killed.update(map(int, said.split()))
    trial.result["kills"] = len(said.split())
    trial.expect(len(said.split()) >= kills, f"only {len(said.split())} kills")
    pool.until(pool.full, "the pool is not full again")
    pool.goes_on()
