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
        self.executor.end()
        return len(self.executors)


def test_alias():
    job = AirflowJob()
    return Runner(job, executors=[executor])


def test_module():
    job = airflow.jobs.job.Job()
    return scheduling.SchedulerJobRunner(job, executors=[executor])


def test_module_alias():
    job = jobs.Job()
    return scheduling.SchedulerJobRunner(job, executors=[executor])


def test_local_import():
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    job: Job = Job()
    return SchedulerJobRunner(job, executors=[executor])


def test_subclass():
    job = AirflowJob()
    runner = QuietRunner(job, executors=[executor])
    assert runner.executor is executor
    return runner


def test_from_a_module_that_imports_it():
    from airflow.cli.commands.scheduler_command import Job, SchedulerJobRunner

    return SchedulerJobRunner(Job(), executors=[executor])
