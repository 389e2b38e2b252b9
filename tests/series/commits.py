# SPDX-License-Identifier: Apache-2.0
"""The commits of a series, their files with upstream's settings, and what runs there."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from patchsetlib.installs import environment
from patchsetlib.patches import artifacts, series, source
from patchsetlib.patches.base import Base
from patchsetlib.patches.series import Patch
from patchsetlib.shell import processes
from patchsetlib.shell import uv as uvtool
from patchsetlib.shell.git import git

CONFTEST = """\
# Beside upstream's conftest.py of a distribution.
import os

import pytest


@pytest.fixture(autouse=True)
def _disable_redact():
    # In place of that of the plugin, whose published versions do not know how the release masks secrets.
    pass


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session):
    yield
    # All reports are written. Without the patch under test, exiting can wait for worker processes for ever.
    session.config.get_terminal_writer().flush()
    os._exit(session.exitstatus)
"""
# Seconds for a whole run: many times what any needs.
RUN_LIMIT = 600.0
# Seconds for a single test: as in upstream's CI; and where it is enough to see one fail.
TEST_LIMIT = 60
FAILURE_LIMIT = 20


@dataclass(frozen=True)
class Outcome:
    """What a run of pytest came to."""

    passed: int
    failed: tuple[str, ...]
    """Tests that failed and modules that could not be imported; or that the run did not end."""
    seconds: float
    log: Path
    """Of the first run with a failure."""

    def __str__(self) -> str:
        """Return what failed, and the end of the log without the tests that passed."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        rest = [line for line in lines if " PASSED " not in line]
        return "\n".join([*self.failed, f"the last lines of {self.log}:", *rest[-60:]])


@dataclass(frozen=True)
class Commit:
    """One commit of a series."""

    base: Base
    patch: Patch
    id: str
    repository: Path

    @property
    def name(self) -> str:
        return f"{self.base.name} {self.patch.slug}"

    @property
    def is_common(self) -> bool:
        """Whether other bases have the same patch."""
        return self.patch.name.startswith(series.COMMON)

    def changed(self, *patterns: str, since: str | None = None) -> list[str]:
        """Return the files matching ``patterns`` that differ from the parent (``since``) and exist here."""
        options = ("--name-only", "--no-renames", "--diff-filter=d", "-z", since or f"{self.id}~1", self.id)
        return git("diff", *options, "--", *patterns, cwd=self.repository).split("\0")[:-1]

    def tests(self, since: str | None = None) -> list[str]:
        """Return the test modules that differ from the parent (``since``)."""
        return self.changed(":(glob)**/tests/**/test_*.py", since=since)

    def new_tests(self) -> list[str]:
        """Return the names of the tests that the commit adds to its modules."""
        diff = git("diff", "--unified=0", f"{self.id}~1", self.id, "--", *self.tests(), cwd=self.repository)
        return re.findall(r"^\+ *(?:async )?def (test_\w+)", diff, re.MULTILINE)

    def content(self, paths: Sequence[str]) -> str:
        """Return what tells whether ``paths`` are the same in another commit."""
        return git("ls-tree", "-r", self.id, "--", *paths, cwd=self.repository)


def of_series(base: Base) -> list[Commit]:
    """
    Return the commits of the series of ``base``, in order.

    :raises PatchsetError: if it does not apply
    """
    tree = source.cached_tree(base, patched=True)
    ids = git("rev-list", "--reverse", f"{source.tag_name(base)}..HEAD", cwd=tree).split()
    pairs = zip(series.load(base), ids, strict=True)
    return [Commit(base, patch, commit, tree) for patch, commit in pairs]


