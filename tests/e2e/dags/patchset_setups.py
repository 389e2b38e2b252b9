# SPDX-License-Identifier: Apache-2.0
"""
The Dags of ``test_setups``: mapped tasks on the default executor, and on the one that a variable names.

In the directory ``PATCHSET_SETUPS``, each task makes a file when it starts, and fails if that exists, which
means that the task was run twice. If there is a file ``leave orphans``, it starts a process that loses its
parent. Then it waits for as long as there is a file ``hold <id of the Dag>``.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from airflow.sdk import dag, get_current_context, task

SHARED = Path(os.environ.get("PATCHSET_SETUPS", "."))
TASKS = int(os.environ.get("PATCHSET_SETUPS_TASKS", "4"))
EXECUTOR = os.environ.get("PATCHSET_SETUPS_EXECUTOR")


def make(dag_id: str, executor: str | None) -> None:
    @dag(dag_id=dag_id, schedule=None, catchup=False, is_paused_upon_creation=False, max_active_tasks=100_000)
    def tasks():
        @task(retries=0, executor=executor)
        def work(number: int) -> None:
            ti = get_current_context()["ti"]
            with open(SHARED / f"{ti.dag_id} {ti.run_id} {number}".replace("/", "_"), "x") as record:
                record.write(str(os.getpid()))
            print(f"This is number {number}.")
            if (SHARED / "leave orphans").exists():
                subprocess.run(["sh", "-c", "sleep 0.1 &"], check=True)
            while (SHARED / f"hold {dag_id}").exists():
                time.sleep(0.05)

        work.expand(number=list(range(TASKS)))

    tasks()


make("patchset_default", None)
if EXECUTOR:
    make("patchset_other", EXECUTOR)
