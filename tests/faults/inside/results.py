# SPDX-License-Identifier: Apache-2.0
"""Results and exceptions that are hard to hand from a worker to the scheduler."""

from __future__ import annotations

from inside.exceptions import EXCEPTIONS, VALUES
from inside.pool import Pool
from inside.registry import scenario


@scenario(*EXCEPTIONS, parallelism=2)
def task_raises(pool: Pool, kind: str) -> None:
    _report(pool, "raise", kind, "failed")


@scenario(*VALUES, parallelism=2)
def task_returns(pool: Pool, kind: str) -> None:
    """What a task returns is of no interest to anybody: only that it has ended counts."""
    _report(pool, "return", kind, "success")


@scenario(parallelism=2)
def worker_exits_in_its_task(pool: Pool) -> None:
    _report(pool, "exit", "7", "failed")


def _report(pool: Pool, action: str, argument: str, state: str) -> None:
    pool.start()
    pool.settle(pool.queue(2 * pool.parallelism, action, argument), state)
    pool.goes_on()
