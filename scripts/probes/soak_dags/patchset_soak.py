# SPDX-License-Identifier: Apache-2.0
"""
The Dag of ``bench soak``: a group of mapped tasks, tasks that are retried, that fail for good, that defer.

Each task has a file in the directory ``PATCHSET_SOAK_RECORDS``, with a line for each start and end of its
code: event, try, phase and pid. A start while an earlier one still runs is ``beside``, any other ``started``.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, dag, get_current_context, task, task_group

RECORDS = Path(os.environ.get("PATCHSET_SOAK_RECORDS", "."))
# Enough for all that is killed: a task that has none left would be called lost.
RETRIES = {"retries": 20, "retry_delay": timedelta(seconds=1)}


@contextmanager
def recorded(context: dict, phase: str = "all"):
    ti = context["ti"]
    name = f"{ti.dag_id} {ti.run_id} {ti.task_id} {ti.map_index}"
    begun = set()
    with open(RECORDS / name.replace("/", "_"), "a+") as file:

        def record(event: str) -> None:
            # One write each, so that a task that is killed leaves no half of a line.
            os.write(file.fileno(), f"{event} {ti.try_number} {phase} {os.getpid()}\n".encode())

        file.seek(0)
        for event, _, _, pid in map(str.split, file):
            begun = begun | {pid} if event in ("started", "beside") else begun - {pid}
        record("beside" if any(map(runs, begun)) else "started")
        try:
            yield
        except BaseException:
            record("failed")
            raise
        record("done")


def runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Deferred(BaseOperator):
    def execute(self, context):
        with recorded(context, "deferred"):
            pass
        trigger = TimeDeltaTrigger(timedelta(seconds=random.choice((0, 1, 2))))
        self.defer(trigger=trigger, method_name="resume")

    def resume(self, context, event=None):
        with recorded(context, "resumed"):
            pass


@dag(schedule=None, catchup=False, is_paused_upon_creation=False, max_active_tasks=100_000)
def patchset_soak():
    @task_group
    def group(number: int):
        @task(**RETRIES)
        def work(number: int) -> int:
            with recorded(get_current_context()):
                time.sleep(random.uniform(0, 1))
                return number

        work(number)

    @task(**RETRIES)
    def retried(number: int) -> None:
        context = get_current_context()
        with recorded(context):
            if context["ti"].try_number == 1:
                raise RuntimeError("fails at its first try")

    @task(retries=1, retry_delay=timedelta(seconds=1))
    def fails(number: int) -> None:
        with recorded(get_current_context()):
            raise RuntimeError("always fails")

    group.expand(number=list(range(100)))
    retried.expand(number=list(range(20)))
    fails.expand(number=list(range(5)))
    for number in range(20):
        Deferred(task_id=f"deferred_{number}", **RETRIES)


patchset_soak()
