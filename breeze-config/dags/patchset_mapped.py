# SPDX-License-Identifier: Apache-2.0
"""
One Dag of mapped tasks, the workload of ``demo`` and ``bench``.

Its size comes from the environment, as the Dag file is parsed by the dag-processor and by each task:
``PATCHSET_TASKS`` (number of tasks), ``PATCHSET_TASK_SECONDS`` (seconds that each task waits) and
``PATCHSET_TASK_CONCURRENCY`` (tasks of the Dag that run at a time; 0 for as many as there are slots). With
``PATCHSET_TASK_COLLECT=1`` each task runs a full garbage collection, as one that imports much does. If
``PATCHSET_TASK_RECORDS`` names a file, each tenth task appends to it what its process has used until the
code of the task runs: CPU seconds and private memory in kB.
"""

from __future__ import annotations

import gc
import os
import time

from airflow.sdk import dag, task

TASKS = int(os.environ.get("PATCHSET_TASKS", "96"))
SECONDS = float(os.environ.get("PATCHSET_TASK_SECONDS", "2"))
CONCURRENCY = int(os.environ.get("PATCHSET_TASK_CONCURRENCY", "0"))
COLLECT = os.environ.get("PATCHSET_TASK_COLLECT", "0") == "1"
RECORDS = os.environ.get("PATCHSET_TASK_RECORDS")


def record() -> None:
    cpu = time.process_time()
    with open("/proc/self/smaps_rollup") as memory:
        private = sum(int(line.split()[1]) for line in memory if line.startswith("Private_"))
    with open(RECORDS, "a") as records:
        records.write(f"{cpu} {private}\n")


@dag(
    dag_id="patchset_mapped",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    max_active_tasks=CONCURRENCY or 100_000,
)
def patchset_mapped():
    # Like most tasks of a real Dag: a little computing, then waiting for something outside.
    @task(retries=0)
    def work(number: int) -> int:
        if RECORDS and number % 10 == 0:
            record()
        if COLLECT:
            gc.collect()
        checksum = sum(i * number for i in range(20_000)) % 1_000_003
        time.sleep(SECONDS)
        return checksum

    work.expand(number=list(range(TASKS)))


patchset_mapped()
