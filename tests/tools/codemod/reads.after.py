# SPDX-License-Identifier: Apache-2.0
# ruff: noqa
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner


class TestReads:
    def test_executor(self):
        scheduler_job = Job()
        self.runner = SchedulerJobRunner(job=scheduler_job)
        self.runner.executor.callback_sink.send.assert_not_called()
        self.runner.executor.slots = 3
        sent = self.runner.executor.callback_sink.send.call_args[0][0]
        # What self.runner.executor has sent; not other_scheduler_job.executor
        self.runner.process([sent], executor=self.runner.executor)
        assert self.runner.executor is not None

    def test_executors(self):
        job = Job()
        runner = SchedulerJobRunner(job=job)
        for executor in runner.executors:
            executor.start.assert_called_once()
        slots = sum(executor.slots for executor in runner.executors)
        runner.executors.append(slots)
        assert len(runner.executors) == 2

    def test_by_the_runner(self):
        runner = SchedulerJobRunner(job=Job())
        runner.executor.start()
        self.runner = runner
        assert self.runner.executors == [runner.executor]

    def test_later(self):
        job = Job()
        runner = SchedulerJobRunner(job=job)

        def ended():
            return runner.executor.end.called

        return ended, lambda: runner.executors, runner

    def test_by_name_without_runner_yet(self, executor):
        job = Job()
        executor.start()
        assert [executor] == [executor]
        self.runner = SchedulerJobRunner(job=job, executors=[executor])

    def test_set_before_the_runner_is_made(self):
        job = Job()
        job.max_tis_per_query = 100
        self.runner = SchedulerJobRunner(job=job)
        # Enough for all.
        self.runner.executor.slots = 70
        self.runner.executor.parallelism = 100
        self.runner.step()


def check(job: Job, runner: SchedulerJobRunner | None = None):
    runner = SchedulerJobRunner(job)
    assert runner.executor.idle
    return runner.executor


def finish(runner: "SchedulerJobRunner"):
    runner.executor.end()
