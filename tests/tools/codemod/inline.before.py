# SPDX-License-Identifier: Apache-2.0
# ruff: noqa
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from mine import QuietExecutor


def test_inline():
    runner = SchedulerJobRunner(job=Job(executor=QuietExecutor()))
    return runner


def make_runner(executor):
    return SchedulerJobRunner(job=Job(job_type=SchedulerJobRunner.job_type, executor=executor), num_runs=1)
