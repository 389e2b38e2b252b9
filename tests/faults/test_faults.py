# SPDX-License-Identifier: Apache-2.0
"""
Every fault that LocalExecutor is to stand, on stock Airflow and on the patched one, there also with a fork
server where that makes a difference.

On stock each must fail where it is known to: a test that passes there shows nothing. Where stock has nothing
to fail with, the reason is given.
"""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.network

FAILS = "fails"
# It takes a kill of the one worker that holds the lock of the queue, and which one that is cannot be told.
BY_CHANCE = "fails by chance"

PICKLED = "what is raised can be pickled and unpickled, and the scheduler reads large results piece by piece"
RETURNED = "what a task returns is not sent to the scheduler"
ORDERLY = "nothing is killed and no pipe is full"
RENEWED = "logging and Python renew these locks in a child, and workers of 3.1.3 log by logging alone"

# Scenario: its cases, and what stock Airflow makes of each, or why it passes.
SCENARIOS = {
    "idle_killed": {
        "idle worker killed, each in turn": BY_CHANCE,
        "all idle workers killed at once": FAILS,
        "idle workers killed, then end()": "end() has nobody to wait for",
    },
    "busy_killed": {
        "killed while running, each in turn": FAILS,
        "all killed while running": FAILS,
        "killed while receiving": FAILS,
        "killed at a random moment of receiving": FAILS,
        "killed while reporting": FAILS,
        "killed at a random moment of reporting": FAILS,
        "all killed after reporting": FAILS,
    },
    "storm": {"workers killed at random moments": FAILS},
    "scheduler_killed": {
        "scheduler killed": FAILS,
        "scheduler killed, workers replaced before": FAILS,
        "scheduler killed, other children left": FAILS,
        "scheduler killed while it sends": FAILS,
        "scheduler killed, result unread": FAILS,
    },
    "overload": {
        "large workloads on few slots": FAILS,
        "slots while all are taken": FAILS,
        "slots while all are taken, large workloads": FAILS,
    },
    "results": {
        "raise plain": PICKLED,
        "raise huge": PICKLED,
        "raise large": PICKLED,
        "raise unpicklable": FAILS,
        "raise bad_reduce": FAILS,
        "raise endless": FAILS,
        "raise two_arguments": FAILS,
        "raise type_error_on_load": FAILS,
        "raise exit_on_load": FAILS,
        "raise interrupt_on_load": FAILS,
        "raise end_of_file_on_load": FAILS,
        "raise not_an_exception_on_load": PICKLED,
        "raise no_text": PICKLED,
        "raise local_class": FAILS,
        "raise system_exit": FAILS,
        "raise keyboard_interrupt": FAILS,
        "raise base_exception": FAILS,
        "raise end_of_file": PICKLED,
        "raise broken_pipe": PICKLED,
        "return unpicklable_value": RETURNED,
        "return huge_value": RETURNED,
        "return local_value": RETURNED,
        "exit code without a report": FAILS,
    },
    "fork_refused": {
        "fork refused (EAGAIN) after 0 of 4": FAILS,
        "fork refused (EAGAIN) after 2 of 4": FAILS,
        "fork refused (EAGAIN), workers killed": FAILS,
        "fork refused (ENOMEM) after 0 of 4": FAILS,
        "fork refused (ENOMEM) after 2 of 4": FAILS,
        "fork refused (ENOMEM), workers killed": FAILS,
        "limit on processes": FAILS,
    },
    "signals": {
        "SIGTERM to idle workers": FAILS,
        "SIGTERM to busy workers": FAILS,
        "SIGTERM twice to busy workers": FAILS,
        "SIGINT to idle workers": "workers ignore it",
        "SIGINT to busy workers": "workers ignore it",
        "signal to the group at rest": "workers ignore both, and end() has only idle ones to wait for",
        "signal to the group under load": "workers ignore both, and end() waits for their tasks",
        "signal twice to the group under load": FAILS,
        "signal twice to the group at rest": "end() is done before the second signal",
        "signal to the group, tasks deaf to SIGTERM": FAILS,
    },
    "endings": {
        "end() while idle": ORDERLY,
        "end() under load": ORDERLY,
        "end() with full pipes": FAILS,
        "end() while a large workload is sent": FAILS,
        "end() and workers are killed meanwhile": FAILS,
        "end() and a worker is terminated meanwhile": "workers ignore SIGTERM",
        "terminate(), workers idle": FAILS,
        "terminate(), workers busy": FAILS,
        "terminate(), workers deaf": FAILS,
        "terminate(), workers stopped": FAILS,
        "terminate(), workers full": FAILS,
        "terminate(), workers sending": FAILS,
    },
    "leaks": {
        "start and end one executor": ORDERLY,
        "start and end new executors": ORDERLY,
        "start and end, workers killed": BY_CHANCE,
        "terminate": "end() comes after it and does the work",
        "descriptors of replaced workers": BY_CHANCE,
    },
    "locks": {
        "thread holds a lock of logging at the fork": RENEWED,
        "thread holds a lock of structlog at the fork": RENEWED,
        "thread holds a lock of the resource tracker at the fork": "workers of 3.1.3 do not need it",
        "thread writes to stderr at the fork": RENEWED,
        "tasks wait for a lock held at the fork": FAILS,
    },
}
NEEDS_ROOT = "limit on processes"
# Where it matters to the pool that its workers are children of a fork server. What refuses a fork or holds a
# lock is in this process, and not in that.
WITH_FORK_SERVER = ("idle_killed", "scheduler_killed", "storm")


