# SPDX-License-Identifier: Apache-2.0
# ruff: noqa
from airflow.jobs.job import Job, run_job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from mine import QuietExecutor


class TestAdjacent:
    def test_name(self):
        executor = QuietExecutor()
        job = Job()
        self.runner = SchedulerJobRunner(job, executors=[executor])
        assert executor.idle

    def test_call(self):
        job = Job()
        runner = SchedulerJobRunner(job=job, num_runs=1, executors=[QuietExecutor(slots=3)])
        run_job(job=job, execute_callable=runner._execute)

    def test_attribute(self):
        job = Job()
        _ = SchedulerJobRunner(job=job, executors=[self.executor])

    def test_other_arguments(self):
        first = Job(job_type=SchedulerJobRunner.job_type)
        SchedulerJobRunner(first, num_runs=2, executors=[self.executor])
        second = Job(heartrate=7)
        SchedulerJobRunner(second, 1, scheduler_idle_sleep_time=0.5, executors=[self.executor])
        third = Job(heartrate=9)
        SchedulerJobRunner(third, executors=[self.executor])

    def test_none(self):
        job = Job()
        self.runner = SchedulerJobRunner(job)
        return Job(heartrate=4)

    def test_same_name_twice(self):
        executor = QuietExecutor()
        job = Job()
        self.runner = SchedulerJobRunner(job=job, executors=[executor])
        self.runner.step()

        executor = QuietExecutor(slots=0)
        job = Job()
        self.runner = SchedulerJobRunner(job=job, executors=[executor])

    def test_two_runners_share_one_executor(self):
        job = Job()
        first = SchedulerJobRunner(job, executors=[self.executor])
        return first, SchedulerJobRunner(job, num_runs=1, executors=[self.executor])
