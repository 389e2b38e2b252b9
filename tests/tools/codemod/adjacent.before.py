# SPDX-License-Identifier: Apache-2.0
# ruff: noqa
from airflow.jobs.job import Job, run_job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from mine import QuietExecutor


class TestAdjacent:
    def test_name(self):
        executor = QuietExecutor()
        job = Job(executor=executor)
        self.runner = SchedulerJobRunner(job)
        assert executor.idle

    def test_call(self):
        job = Job(executor=QuietExecutor(slots=3))
        runner = SchedulerJobRunner(job=job, num_runs=1)
        run_job(job=job, execute_callable=runner._execute)

    def test_attribute(self):
        job = Job(executor=self.executor)
        _ = SchedulerJobRunner(job=job)

    def test_other_arguments(self):
        first = Job(job_type=SchedulerJobRunner.job_type, executor=self.executor)
        SchedulerJobRunner(first, num_runs=2)
        second = Job(executor=self.executor, heartrate=7)
        SchedulerJobRunner(second, 1, scheduler_idle_sleep_time=0.5)
        third = Job(self.executor, 9)
        SchedulerJobRunner(third)

    def test_none(self):
        job = Job(executor=None)
        self.runner = SchedulerJobRunner(job)
        return Job(None, heartrate=4)

    def test_same_name_twice(self):
        executor = QuietExecutor()
        job = Job(executor=executor)
        self.runner = SchedulerJobRunner(job=job)
        self.runner.step()

        executor = QuietExecutor(slots=0)
        job = Job(executor=executor)
        self.runner = SchedulerJobRunner(job=job)

    def test_two_runners_share_one_executor(self):
        job = Job(executor=self.executor)
        first = SchedulerJobRunner(job)
        return first, SchedulerJobRunner(job, num_runs=1)
