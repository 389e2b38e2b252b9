# SPDX-License-Identifier: Apache-2.0
"""The patches themselves: they apply, come out again as they are, and every one of them stands alone."""

from __future__ import annotations

import functools
import os

import pytest
from building import Built, Step

from patchsetlib.patches import base as bases
from patchsetlib.patches import check, export, series, source
from patchsetlib.shell.git import git
from patchsetlib.upstream import testing

pytestmark = pytest.mark.network

# At every so many commits, and at the last, the tests of all commits before run as well as the commit's own.
EVERYTHING_EACH = 3


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = metafunc.config.getoption("--base") or bases.all_bases()
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", names)
    commits = [name for name in names if not bases.load(name).released]
    skipped = [
        pytest.param(None, id=name, marks=pytest.mark.skip(f"{name} has no sdist; see check --source CLONE"))
        for name in commits
    ]
    names = [name for name in names if name not in commits]
    if "built" in metafunc.fixturenames:
        metafunc.parametrize("built", [*names, *skipped], indirect=True)
    if "step" in metafunc.fixturenames:
        steps = [
            pytest.param((name, patch), id=f"{name}-{series.slug(patch)}")
            for name in names
            for patch in series.names(bases.load(name))
        ]
        metafunc.parametrize("step", [*steps, *skipped], indirect=True)


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


def test_nothing_is_wrong_with_the_files(name):
    assert [str(finding) for finding in check.check(bases.load(name))] == []


def test_export_gives_the_same_bytes(built, tmp_path):
    assert export.export(built.base, built.repository, tmp_path).changes() == []


def test_commits_are_the_same_on_every_machine(built, tmp_path, monkeypatch):
    (tmp_path / ".gitconfig").write_text("[user]\nname = x\nemail = x\n[core]\nautocrlf = true\nabbrev = 5\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    monkeypatch.setenv("GIT_AUTHOR_DATE", "2001-01-01T00:00:00")
    umask = os.umask(0o077)
    try:
        tree = source.make_sdist_tree(built.base, tmp_path / "another tree")
        again = source.format_commits(source.apply_series(built.base, tree))
    finally:
        os.umask(umask)

    assert again == source.format_commits(built.applied)
    assert again == source.commits_file(built.base).read_text(encoding="utf-8")


def test_commit_compiles(step):
    assert testing.compile_errors(step.built.base, step.tree, step.code) == ""


@pytest.mark.parametrize("command", ["check", "format"])
def test_commit_passes_ruff_as_upstream_sets_it(step, command):
    assert testing.ruff_errors(step.tree, command, step.code) == ""


def test_unit_tests_pass_at_commit(step, report):
    ids = [entry.commit for entry in step.built.applied]
    number, last = ids.index(step.commit) + 1, step.commit == ids[-1]
    everything = last or number % EVERYTHING_EACH == 0
    files = step.built.unit_tests(step.commit) if everything else step.own_tests
    if not files:
        pytest.skip("no unit tests that an sdist carries")
    # On the way to the last commit the last test comes first, so that none can rely on those before it.
    backwards = not last

    outcome = step.built.run(step.tree, files, backwards=backwards)

    order = ", last test first" if backwards else ""
    report(f"{step.name}: {outcome.passed} passed in {outcome.seconds:.0f} s{order}", outcome.passed)
    assert outcome.failed == (), outcome.tail()
    assert outcome.passed > 0, outcome.tail()


def test_own_unit_tests_fail_without_the_patch(step, report):
    files = step.own_tests
    if not files:
        pytest.skip(f"Tests: {step.patch.trailer('Tests') or 'none that an sdist carries'}")
    tree = step.built.new_tree(step.parent, f"{step.parent[:12]}-without-{step.patch.slug}")
    git("checkout", step.commit, "--", *files, cwd=tree)

    # One is enough: others may take long, as they wait for what only the patch makes happen.
    outcome = step.built.run(tree, files, first_failure=True)

    report(f"{step.name}: without it fails {', '.join(outcome.failed) or 'nothing'}")
    assert outcome.failed, f"{files} pass without the patch\n{outcome.tail()}"