def variants(scenario):
    return ["stock", "patched", *(["forkserver"] if scenario in WITH_FORK_SERVER else [])]


def _parameters():
    for scenario, cases in SCENARIOS.items():
        for case, on_stock in cases.items():
            marks = []
            if case == NEEDS_ROOT and os.geteuid() != 0:
                marks.append(pytest.mark.skip(reason="only root can become a user with no processes"))
            for variant in variants(scenario):
                expected = []
                if variant == "stock" and on_stock in (FAILS, BY_CHANCE):
                    strict = on_stock == FAILS
                    expected = [pytest.mark.xfail(strict=strict, raises=AssertionError, reason="stock")]
                yield pytest.param(variant, scenario, case, marks=marks + expected, id=f"{variant}-{case}")


@pytest.mark.parametrize(("variant", "scenario", "case"), list(_parameters()))
def test_fault(runs, variant, scenario, case):
    (result,) = [found for found in runs.result(variant, scenario)["cases"] if found["case"] == case]
    if result["broken"]:
        # Not an assertion: it would look like the failure that is expected of stock.
        raise RuntimeError(f"the driver is broken: {result['broken']}")
    assert result["problems"] == []
    assert result["trials"] >= 1
    assert result["lost"] == result["reported_twice"] == result["left"] == 0


@pytest.mark.parametrize(
    ("variant", "scenario"), [(variant, scenario) for scenario in SCENARIOS for variant in variants(scenario)]
)
def test_all_cases_are_looked_at(runs, variant, scenario):
    cases = {case["case"] for case in runs.result(variant, scenario)["cases"]}
    assert cases | {NEEDS_ROOT} == {*SCENARIOS[scenario]} | {NEEDS_ROOT}


def test_enough_of_it(runs):
    """The size of the storm and of the load are part of what is promised."""
    for variant in ("patched", "forkserver"):
        (storm,) = runs.result(variant, "storm")["cases"]
        assert storm["trials"] >= 3
        assert storm["kills"] >= 100 * storm["trials"]
        assert storm["offered"] >= 2000 * storm["trials"]
    load = runs.result("patched", "overload")["cases"][0]
    assert load["offered"] >= 5000
    assert load["longest_held_up_ms"] <= 100
    cycles = runs.result("patched", "leaks")["cases"][0]
    assert cycles["offered"] >= 50
