# SPDX-License-Identifier: Apache-2.0
# ruff: noqa
import unittest

from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from mine import QuietExecutor


class TestInstance(unittest.TestCase):
    runner = None

    def setUp(self):
        self.job = Job(executor=QuietExecutor())
        self.runner = SchedulerJobRunner(job=self.job)

    def tearDown(self):
        self.job.executor.end()
        self.runner = None

    def test_started(self):
        self.assertTrue(self.job.executor.started)
        self.assertEqual(len(self.runner.job.executors), 1)


class TestClass:
    @classmethod
    def setup_class(cls):
        cls.executor = QuietExecutor()
        cls.job = Job(executor=cls.executor)
        cls.runner = SchedulerJobRunner(cls.job)

    def test_started(self):
        assert self.job.executors == [self.executor]
