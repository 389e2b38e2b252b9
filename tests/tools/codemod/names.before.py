# SPDX-License-Identifier: Apache-2.0
# ruff: noqa
import airflow.jobs.job
import airflow.jobs.scheduler_job_runner as scheduling
from airflow.jobs import job as jobs
from airflow.jobs.job import Job as AirflowJob
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner as Runner
from mine import executor


class QuietRunner(Runner):
    """A runner that says less."""

    def end(self):
        self.job.executor.end()
        return len(self.job.executors)


def test_alias():
    job = AirflowJob(executor=executor)
    return Runner(job)


def test_module():
    job = airflow.jobs.job.Job(executor=executor)
    return scheduling.SchedulerJobRunner(job)


def test_module_alias():
    job = jobs.Job(executor=executor)
    return scheduling.SchedulerJobRunner(job)


def test_local_import():
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    job: Job = Job(executor=executor)
    return SchedulerJobRunner(job)


def test_subclass():
    job = AirflowJob(executor=executor)
    runner = QuietRunner(job)
    assert job.executor is executor
    return runner


def test_from_a_module_that_imports_it():
    from airflow.cli.commands.scheduler_command import Job, SchedulerJobRunner

    return SchedulerJobRunner(Job(executor=executor))
