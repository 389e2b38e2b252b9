# SPDX-License-Identifier: Apache-2.0
# ruff: noqa
import concurrent.futures
from concurrent.futures import ThreadPoolExecutor

import pytest
from airflow.executors.local_executor import LocalExecutor
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.taskinstance import TaskInstance
from airflow.providers.cncf.kubernetes.operators.job import KubernetesJobOperator
from apscheduler.job import Job as CronJob


class Batch:
    def __init__(self, executor, job):
        self.executor = executor
        self.executors = [executor]
        self.order = job

    def run(self):
        self.executors.append(self.executor)
        return self.order.executor


def test_own_class_with_this_name():
    class Job:
        def __init__(self, executor):
            self.executor = executor

    job = Job(executor=LocalExecutor())
    return job.executor


def test_executors_of_others(ti: TaskInstance, task):
    assert ti.executor == task.executor
    ti.executor = "LocalExecutor"
    with ThreadPoolExecutor(max_workers=2) as executor:
        executor.submit(print)
    return concurrent.futures.ThreadPoolExecutor, Batch(executor, None).executor


def test_jobs_of_others():
    cron = CronJob(None, executor="default")
    operator = KubernetesJobOperator(task_id="a", executor=LocalExecutor())
    return cron.executor, operator.executor


def test_old_names_fail():
    with pytest.raises(TypeError, match="executor"):
        Job(executor=LocalExecutor())


def test_new_names():
    job = Job(heartrate=10)
    runner = SchedulerJobRunner(job, executors=[LocalExecutor()])
    assert runner.executor is runner.executors[0]
    return Job(10), job.executor_class
