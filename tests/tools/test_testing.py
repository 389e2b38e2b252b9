# SPDX-License-Identifier: Apache-2.0
"""What the tests of the series rely on must not take a run that never happened, or hangs, for an answer."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import psutil
import pytest
from sampleset import user_git

from patchsetlib.installs import environment
from patchsetlib.patches import base as bases
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.upstream import testing

BASE = bases.load("3.1.3")
RAN = """\
<testsuites><testsuite name="pytest" errors="1" failures="1" skipped="1" tests="4" time="1.5">
<testcase classname="airflow-core.tests.test_a.TestA" name="test_one" />
<testcase classname="airflow-core.tests.test_a" name="test_two"><failure>x</failure></testcase>
<testcase classname="airflow-core.tests.test_a" name="test_both"><failure /><error /></testcase>
<testcase classname="airflow-core.tests.test_a" name="test_three"><skipped message="why" /></testcase>
<testcase classname="" name="airflow-core.tests.test_b"><error>x</error></testcase>
</testsuite></testsuites>
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs unit tests in a "Python" that does what a shell script says."""

    def run_with(script: str) -> testing.Outcome:
        python = tmp_path / "bin" / "python"
        python.parent.mkdir()
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        (tmp_path / "airflow.db").touch()
        monkeypatch.setattr(environment, "test_python", lambda base: python)
        return testing.run_unit_tests(
            BASE, tmp_path, ["test_x.py"], tmp_path / "airflow.db", tmp_path / "scratch"
        )

    return run_with


def test_outcome_is_what_pytest_reports(run, tmp_path):
    (tmp_path / "ran.xml").write_text(RAN)
    outcome = run('echo "output with \\377"; cp ran.xml scratch/report.xml; exit 1')
    assert outcome.failed == ("test_a::test_two", "test_a::test_both", "airflow-core.tests.test_b")
    assert (outcome.passed, outcome.skipped, outcome.seconds) == (1, 1, 1.5)
    assert "output with " in outcome.tail()


@pytest.mark.parametrize("script", ["exit 4", "exit 2", "exit 0", "kill -9 $$"])
def test_run_that_did_not_come_to_an_end_is_an_error(run, script):
    with pytest.raises(PatchsetError, match="pytest ended with exit code"):
        run(script)


def test_hanging_run_is_ended(run, tmp_path, monkeypatch):
    monkeypatch.setattr(testing, "LIMIT", 0.5)
    with pytest.raises(PatchsetError, match="the unit tests hang"):
        run("sleep 1000 & echo $! > pid; wait")
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_unit_tests_see_nothing_of_the_users_settings(run, tmp_path, monkeypatch):
    for name in ("AIRFLOW__CORE__EXECUTOR", "PYTEST_ADDOPTS", "PYTHONPATH", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "of the user")
    with pytest.raises(PatchsetError):
        run("env > seen")
    seen = (tmp_path / "seen").read_text()
    assert "of the user" not in seen
    assert f"AIRFLOW_HOME={tmp_path / 'scratch' / 'home'}\n" in seen
    assert f"AIRFLOW_SOURCES={tmp_path}\n" in seen


def test_ruff_with_the_settings_of_the_tree(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\nlint.per-file-ignores = {'kept/*' = ['F401']}\n")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a.py").write_text("import os\n")
    (tmp_path / "b.py").write_text("import os\nx = {  }\n")

    assert testing.ruff_errors(tmp_path, "check", ["kept/a.py"]) == ""
    assert testing.ruff_errors(tmp_path, "format", ["kept/a.py"]) == ""
    assert "F401" in testing.ruff_errors(tmp_path, "check", ["kept/a.py", "b.py"])
    assert "+x = {}" in testing.ruff_errors(tmp_path, "format", ["kept/a.py", "b.py"])


def test_compile_errors(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "test_python", lambda base: Path(sys.executable))
    (tmp_path / "good.py").write_text("x = 1\n")
    (tmp_path / "bad.py").write_text("x = (\n")
    assert testing.compile_errors(BASE, tmp_path, ["good.py"]) == ""
    assert "bad.py" in testing.compile_errors(BASE, tmp_path, ["good.py", "bad.py"])


def test_changed_files(tmp_path):
    user_git("init", "--quiet", cwd=tmp_path)
    for number, names in enumerate((["a.py", "b.py", "c d.py"], ["a.py", "sub/tést.py"])):
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(f"{number}\n")
        if number:
            (tmp_path / "b.py").unlink()
        user_git("add", "--all", cwd=tmp_path)
        user_git("commit", "--quiet", "--message", str(number), cwd=tmp_path)
    assert testing.changed_files(tmp_path, "HEAD~1", "HEAD") == ["a.py", "sub/tést.py"]
    assert testing.changed_files(tmp_path, "HEAD~1", "HEAD", ":(glob)sub/**/t*.py") == ["sub/tést.py"]


def test_base_without_the_sdist_that_has_the_settings():
    with pytest.raises(PatchsetError, match=r"3.1.3/base.toml has no \[config-sdist\]"):
        released = dataclasses.replace(BASE.release, config_sdist=None)
        testing.upstream_settings(dataclasses.replace(BASE, released=released))
