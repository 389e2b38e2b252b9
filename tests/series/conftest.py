# SPDX-License-Identifier: Apache-2.0
"""Every base is built once; each commit of its series has a tree of its own, made when first asked for."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import pytest

from patchsetlib import base as bases
from patchsetlib import series, source, testing
from patchsetlib.base import Base
from patchsetlib.git import git
from patchsetlib.series import Patch
from patchsetlib.testing import Outcome

RESULTS = pytest.StashKey[list[str]]()
PASSED = pytest.StashKey[list[int]]()


class Built:
    """A base with its series as commits, and a directory for trees and logs."""

    def __init__(self, base: Base, directory: Path):
        self.base = base
        self.directory = directory
        self.repository = source.make_sdist_tree(base, directory / "series")
        self.start = git("rev-parse", "HEAD", cwd=self.repository).strip()
        self.applied = source.apply_series(base, self.repository)
        self.tests = f"{base.package}/tests/**/test_*.py"

    @functools.cached_property
    def database(self) -> Path:
        home = self.directory / "migrated"
        home.mkdir()
        return testing.migrated_database(self.base, home)

    @functools.cache  # noqa: B019 (lives as long as the session)
    def tree(self, commit: str) -> Path:
        """Return a tree of ``commit`` with upstream's settings, for reading."""
        return self.new_tree(commit, commit[:12])

    def new_tree(self, commit: str, name: str) -> Path:
        tree = self.directory / name
        git("worktree", "add", "--quiet", "--detach", tree, commit, cwd=self.repository)
        testing.add_settings(self.base, tree)
        return tree

    def run(self, tree: Path, files: list[str], **options) -> Outcome:
        scratch = self.directory / "-".join([tree.name, *options, "run"])
        return testing.run_unit_tests(self.base, tree, files, self.database, scratch, **options)

    def unit_tests(self, commit: str) -> list[str]:
        """Return the test modules that the series has brought up to ``commit``."""
        return testing.changed_files(self.repository, self.start, commit, f":(glob){self.tests}")


@dataclass(frozen=True)
class Step:
    """One commit of a series."""

    built: Built
    patch: Patch
    commit: str
    parent: str

    @property
    def name(self) -> str:
        return f"{self.built.base.name} {self.patch.name.removesuffix('.patch')}"

    @property
    def tree(self) -> Path:
        return self.built.tree(self.commit)

    @property
    def code(self) -> list[str]:
        """The Python files that the commit changes."""
        return testing.changed_files(self.built.repository, self.parent, self.commit, "*.py")

    @property
    def own_tests(self) -> list[str]:
        """The test modules that the commit brings or changes."""
        return testing.changed_files(
            self.built.repository, self.parent, self.commit, f":(glob){self.built.tests}"
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = metafunc.config.getoption("--base") or bases.all_bases()
    if "built" in metafunc.fixturenames:
        metafunc.parametrize("built", names, indirect=True)
    if "step" in metafunc.fixturenames:
        steps = [(name, patch) for name in names for patch in series.names(bases.load(name))]
        ids = [f"{name}-{series.slug(patch)}" for name, patch in steps]
        metafunc.parametrize("step", steps, indirect=True, ids=ids)


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """Return a function that gives the build of a base, always the same."""
    return functools.cache(
        lambda name: Built(bases.load(name), tmp_path_factory.mktemp(f"series-{name}", numbered=True))
    )


@pytest.fixture
def built(request, build) -> Built:
    return build(request.param)


@pytest.fixture
def step(request, build) -> Step:
    name, patch = request.param
    built = build(name)
    commits = [built.start, *(entry.commit for entry in built.applied)]
    number = [entry.patch.name for entry in built.applied].index(patch)
    return Step(built, built.applied[number].patch, commits[number + 1], commits[number])


@pytest.fixture
def report(request):
    """Return a function that keeps a line, and a number of unit tests passed, for the summary."""

    def add(line: str, passed: int = 0) -> None:
        request.config.stash.setdefault(RESULTS, []).append(line)
        if passed:
            request.config.stash.setdefault(PASSED, []).append(passed)

    return add


def pytest_terminal_summary(terminalreporter, config) -> None:
    lines = config.stash.get(RESULTS, [])
    if lines:
        terminalreporter.section("unit tests of the series")
    for line in lines:
        terminalreporter.write_line(line)
    if passed := config.stash.get(PASSED, []):
        terminalreporter.write_line(
            f"unit tests of the series: {sum(passed)} passed at {len(passed)} commits"
        )
