# SPDX-License-Identifier: Apache-2.0
# ruff: noqa
from unittest import mock
from unittest.mock import ANY, PropertyMock, patch

import pytest

from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner


@pytest.fixture
def executors(first, second):
    with mock.patch("airflow.jobs.job.Job.executors", new_callable=PropertyMock) as executors_mock:
        executors_mock.return_value = [first, second]
        yield [first, second]


@pytest.fixture
def executor(first):
    with patch("airflow.jobs.job.Job.executor", new_callable=PropertyMock) as executor_mock:
        executor_mock.return_value = first
        yield first


@patch("airflow.jobs.job.Job.executors", new_callable=PropertyMock)
def test_decorator(executors_mock, first):
    executors_mock.return_value = [first]
    runner = SchedulerJobRunner(Job())
    assert runner.job.executor is first


@mock.patch.object(Job, "executors", new_callable=mock.PropertyMock, return_value=[ANY])
def test_object(executors_mock):
    SchedulerJobRunner(Job())


def test_given(first):
    with mock.patch("airflow.jobs.job.Job.executors", [first]):
        return SchedulerJobRunner(Job())


def test_given_by_a_mock(first):
    with patch.object(Job, "executor", new=PropertyMock(return_value=first)):
        return SchedulerJobRunner(Job())


def test_hidden(executors, other):
    job = Job(executor=other)
    runner = SchedulerJobRunner(job)
    assert runner.job.executor is executors[0]


def test_from_fixture(executors):
    job = Job(executor=executors[1])
    return SchedulerJobRunner(job)


def test_mocker(mocker, first):
    mocker.patch("airflow.jobs.job.Job.executors", new_callable=mock.PropertyMock, return_value=[first])
    SchedulerJobRunner(Job())


def test_monkeypatch(monkeypatch, first):
    monkeypatch.setattr(Job, "executors", [first])
    monkeypatch.setattr("airflow.jobs.job.Job.executors", property(lambda self: [first]))
    SchedulerJobRunner(Job())


def test_monkeypatch_one(monkeypatch, first):
    monkeypatch.setattr(Job, "executor", property(lambda self: first))
    SchedulerJobRunner(Job())


@patch("airflow.jobs.job.ExecutorLoader.init_executors")
def test_loader(init_executors, first):
    init_executors.return_value = [first]
    SchedulerJobRunner(Job())
