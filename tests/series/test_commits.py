# SPDX-License-Identifier: Apache-2.0
"""Each series applies and exports as it is, and every commit stands alone."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import commits
import pytest
from commits import Commit, Outcome
from packaging.specifiers import SpecifierSet

from patchsetlib.installs import environment
from patchsetlib.patches import base as bases
from patchsetlib.patches import check, contents, export, series, source
from patchsetlib.patches.base import Base
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import git

pytestmark = pytest.mark.network


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = bases.chosen(metafunc.config.getoption("--base"))
    released = [base for base in chosen if base.released]
    for name, values in {"base": chosen, "released": released, "other": released[1:]}.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, values, ids=lambda base: base.name)
    if "commit" in metafunc.fixturenames:
        unit_tests = "run" in metafunc.fixturenames
        metafunc.parametrize("commit", list(_commits(released, unit_tests)), indirect=True)
    if "version" in metafunc.fixturenames:
        minors = [f"3.{minor}" for minor in range(10, 30)]
        supported = [v for v in minors if any(v in SpecifierSet(base.python) for base in released)]
        metafunc.parametrize("version", supported)


def _commits(released: Iterable[Base], unit_tests: bool) -> Iterator:
    """Yield a parameter for each patch of each base; nightly but for the first, as the others are alike."""
    seen = set()
    for place, base in enumerate(released):
        for number, name in enumerate(series.names(base)):
            if unit_tests and name.startswith(series.COMMON) and name in seen:
                continue
            seen.add(name)
            marks = [pytest.mark.nightly] if place > 0 else []
            yield pytest.param((base.name, number), id=f"{base.name}-{series.slug(name)}", marks=marks)


@functools.cache
def _series(name: str) -> list[Commit]:
    return commits.of_series(bases.load(name))


@pytest.fixture
def first(request) -> Base:
    """The base that is tested whole."""
    released = [base for base in bases.chosen(request.config.getoption("--base")) if base.released]
    return released[0] if released else pytest.skip("no release was chosen")


@pytest.fixture
def commit(request) -> Commit:
    name, number = request.param
    return _series(name)[number]


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """Return a function that gives the path of a database for the unit tests of a base."""
    return functools.cache(
        lambda base: commits.migrated_database(base, tmp_path_factory.mktemp("migrated", numbered=True))
    )


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """Return a function that gives the working tree of a base."""
    return functools.cache(lambda base: commits.Tree(base, tmp_path_factory.mktemp("tree", numbered=True)))


@pytest.fixture
def run(database, tree, tmp_path, summary):
    """Return a function that runs test modules in the tree of a base."""

    def run_tests(base: Base, name: str, files: list[str], version: str | None = None, **options) -> Outcome:
        if not files:
            pytest.skip("no unit tests")
        python = environment.test_python(base, version)
        how = commits.UnitTests(base, python, tree(base).path, database(base), **options)
        outcome = how.run(files, tmp_path / "run")
        failed = f", failed: {', '.join(outcome.failed)}" if outcome.failed else ""
        line = f"{name}: {outcome.passed} passed in {outcome.seconds:.0f} s{failed}"
        summary("unit tests of the series", line)
        return outcome

    return run_tests


# The longest first: they are to run beside all the rest.


def test_unit_tests_of_all_commits_pass_at_the_last(released, first, run, tree):
    *_, last = _series(released.name)
    files = last.tests(since=source.tag_name(released))
    if released != first:
        elsewhere = _series(first.name)[-1]
        files = [file for file in files if not _is_same(file, _series(released.name), elsewhere)]
    tree(released).check_out(last)
    outcome = run(released, f"{released.name} with all patches", files)
    assert outcome.failed == (), str(outcome)
    assert outcome.passed > 0, str(outcome)


def _is_same(file: str, here: list[Commit], elsewhere: Commit) -> bool:
    """Return whether a test module and all that its patches change are the same on another base."""
    paths = {path for commit in here if file in commit.tests() for path in commit.changed("*")}
    return here[-1].content(paths) == elsewhere.content(paths)


# All run at the last commit, too. That they pass at their own shows only that no later patch is needed.
@pytest.mark.nightly
def test_unit_tests_pass(commit, run, tree):
    tree(commit.base).check_out(commit)
    outcome = run(commit.base, commit.name, commit.tests())
    assert outcome.failed == (), str(outcome)
    assert outcome.passed > 0, str(outcome)


def test_unit_tests_fail_without_the_patch(commit, run, tree):
    tree(commit.base).check_out(commit, without_patch=True)
    options = {"first_failure": True, "names": commit.new_tests()}
    outcome = run(commit.base, f"{commit.name} without the patch", commit.tests(), **options)
    assert outcome.failed, f"{commit.tests()} pass without the patch\n{outcome}"


@pytest.mark.nightly
def test_common_unit_tests_pass_on_every_python(version, run, tree):
    base = next(b for b in bases.chosen([]) if b.released and version in SpecifierSet(b.python))
    common = [c for c in _series(base.name) if c.is_common]
    if not common:
        pytest.skip("no patch is common to several bases")
    tree(base).check_out(common[-1])
    files = [file for commit in common for file in commit.tests()]
    try:
        outcome = run(base, f"common patches on Python {version}", files, version)
    except PatchsetError as e:
        pytest.skip(str(e))
    assert outcome.failed == (), str(outcome)
    assert outcome.passed > 0, str(outcome)


def test_patch_files_follow_the_rules(base):
    assert [str(finding) for finding in check.check(base)] == []


def test_export_gives_the_same_bytes(released, tmp_path):
    (tmp_path / "scratch").mkdir()
    tree = source.cached_tree(released, patched=True)
    assert export.export(released, tree, tmp_path / "scratch") == {}


def test_ids_of_installed_files_are_those_of_the_commits(released):
    tree = source.cached_tree(released, patched=True)
    stock = source.tag_name(released)
    revisions = [stock, *git("rev-list", "--reverse", f"{stock}..HEAD", cwd=tree).split()]
    for file in contents.installed_files(released):
        path = f"{file.distribution.directory}/src/{file.path}"
        found = [git("ls-tree", "--object-only", revision, path, cwd=tree).strip() for revision in revisions]
        assert [each or contents.ABSENT for each in found] == list(file.ids)


def test_commits_are_the_same_on_every_machine(first, tmp_path, monkeypatch):
    (tmp_path / ".gitconfig").write_text("[user]\nname = x\nemail = x\n[core]\nautocrlf = true\nabbrev = 5\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    monkeypatch.setenv("GIT_AUTHOR_DATE", "2001-01-01T00:00:00")
    umask = os.umask(0o077)
    try:
        tree = source.make_sdist_tree(first, tmp_path / "a tree")
        applied = source.format_commits(source.apply_series(first, tree))
    finally:
        os.umask(umask)
    assert applied == first.commits_file.read_text(encoding="utf-8")


def test_commit_compiles_and_passes_ruff(commit, tree):
    _compile_and_check(commit, commit.changed("*.py"), tree(commit.base).check_out(commit))


def test_last_commit_compiles_and_passes_ruff(other, tree):
    last = _series(other.name)[-1]
    files = last.changed("*.py", since=source.tag_name(other))
    _compile_and_check(last, files, tree(other).check_out(last))


def _compile_and_check(commit: Commit, files: list[str], tree: Path) -> None:
    assert commits.compile_errors(commit.base, tree, files) == ""
    assert commits.ruff_errors(commit.base, tree, files) == ""
