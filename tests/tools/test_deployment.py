# SPDX-License-Identifier: Apache-2.0
"""What a deployment takes from this machine, what it says when it cannot start, and its workload's times."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from patchsetlib.measure import database, workload
from patchsetlib.measure.deployment import Deployment, free_ports
from patchsetlib.measure.subjects import Subject
from patchsetlib.measure.workload import Workload
from patchsetlib.shell.errors import PatchsetError, UsageError

PYTHON = Path(sys.executable)


def test_free_ports_are_different_and_free_on_every_address():
    ports = free_ports(5)

    assert len(set(ports)) == 5
    for port in ports:
        with socket.socket() as server:
            server.bind(("", port))


def test_environment_is_that_of_the_deployment_alone(tmp_path: Path, monkeypatch):
    wrong = ("AIRFLOW__SCHEDULER__NUM_RUNS", "HTTP_PROXY", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    for name in (*wrong, "AIRFLOW__CORE__EXECUTOR"):
        monkeypatch.setenv(name, "1")
    config = {"core.parallelism": "5"}

    env = Deployment(PYTHON, tmp_path, dags=tmp_path, config=config, env={"PATCHSET_TASKS": "7"}).env

    assert not set(wrong) & set(env)
    assert env["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert (env["AIRFLOW__CORE__PARALLELISM"], env["PATCHSET_TASKS"]) == ("5", "7")


def test_edge_worker_is_told_where_the_api_is(tmp_path: Path):
    with_worker = Deployment(PYTHON, tmp_path, dags=tmp_path, edge_slots=3)
    without = Deployment(PYTHON, tmp_path, dags=tmp_path)

    assert with_worker.config["edge.api_url"].startswith(with_worker.url)
    assert with_worker.config["core.executor"].endswith("EdgeExecutor")
    assert "3" in with_worker._commands()[with_worker.runs_tasks]
    assert list(without._commands()) == ["api-server", "dag-processor", without.runs_tasks]
    assert not any(name.startswith("edge.") for name in without.config)


def test_interpreter_without_airflow_is_said(tmp_path: Path):
    deployment = Deployment(PYTHON, tmp_path / "home", dags=tmp_path, name="stock")
    with pytest.raises(PatchsetError, match=r"stock: airflow db migrate failed: .*No module named airflow"):
        deployment.__enter__()


def test_component_that_has_ended_is_said(tmp_path: Path):
    package = tmp_path / "airflow"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import sys; sys.exit('no ' + sys.argv[1] if sys.argv[1] != 'db' else 0)"
    )
    env = {"PYTHONPATH": str(tmp_path)}
    with (
        pytest.raises(PatchsetError, match=r"stock: the api-server ended by itself: no api-server"),
        Deployment(PYTHON, tmp_path / "home", dags=tmp_path, name="stock", env=env) as deployment,
    ):
        deployment.wait_for("end", lambda: None, timeout=300)


def test_every_slot_can_be_filled():
    config = Workload(parallelism=40).config

    assert config["core.parallelism"] == config["core.max_active_tasks_per_dag"] == "40"
    assert int(config["scheduler.max_tis_per_query"]) >= 40


def test_reports_are_read_from_the_scheduler_s_log(tmp_path: Path):
    log = tmp_path / "scheduler.log"
    end = "run_end_date=2026-11-26 20:10:49.000000+00:00, run_duration=5.4"
    log.write_text(
        f"2026-11-26T20:10:49.250000Z [info     ] TaskInstance Finished: dag_id=x, {end}, state=success\n"
        f"[2026-11-26T20:10:54.000+00:00] {{x.py:1}} INFO - TaskInstance Finished: dag_id=x, {end}, y=1\n"
        "2026-11-26T20:10:49.250000Z [info] TaskInstance Finished: run_end_date=None, run_duration=None\n"
        "something else\n"
    )

    assert workload.reports(log) == [0.25, 5.0]


def test_kind_of_database():
    kinds = {None: "sqlite", "postgresql+psycopg2://": "postgresql", "mysql://u:p@h:1/x?y=1": "mysql"}
    assert {url: database.kind(url) for url in kinds} == kinds
    for bad in ("postgresql", "sqlite:////tmp/x.db", "://h/x"):
        with pytest.raises(UsageError, match="not the URL of a server"):
            database.kind(bad)


def test_run_has_a_database_of_its_own_on_the_server(tmp_path: Path, monkeypatch):
    statements = []
    monkeypatch.setattr(database, "_execute", lambda subject, url, statement: statements.append(statement))
    subject = Subject("stock", PYTHON, {"airflow": "3.1.3"})

    with database.database("postgresql+psycopg2://me:secret@h:1/mine?sslmode=off", subject, tmp_path) as how:
        name = statements[0].removeprefix("CREATE DATABASE ")
        assert how == {"database": f"postgresql+psycopg2://me:secret@h:1/{name}?sslmode=off"}

    assert name != "mine"
    assert statements[1:] == [f"DROP DATABASE {name}"]
