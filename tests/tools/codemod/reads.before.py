# SPDX-License-Identifier: Apache-2.0
# ruff: noqa
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner


class TestReads:
    def test_executor(self):
        scheduler_job = Job()
        self.runner = SchedulerJobRunner(job=scheduler_job)
        scheduler_job.executor.callback_sink.send.assert_not_called()
        scheduler_job.executor.slots = 3
        sent = scheduler_job.executor.callback_sink.send.call_args[0][0]
        # What scheduler_job.executor has sent; not other_scheduler_job.executor
        self.runner.process([sent], executor=scheduler_job.executor)
        assert scheduler_job.executor is not None

    def test_executors(self):
        job = Job()
        runner = SchedulerJobRunner(job=job)
        for executor in job.executors:
            executor.start.assert_called_once()
        slots = sum(executor.slots for executor in job.executors)
        job.executors.append(slots)
        assert len(job.executors) == 2

    def test_by_the_runner(self):
        runner = SchedulerJobRunner(job=Job())
        runner.job.executor.start()
        self.runner = runner
        assert self.runner.job.executors == [runner.job.executor]

    def test_later(self):
        job = Job()
        runner = SchedulerJobRunner(job=job)

        def ended():
            return job.executor.end.called

        return ended, lambda: job.executors, runner

    def test_by_name_without_runner_yet(self, executor):
        job = Job(executor=executor)
        job.executor.start()
        assert job.executors == [executor]
        self.runner = SchedulerJobRunner(job=job)

    def test_set_before_the_runner_is_made(self):
        job = Job()
        # Enough for all.
        job.executor.slots = 70
        job.executor.parallelism = 100
        job.max_tis_per_query = 100
        self.runner = SchedulerJobRunner(job=job)
        self.runner.step()


def check(job: Job, runner: SchedulerJobRunner | None = None):
    runner = SchedulerJobRunner(job)
    assert job.executor.idle
    return runner.job.executor


def finish(runner: "SchedulerJobRunner"):
    runner.job.executor.end()
