# SPDX-License-Identifier: Apache-2.0
"""
Run unit tests and ruff on a source tree made from the sdist, with upstream's own settings.

An sdist has no tests around it: what upstream keeps at the root of the monorepo is put there as files that
git does not track. The tests run in the environment of ``environment.test_python``, the tree's sources first.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from patchsetlib.installs import environment
from patchsetlib.patches import artifacts
from patchsetlib.patches.base import Base
from patchsetlib.shell import processes
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import git
from patchsetlib.shell.paths import display

_CONFTEST = """\
# Written by the patch set's tools, in place of upstream's.
import os

pytest_plugins = "tests_common.pytest_plugin"


def pytest_collection_modifyitems(items):
    if "PATCHSET_REVERSED" in os.environ:
        items.reverse()
"""
# Seconds for a whole run: many times what any needs, nothing but a deadlock takes as long.
LIMIT = 300.0
# Seconds that upstream's CI gives a single test, and seconds for one of which only a failure is of interest.
TEST_LIMIT = 60
SHORT_TEST_LIMIT = 20


@dataclass(frozen=True)
class Outcome:
    """What a run of pytest came to."""

    passed: int
    failed: tuple[str, ...]
    """Tests that failed and modules that could not be collected."""
    skipped: int
    seconds: float
    log: Path

    def tail(self, lines: int = 60) -> str:
        """Return the end of the log without the tests that passed, to show it."""
        text = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        rest = [line for line in text if " PASSED " not in line]
        return "\n".join([f"the last lines of {self.log}:", *rest[-lines:]])


def add_settings(base: Base, tree: Path) -> None:
    """
    Put upstream's settings at the root of a tree made from the sdist, untracked.

    :raises PatchsetError: if they cannot be had
    """
    generated = tree / "generated"
    tests = tree / base.package / "tests"
    generated.mkdir(exist_ok=True)
    tests.mkdir(exist_ok=True)
    (tree / "pyproject.toml").write_bytes(upstream_settings(base))
    (tests / "conftest.py").write_text(_CONFTEST, encoding="utf-8")
    # Without these the plugin would compute them, with a script that no sdist carries.
    (generated / "provider_dependencies.json").write_text("{}", encoding="utf-8")
    (generated / "provider_dependencies.json.sha256sum").write_text(hashlib.sha256().hexdigest())


def upstream_settings(base: Base) -> bytes:
    """
    Return the ``pyproject.toml`` at the root of upstream's monorepo: its settings for ruff and pytest.

    :raises PatchsetError: if it cannot be had
    """
    if base.config_sdist is None:
        raise PatchsetError(
            f"{base.name}/base.toml has no [config-sdist]", "name the sdist with the settings"
        )
    archive = artifacts.fetch(base.config_sdist)
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.count("/") == 1 and member.name.endswith("/pyproject.toml"):
                content = tar.extractfile(member)
                assert content is not None
                return content.read()
    raise PatchsetError(f"{display(archive)} has no pyproject.toml")


def migrated_database(base: Base, home: Path) -> Path:
    """
    Return a SQLite database as the unit tests need it, made in ``home``.

    :raises PatchsetError: if that fails
    """
    python = environment.test_python(base)
    log = home / "migrate.log"
    done = processes.run(
        [python, "-m", "airflow", "db", "migrate"], env=_variables(python, home), log=log, timeout=LIMIT
    )
    database = home / "airflow.db"
    if done.returncode or not database.exists():
        raise PatchsetError("cannot make a database for the unit tests", f"see {display(log)}")
    return database


def run_unit_tests(
    base: Base,
    tree: Path,
    files: Sequence[str],
    database: Path,
    scratch: Path,
    *,
    backwards: bool = False,
    first_failure: bool = False,
) -> Outcome:
    """
    Run the test modules ``files`` of ``tree``; nothing of it runs any more afterwards.

    :param tree: has been given upstream's settings by ``add_settings``
    :param files: paths in the monorepo
    :param database: as made by ``migrated_database``; a copy is used
    :param scratch: directory to create, for the log and Airflow's home
    :param backwards: run the last test first
    :param first_failure: stop at the first one, and do not wait long for a test that hangs
    :raises PatchsetError: if it takes longer than ``LIMIT`` seconds, or does not get as far as running tests
    """
    python = environment.test_python(base)
    home = scratch / "home"
    home.mkdir(parents=True)
    shutil.copy(database, home)
    (home / ".airflow_db_initialised").touch()
    log, report = scratch / "pytest.log", scratch / "report.xml"
    variables = _variables(python, home) | {"AIRFLOW_SOURCES": str(tree)}
    if backwards:
        variables["PATCHSET_REVERSED"] = "1"
    limit = SHORT_TEST_LIMIT if first_failure else TEST_LIMIT
    command = [
        *(python, "-m", "pytest", "-c", tree / "pyproject.toml", "--rootdir", tree),
        *("--disable-capture-warnings", "--color=no", "--continue-on-collection-errors"),
        *("-p", "no:cacheprovider", "--basetemp", scratch / "tmp", "--junit-xml", report),
        *(f"--{phase}-timeout={limit}" for phase in ("setup", "execution", "teardown")),
        *(["--maxfail=1"] if first_failure else []),
        *files,
    ]
    try:
        done = processes.run(command, env=variables, cwd=tree, log=log, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        raise PatchsetError(f"the unit tests hang: no end in {LIMIT:.0f} s", f"see {log}") from None
    if done.returncode not in (0, 1) or not report.exists():
        raise PatchsetError(f"pytest ended with exit code {done.returncode}", f"see {log}")
    return _outcome(report, log)


def _variables(python: Path, home: Path) -> dict[str, str]:
    variables = processes.neutral_environment()
    variables["PATH"] = environment.variables(python)["PATH"]
    return variables | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "PYTHONNOUSERSITE": "1",
    }


def _outcome(report: Path, log: Path) -> Outcome:
    (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    bad, skipped, cases = [], 0, 0
    for case in suite.iter("testcase"):
        cases += 1
        skipped += case.find("skipped") is not None
        if case.find("failure") is not None or case.find("error") is not None:
            bad.append(f"{case.attrib['classname'].rpartition('.')[2]}::{case.attrib['name']}".lstrip(":"))
    return Outcome(cases - len(bad) - skipped, tuple(bad), skipped, float(suite.attrib["time"]), log)


def changed_files(tree: Path, start: str, commit: str, *patterns: str) -> list[str]:
    """
    Return the files that differ between two commits of ``tree`` and exist at the second.

    :param patterns: git pathspecs to limit them to
    """
    listed = git(
        "diff",
        "--name-only",
        "--no-renames",
        "--diff-filter=d",
        "-z",
        start,
        commit,
        "--",
        *patterns,
        cwd=tree,
    )
    return listed.split("\0")[:-1]


def compile_errors(base: Base, tree: Path, files: Sequence[str]) -> str:
    """Return what Python says about ``files`` of ``tree`` when it compiles them; empty if they are valid."""
    command = [environment.test_python(base), "-I", "-m", "compileall", "-q", "-f", *files]
    done = processes.run(command, cwd=tree, capture=True)
    return done.stdout + done.stderr if done.returncode else ""


def ruff_errors(tree: Path, command: str, files: Sequence[str]) -> str:
    """
    Return what ruff has to say about ``files`` of ``tree`` with the settings there; empty if nothing.

    :param command: ``check`` or ``format``
    """
    options = {"check": ["--no-fix"], "format": ["--check", "--diff"]}[command]
    ruff = Path(sys.executable).with_name("ruff")
    done = processes.run(
        [ruff, command, *options, "--no-cache", "--force-exclude", *files], cwd=tree, capture=True
    )
    return done.stdout + done.stderr if done.returncode else ""
