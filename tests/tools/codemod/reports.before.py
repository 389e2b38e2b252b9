# SPDX-License-Identifier: Apache-2.0
# ruff: noqa
"""Nothing here can be moved for certain. What is said of a line is in its comment."""

import functools
from unittest import mock
from unittest.mock import PropertyMock, patch

import pytest

from airflow.jobs import job as jobs
from airflow.jobs.job import ExecutorLoader, Job  # says: has no ExecutorLoader any more
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from mine import QuietExecutor, QuietJobRunner, executor, hookimpl, other

EXECUTORS = "airflow.jobs.job.Job.executors"  # says: a string names Job.executors


@pytest.fixture
def returned():
    return Job(executor=executor)  # says: no SchedulerJobRunner is made for it here


def test_read_of_a_fixture(returned):
    return returned.executor  # says: returned.executor is read, and no SchedulerJobRunner


def test_another_runner():
    job = Job(executor=executor)  # says: no SchedulerJobRunner is made for it here
    return QuietJobRunner(job)


def test_two_ways(fast):
    if fast:
        job = Job(executor=executor)  # says: the runner may be for another Job
    else:
        job = Job(executor=other)  # says: the runner may be for another Job
    return SchedulerJobRunner(job)


def test_two_runners():
    job = Job(executor=QuietExecutor())  # says: more than one SchedulerJobRunner would make
    return SchedulerJobRunner(job), SchedulerJobRunner(job)


def test_loop():
    job = Job(executor=QuietExecutor())  # says: a loop would make anew
    for _ in range(3):
        SchedulerJobRunner(job)


def test_context_manager():
    job = Job(executor=QuietExecutor())  # says: in another context manager
    with mock.patch("mine.QuietExecutor"):
        return SchedulerJobRunner(job)


def test_name_bound_anew():
    executor = QuietExecutor()
    job = Job(executor=executor)  # says: stands for something else
    executor = QuietExecutor(slots=9)
    return SchedulerJobRunner(job), executor


def test_both_get_executors():
    job = Job(executor=executor)  # says: gets executors, too
    return SchedulerJobRunner(job, executors=[other])


def test_unknown_arguments(options):
    job = Job(executor=executor)  # says: by * or **
    return SchedulerJobRunner(job, **options)


def test_made_elsewhere():
    job = Job(executor=executor)  # says: made in another function

    def make():
        return SchedulerJobRunner(job)

    return make


def test_positional(rate):
    return Job(rate)  # says: the first argument of Job was the executor


def test_starred(options):
    Job(*options)  # says: by * or **
    Job(**options)  # says: by * or **
    Job(**{"heartrate": 3})
    return Job(**{"executor": executor})  # says: by * or **


def test_partial():
    return functools.partial(Job, executor=executor)  # says: Job is passed on together with an executor


def test_mock():
    return mock.MagicMock(spec=Job, executors=[executor])  # says: Job is passed on together with an executor


class QuietJob(Job):
    pass


def test_derived():
    return QuietJob(executor=executor)  # says: a class derived from Job


def test_set():
    job = Job()
    job.executors = [executor]  # says: job.executors is set
    runner = SchedulerJobRunner(job)
    job.executors[0] = other  # says: is changed in place
    job.executors.clear()  # says: is changed in place
    del job.executors  # says: is changed in place
    return runner


def test_by_name(monkeypatch):
    job = Job()
    runner = SchedulerJobRunner(job)
    monkeypatch.setattr(job, "executors", [])  # says: setattr is given a Job
    return runner, getattr(job, "executor")  # noqa: B009 # says: getattr is given a Job


def test_two_runners_to_choose_from():
    job = Job()
    first, second = SchedulerJobRunner(job), SchedulerJobRunner(job)
    job.executor.start()  # says: none that is sure to be the right one
    return first, second


def test_too_early():
    job = Job()
    job.executor.start()  # says: no name for its SchedulerJobRunner
    return SchedulerJobRunner(job)


def test_class_attribute():
    return Job.executors  # says: an attribute of the class


def test_parameter(scheduler_job):
    return scheduler_job.executor  # says: it is not known whether that is a Job


@hookimpl
def on_starting(component):
    return component.executors  # says: a listener may be given the Job


def test_patched_too_late(first):
    runner = SchedulerJobRunner(Job())
    with patch("airflow.jobs.job.Job.executors", new_callable=PropertyMock):  # says: after the
        return runner


def test_loader():
    with mock.patch.object(jobs, "ExecutorLoader"):  # says: has no ExecutorLoader any more
        return jobs.ExecutorLoader  # says: has no ExecutorLoader any more


@patch("mine.other")
@patch("airflow.jobs.job.Job.executors", new_callable=PropertyMock)  # says: told what to return after
@patch("mine.executor", new=None)
def test_told_too_late(executors_mock, other_mock):
    runner = SchedulerJobRunner(Job())
    executors_mock.return_value = [executor]
    other_mock.return_value = None
    return runner


def test_told_too_late_by_mocker(mocker):
    m = mocker.patch("airflow.jobs.job.Job.executors", new_callable=PropertyMock)  # says: told what to return
    runner = SchedulerJobRunner(Job())
    m.return_value = [executor]
    return runner


@pytest.fixture
def loader():
    with patch("airflow.executors.executor_loader.ExecutorLoader.init_executors") as mock_of_loader:
        yield mock_of_loader


def test_told_too_late_by_a_fixture(loader):
    loader.return_value = [executor]
    runner = SchedulerJobRunner(Job())
    loader.return_value = [other]  # says: is set after
    return runner


def test_asked():
    with patch("airflow.jobs.job.Job.executors", new_callable=PropertyMock) as m:  # says: more than
        m.return_value = [executor]
        SchedulerJobRunner(Job())
    m.assert_called_once()


@patch("airflow.jobs.job.Job.executors", new=[executor])  # says: a decorator does not pass on
def test_decorator():
    SchedulerJobRunner(Job())


def test_patched_twice():
    with (
        patch("airflow.jobs.scheduler_job_runner.ExecutorLoader.init_executors", return_value=[executor]),
        patch("airflow.jobs.job.Job.executor", PropertyMock(return_value=executor)),  # says: besides
    ):
        SchedulerJobRunner(Job())


def test_patched_by_what():
    with patch("airflow.jobs.job.Job.executors"):  # says: not a PropertyMock
        SchedulerJobRunner(Job())
    with patch.object(Job, "executors", new=executor):  # says: after the
        SchedulerJobRunner(Job())


def test_patched_by_a_name():
    with patch.object(Job, "executors", new=executor):  # says: not known what it gives
        SchedulerJobRunner(Job())


def test_monkeypatched(monkeypatch):
    monkeypatch.setattr(Job, "executors", [QuietExecutor()])  # says: made anew
    monkeypatch.setattr(Job, "executor", property(lambda job: job.id))  # says: asks the Job


def test_multiple():
    with patch.multiple(Job, executors=[executor]):  # says: Job is passed on together with an executor
        return ExecutorLoader
