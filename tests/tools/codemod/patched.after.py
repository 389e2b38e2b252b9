# SPDX-License-Identifier: Apache-2.0
# ruff: noqa
from unittest import mock
from unittest.mock import ANY, patch

import pytest

from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner


@pytest.fixture
def executors(first, second):
    with mock.patch("airflow.executors.executor_loader.ExecutorLoader.init_executors") as executors_mock:
        executors_mock.return_value = [first, second]
        yield [first, second]


@pytest.fixture
def executor(first):
    with patch("airflow.executors.executor_loader.ExecutorLoader.init_executors") as executor_mock:
        executor_mock.return_value = [first]
        yield first


@patch("airflow.executors.executor_loader.ExecutorLoader.init_executors")
def test_decorator(executors_mock, first):
    executors_mock.return_value = [first]
    runner = SchedulerJobRunner(Job())
    assert runner.executor is first


@mock.patch("airflow.executors.executor_loader.ExecutorLoader.init_executors", return_value=[ANY])
def test_object(executors_mock):
    SchedulerJobRunner(Job())


def test_given(first):
    with mock.patch("airflow.executors.executor_loader.ExecutorLoader.init_executors", return_value=[first]):
        return SchedulerJobRunner(Job())


def test_given_by_a_mock(first):
    with patch("airflow.executors.executor_loader.ExecutorLoader.init_executors", return_value=[first]):
        return SchedulerJobRunner(Job())


def test_hidden(executors, other):
    job = Job()
    runner = SchedulerJobRunner(job)
    assert runner.executor is executors[0]


def test_from_fixture(executors):
    job = Job()
    return SchedulerJobRunner(job, executors=[executors[1]])


def test_mocker(mocker, first):
    mocker.patch("airflow.executors.executor_loader.ExecutorLoader.init_executors", return_value=[first])
    SchedulerJobRunner(Job())


def test_monkeypatch(monkeypatch, first):
    monkeypatch.setattr("airflow.executors.executor_loader.ExecutorLoader.init_executors", lambda: [first])
    monkeypatch.setattr("airflow.executors.executor_loader.ExecutorLoader.init_executors", lambda: [first])
    SchedulerJobRunner(Job())


def test_monkeypatch_one(monkeypatch, first):
    monkeypatch.setattr("airflow.executors.executor_loader.ExecutorLoader.init_executors", lambda: [first])
    SchedulerJobRunner(Job())


@patch("airflow.jobs.scheduler_job_runner.ExecutorLoader.init_executors")
def test_loader(init_executors, first):
    init_executors.return_value = [first]
    SchedulerJobRunner(Job())
