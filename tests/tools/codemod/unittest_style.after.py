# SPDX-License-Identifier: Apache-2.0
# ruff: noqa
import unittest

from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from mine import QuietExecutor


class TestInstance(unittest.TestCase):
    runner = None

    def setUp(self):
        self.job = Job()
        self.runner = SchedulerJobRunner(job=self.job, executors=[QuietExecutor()])

    def tearDown(self):
        self.runner.executor.end()
        self.runner = None

    def test_started(self):
        self.assertTrue(self.runner.executor.started)
        self.assertEqual(len(self.runner.executors), 1)


class TestClass:
    @classmethod
    def setup_class(cls):
        cls.executor = QuietExecutor()
        cls.job = Job()
        cls.runner = SchedulerJobRunner(cls.job, executors=[cls.executor])

    def test_started(self):
        assert self.runner.executors == [self.executor]