class Tree:
    """A working tree of a series with upstream's settings; Python compiles only what a commit changes."""

    def __init__(self, base: Base, path: Path):
        self.base = base
        self.path = path
        git("clone", "--shared", "--no-checkout", source.cached_tree(base, patched=True), ".", cwd=path)

    def check_out(self, commit: Commit, without_patch: bool = False) -> Path:
        """Hold the files of a commit, or of its parent with the tests of the commit; return the path."""
        revision = f"{commit.id}~1" if without_patch else commit.id
        git("checkout", "--force", "--detach", revision, cwd=self.path)
        git("clean", "-ffd", "--exclude=__pycache__", cwd=self.path)
        if without_patch and (tests := commit.tests()):
            git("checkout", commit.id, "--", *tests, cwd=self.path)
        (self.path / "pyproject.toml").write_bytes(upstream_settings(self.base))
        (self.path / "conftest.py").write_text(CONFTEST, encoding="utf-8")
        # Without these the plugin would compute them, with a script that no sdist holds.
        generated = self.path / "generated"
        generated.mkdir(exist_ok=True)
        (generated / "provider_dependencies.json").write_text("{}", encoding="utf-8")
        (generated / "provider_dependencies.json.sha256sum").write_text(hashlib.sha256().hexdigest())
        return self.path


def upstream_settings(base: Base) -> bytes:
    """Return the ``pyproject.toml`` at the root of upstream's monorepo, which one of its sdists holds."""
    assert base.settings_sdist is not None, f"{base.name}/base.toml has no [settings-sdist]"
    with tarfile.open(artifacts.fetch(base.settings_sdist)) as tar:
        (name,) = (n for n in tar.getnames() if n.count("/") == 1 and n.endswith("/pyproject.toml"))
        content = tar.extractfile(name)
        assert content is not None
        return content.read()


def migrated_database(base: Base, home: Path) -> Path:
    """Return a new SQLite database with Airflow's tables, made in ``home``."""
    python = environment.test_python(base)
    log = home / "migrate.log"
    command = [python, "-m", "airflow", "db", "migrate"]
    variables = _variables(python, home)
    if base.is_provider:
        # It has tables, and where it is tested its installed sources are deleted.
        tree = source.cached_tree(base, patched=True)
        sources = [str(tree / each.directory / "src") for each in base.distributions]
        variables |= {"PYTHONPATH": os.pathsep.join(sources), "PYTHONDONTWRITEBYTECODE": "1"}
    done = processes.run(command, env=variables, log=log, timeout=RUN_LIMIT)
    assert done.returncode == 0, log.read_text(encoding="utf-8", errors="replace")
    return home / "airflow.db"


