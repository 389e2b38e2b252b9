# SPDX-License-Identifier: Apache-2.0
# ruff: noqa
from unittest import mock

from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from mine import QuietExecutor


def test_statements_between(session):
    job = Job(job_type=SchedulerJobRunner.job_type, executor=QuietExecutor(slots=1))
    job.heartbeat = mock.MagicMock()
    session.add(job)
    runner = SchedulerJobRunner(job)
    runner.step()


def test_in_a_context_manager():
    executor = QuietExecutor()
    job = Job(executor=executor)
    with mock.patch("mine.loader") as loader:
        loader.return_value = executor
        runner = SchedulerJobRunner(job=job)
        runner.step()


def test_on_one_way_only(fast):
    executor = QuietExecutor()
    job = Job(executor=executor)
    if fast:
        runner = SchedulerJobRunner(job=job, num_runs=1)
    else:
        runner = SchedulerJobRunner(job=job, num_runs=9)
    assert runner.job is job
    job.executor.start()


def test_in_a_loop(counts):
    for count in counts:
        job = Job(executor=QuietExecutor(slots=count))
        runner = SchedulerJobRunner(job=job)
        assert job.executors[0].slots == count
        runner.step()


def test_by_another_name():
    made = Job(executor=QuietExecutor())
    job = made
    runner = SchedulerJobRunner(job=job)
    made.executor.end()
    return runner
