# SPDX-License-Identifier: Apache-2.0
# ruff: noqa
# fmt: off
from unittest.mock import (
    MagicMock,
)

from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from mine import executor, patch


def test_one_per_line(self):
    # a quiet one
    job = Job(
        job_type = "SchedulerJob",  # as the runner
    )
    runner = SchedulerJobRunner(
        job = job,  # made above
        num_runs = 1,  # one is enough
        executors=[executor],
    )
    job = Job()
    runner = SchedulerJobRunner(
        job=job, executors=[MagicMock(
            slots=1,  # for one task
        )]
    )
    return runner, SchedulerJobRunner(
        Job()
        , num_runs=3, executors=[executor]
    )


def test_odd_blanks():
    job=Job( heartrate = 3 )
    runner=SchedulerJobRunner( job , num_runs = 1, executors=[executor] ); runner.executor . start()
    if runner: runner . executor.end()   # the end


def test_patch():
    with patch( 'airflow.executors.executor_loader.ExecutorLoader.init_executors' ) as m:  # all
        m.return_value = [executor]
        runner = SchedulerJobRunner(job=Job())
        return (
            runner
            .executor
        )
