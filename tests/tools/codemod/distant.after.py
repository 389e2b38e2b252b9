# SPDX-License-Identifier: Apache-2.0
# ruff: noqa
from unittest import mock

from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from mine import QuietExecutor


def test_statements_between(session):
    job = Job(job_type=SchedulerJobRunner.job_type)
    job.heartbeat = mock.MagicMock()
    session.add(job)
    runner = SchedulerJobRunner(job, executors=[QuietExecutor(slots=1)])
    runner.step()


def test_in_a_context_manager():
    executor = QuietExecutor()
    job = Job()
    with mock.patch("mine.loader") as loader:
        loader.return_value = executor
        runner = SchedulerJobRunner(job=job, executors=[executor])
        runner.step()


def test_on_one_way_only(fast):
    executor = QuietExecutor()
    job = Job()
    if fast:
        runner = SchedulerJobRunner(job=job, num_runs=1, executors=[executor])
    else:
        runner = SchedulerJobRunner(job=job, num_runs=9, executors=[executor])
    assert runner.job is job
    runner.executor.start()


def test_in_a_loop(counts):
    for count in counts:
        job = Job()
        runner = SchedulerJobRunner(job=job, executors=[QuietExecutor(slots=count)])
        assert runner.executors[0].slots == count
        runner.step()


def test_by_another_name():
    made = Job()
    job = made
    runner = SchedulerJobRunner(job=job, executors=[QuietExecutor()])
    runner.executor.end()
    return runner
