# SPDX-License-Identifier: Apache-2.0
"""Results and exceptions that are hard to hand from a worker to the scheduler."""

from __future__ import annotations

from collections.abc import Iterable

from inside.exceptions import EXCEPTIONS, VALUES
from inside.pool import Pool
from inside.registry import scenario


@scenario(parallelism=2)
def task_raises(pool: Pool) -> None:
    """Some of these end the worker."""
    _settle(pool, "raise", EXCEPTIONS, "failed")


@scenario(parallelism=2)
def task_returns(pool: Pool) -> None:
    """What a task returns is of no interest to anybody: only that it has ended counts."""
    _settle(pool, "return", VALUES, "success")


def _settle(pool: Pool, action: str, kinds: Iterable[str], state: str) -> None:
    pool.start()
    pool.settle([index for kind in kinds for index in pool.queue(2, action, kind)], state)
    pool.goes_on()