@dataclass(frozen=True)
class UnitTests:
    """How to run unit tests of a tree."""

    base: Base
    python: Path
    """Interpreter of a test environment; the sources of the tree come first on its path."""
    tree: Path
    database: Path
    """Is copied."""
    first_failure: bool = False
    """Stop at the first failure, and do not wait long for a test that hangs."""
    names: Sequence[str] = ()
    """Only tests whose names hold one of these, if any."""

    def run(self, files: Sequence[str], scratch: Path) -> Outcome:
        """
        Run the test modules ``files``; no process of the run is left afterwards.

        Those of each distribution run in a process of their own: their settings contradict each other.

        :param scratch: start of the names of directories to create, for logs, reports and Airflow's homes
        :raises RuntimeError: if pytest does not get as far as running tests
        """
        passed, failed, seconds, log = 0, (), 0.0, scratch
        for number, distribution in enumerate(self.base.distributions):
            chosen = [file for file in files if file.startswith(f"{distribution.directory}/")]
            if chosen and not (failed and self.first_failure):
                # Short, since paths of sockets that tests make below it must be.
                outcome = self._run(chosen, scratch.with_name(f"{scratch.name}{number}"))
                log = log if failed else outcome.log
                passed, failed = passed + outcome.passed, (*failed, *outcome.failed)
                seconds += outcome.seconds
        return Outcome(passed, failed, seconds, log)

    def _run(self, files: Sequence[str], scratch: Path) -> Outcome:
        home, log, report = scratch / "home", scratch / "pytest.log", scratch / "report.xml"
        home.mkdir(parents=True)
        shutil.copy(self.database, home)
        (home / ".airflow_db_initialised").touch()
        limit = FAILURE_LIMIT if self.first_failure else TEST_LIMIT
        # Upstream's setting names those of core alone.
        paths = (f"{each.directory}/{name}" for each in self.base.distributions for name in ("src", "tests"))
        command = [
            *(self.python, "-m", "pytest", "-c", self.tree / "pyproject.toml", "--rootdir", self.tree),
            *("-o", f"pythonpath={' '.join(paths)}"),
            *("--disable-capture-warnings", "--color=no", "--continue-on-collection-errors"),
            *("-p", "no:cacheprovider", "--basetemp", scratch / "tmp", "--junit-xml", report),
            # Before any conftest.py: newer ones than the plugin's import what the plugin has to set up first.
            *("-p", "tests_common.pytest_plugin"),
            # It knows not all tables of a newer release, and each run has a database of its own.
            "--no-db-cleanup",
            *(f"--setup-timeout={limit}", f"--execution-timeout={limit}"),
            # A test may say that it takes longer, as in upstream's CI, but not for its failure.
            *(() if self.first_failure else ("--timeouts-order=moi",)),
            f"--teardown-timeout={5 if self.first_failure else limit}",
            *(["--maxfail=1"] if self.first_failure else []),
            *(["-k", " or ".join(self.names)] if self.names else []),
            *files,
        ]
        variables = _variables(self.python, home) | {"AIRFLOW_SOURCES": str(self.tree)}
        try:
            code = processes.run(command, env=variables, cwd=self.tree, log=log, timeout=RUN_LIMIT).returncode
        except subprocess.TimeoutExpired:
            return Outcome(0, (f"no end in {RUN_LIMIT:.0f} s",), RUN_LIMIT, log)
        if code not in (0, 1, 5) or not report.exists():
            raise RuntimeError(f"pytest ended with exit code {code}, see {log}")
        return _outcome(report, log)


def _variables(python: Path, home: Path) -> dict[str, str]:
    return processes.neutral_environment() | {
        "PATH": environment.variables(python)["PATH"],
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "PYTHONNOUSERSITE": "1",
    }


def _outcome(report: Path, log: Path) -> Outcome:
    (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    failed, passed = [], 0
    for case in suite.iter("testcase"):
        results = {element.tag for element in case}
        if results & {"failure", "error"}:
            failed.append(f"{case.attrib['classname'].rpartition('.')[2]}::{case.attrib['name']}".lstrip(":"))
        elif "skipped" not in results:
            passed += 1
    return Outcome(passed, tuple(failed), float(suite.attrib["time"]), log)


def compile_errors(base: Base, tree: Path, files: Sequence[str]) -> str:
    """Return what the Python of ``base`` says about the syntax of ``files``; empty if they are valid."""
    # Into memory: Python takes what it has compiled for current if the file is of the same second and size.
    program = "import sys; [compile(open(name, 'rb').read(), name, 'exec') for name in sys.argv[1:]]"
    return _complaints([environment.test_python(base), "-I", "-c", program, *files], tree)


def ruff_errors(base: Base, tree: Path, files: Sequence[str]) -> str:
    """Return what ruff, in upstream's version and with its settings, says about ``files``."""
    ruff = [uvtool.executable(), "tool", "run", "--quiet", "--python", sys.executable, f"ruff@{base.ruff}"]
    options = ["--no-cache", "--force-exclude", *files]
    check = _complaints([*ruff, "check", "--no-fix", *options], tree)
    return check + _complaints([*ruff, "format", "--check", "--diff", *options], tree)


def _complaints(command: Sequence[str | Path], tree: Path) -> str:
    done = subprocess.run(
        command, cwd=tree, env=uvtool.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    return f"{done.stdout}{done.stderr}" if done.returncode else ""
