# SPDX-License-Identifier: Apache-2.0
"""Results and exceptions that are hard to hand from a worker to the scheduler."""

from __future__ import annotations

from inside.exceptions import EXCEPTIONS, VALUES
from inside.pool import Pool
from inside.trial import Runner, Trial


def results(run: Runner, parallelism: int = 2) -> list[dict]:
    """Have tasks return and raise them."""
    cases = [("raise", kind, "failed") for kind in EXCEPTIONS]
    # What a task returns is an exit code to nobody's interest: only that it has ended counts.
    cases += [("return", kind, "success") for kind in VALUES]
    return [
        run.case(f"{action} {kind}", _report, [(parallelism, action, kind, state)], limit=30)
        for action, kind, state in cases
    ] + [run.case("exit code without a report", _report, [(parallelism, "exit", "7", "failed")])]


def _report(trial: Trial, parallelism: int, action: str, kind: str, state: str) -> None:
    pool = Pool(trial, parallelism)
    pool.start()
    indices = pool.offer(2 * parallelism, action, kind)
    pool.settle()
    states = {pool.states[index] for index in indices}
    trial.expect(states == {state}, f"reported as {sorted(states)}")
    pool.goes_on()
