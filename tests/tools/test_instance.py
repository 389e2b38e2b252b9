# SPDX-License-Identifier: Apache-2.0
"""What an instance takes from this machine, and what it says when it cannot start."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from patchsetlib.measure.instance import Instance, free_ports
from patchsetlib.measure.workload import Workload, describe_python
from patchsetlib.shell.errors import PatchsetError


def test_free_ports_are_different_and_free_on_every_address():
    ports = free_ports(5)

    assert len(set(ports)) == 5
    for port in ports:
        with socket.socket() as server:
            server.bind(("", port))


def test_the_users_environment_does_not_get_in(tmp_path: Path, monkeypatch):
    for name in ("AIRFLOW__CORE__EXECUTOR", "AIRFLOW__SCHEDULER__NUM_RUNS", "HTTP_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("VIRTUAL_ENV", "/nowhere")

    env = Instance(Path(sys.executable), tmp_path, dags=tmp_path).env

    assert env["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert env["PATH"] == os.environ["PATH"]
    wrong = {"AIRFLOW__SCHEDULER__NUM_RUNS", "HTTP_PROXY", "https_proxy", "PYTHONPATH", "VIRTUAL_ENV"}
    assert not wrong & set(env)


def test_configuration_can_be_overridden(tmp_path: Path):
    instance = Instance(
        Path(sys.executable),
        tmp_path,
        dags=tmp_path,
        config={"core.parallelism": "5", "core.load_examples": "True"},
        database="postgresql+psycopg2://somewhere/airflow",
        env={"PATCHSET_TASKS": "7"},
    )

    assert instance.env["AIRFLOW__CORE__PARALLELISM"] == "5"
    assert instance.env["AIRFLOW__CORE__LOAD_EXAMPLES"] == "True"
    assert instance.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == "postgresql+psycopg2://somewhere/airflow"
    assert instance.env["PATCHSET_TASKS"] == "7"


def test_no_two_instances_share_ports_or_secrets(tmp_path: Path):
    one, two = (Instance(Path(sys.executable), tmp_path / n, dags=tmp_path).env for n in ("1", "2"))

    for option in ("API__PORT", "LOGGING__WORKER_LOG_SERVER_PORT", "API_AUTH__JWT_SECRET"):
        assert one[f"AIRFLOW__{option}"] != two[f"AIRFLOW__{option}"]


def test_home_in_use_is_left_alone(tmp_path: Path):
    (tmp_path / "precious").write_text("x")

    with (
        pytest.raises(PatchsetError, match="is not empty"),
        Instance(Path(sys.executable), tmp_path, dags=tmp_path),
    ):
        pass

    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("name", ["100%", "$HOME", "why?"])
def test_path_that_airflow_cannot_have_is_said(tmp_path: Path, name: str):
    with pytest.raises(PatchsetError, match="in the path; use another directory"):
        Instance(Path(sys.executable), tmp_path / name, dags=tmp_path).prepare()

    assert not (tmp_path / name).exists()


def test_interpreter_without_airflow_is_said(tmp_path: Path, capfd):
    with (
        pytest.raises(PatchsetError, match="stock: airflow db migrate failed"),
        Instance(Path(sys.executable), tmp_path / "home", dags=tmp_path, name="stock"),
    ):
        pass

    assert "No module named airflow" in capfd.readouterr().err
    with pytest.raises(PatchsetError, match="has no apache-airflow-core"):
        describe_python(Path(sys.executable))


def test_interpreter_that_does_not_run_is_said(tmp_path: Path):
    with pytest.raises(PatchsetError, match="cannot run"):
        describe_python(tmp_path / "python")


def test_every_slot_can_be_filled():
    config = Workload(parallelism=40).config

    assert config["core.parallelism"] == config["core.max_active_tasks_per_dag"] == "40"
    assert int(config["scheduler.max_tis_per_query"]) >= 40
