# SPDX-License-Identifier: Apache-2.0
# ruff: noqa
# fmt: off
from unittest.mock import (
    MagicMock,
    PropertyMock,
)

from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from mine import executor, patch


def test_one_per_line(self):
    job = Job(
        job_type = "SchedulerJob",  # as the runner
        executor = executor,  # a quiet one
    )
    runner = SchedulerJobRunner(
        job = job,  # made above
        num_runs = 1,  # one is enough
    )
    job = Job(
        executor=MagicMock(
            slots=1,  # for one task
        ),
    )
    runner = SchedulerJobRunner(
        job=job
    )
    return runner, SchedulerJobRunner(
        Job( executor=executor )
        , num_runs=3
    )


def test_odd_blanks():
    job=Job( executor = executor, heartrate = 3 )
    runner=SchedulerJobRunner( job , num_runs = 1 ); job.executor . start()
    if runner: job . executor.end()   # the end


def test_patch():
    with patch( 'airflow.jobs.job.Job.executors', new_callable=PropertyMock ) as m:  # all
        m.return_value = [executor]
        runner = SchedulerJobRunner(job=Job())
        return (
            runner
            .job
            .executor
        )
