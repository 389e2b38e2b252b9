# SPDX-License-Identifier: Apache-2.0
"""A base that is a commit of upstream's: no sdist, its trees come from clones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from samplecommit import FIRST, GUIDE, NAME, OLD_TEST, ONE
from sampleset import edit, tree_of, user_git

BRANCH = f"patchset/{NAME}"
TAG = f"patchset-base/{NAME}"


@pytest.fixture
def repository(commit_base):
    return commit_base


@pytest.fixture
def full(repository) -> Path:
    """A worktree of the full clone with the series."""
    tree = repository.root.parent / "full"
    repository.ok("checkout", NAME, "--source", repository.upstream, "--dir", tree)
    return tree


def directory(repository) -> Path:
    return repository.root / "airflow-core" / NAME


def test_checkout(repository, full):
    """A patch for a full checkout may change what no sdist holds."""
    assert (full / OLD_TEST).read_text(encoding="utf-8") == "def test_first():\n    assert 1\n"
    assert "What a step is." in (full / GUIDE).read_text(encoding="utf-8")
    assert user_git("status", "--porcelain", cwd=full) == ""
    ids = user_git("rev-list", "--reverse", f"{TAG}..{BRANCH}", cwd=full).split()
    listed = (directory(repository) / "commits").read_text(encoding="utf-8").splitlines()
    assert [line.split()[0] for line in listed] == ids
    # The same on every machine, whoever commits.
    dates = user_git("log", "--format=%at %ct %cn", f"{TAG}..", cwd=full).splitlines()
    assert all(re_dated == "Airflow" for re_dated in (line.split()[2] for line in dates))
    assert all(line.split()[0] == line.split()[1] for line in dates)


def test_round_trip(repository, full):
    before = tree_of(directory(repository))
    git_directory = Path(user_git("rev-parse", "--absolute-git-dir", cwd=full))
    state = user_git("for-each-ref", cwd=full), (git_directory / "index").read_bytes(), tree_of(full)
    assert repository.ok("export", NAME, "--dir", full) == ""
    done = repository.run("--quiet", "check", NAME, "--source", full)
    assert (done.returncode, done.stdout) == (0, "")
    assert tree_of(directory(repository)) == before
    # The user's repository is only read.
    assert (
        user_git("for-each-ref", cwd=full),
        (git_directory / "index").read_bytes(),
        tree_of(full),
    ) == state
    assert user_git("worktree", "list", cwd=repository.upstream).count("\n") == 1


def test_check_without_a_clone(repository):
    edit(directory(repository) / ONE, ("Forwarded: no\n", ""), ("-    return 3\n", "-    return 8\n"))
    done = repository.run("--quiet", "check", NAME)
    assert f"warning: {NAME}: applying the patches skipped: no clone of " in done.stderr
    (line,) = done.stdout.splitlines()
    assert "trailer 'Forwarded: ' is not" in line
    done = repository.run("--quiet", "check", NAME, "--source", repository.upstream)
    assert f"{ONE} does not apply: {FIRST}" in done.stdout


def test_without_a_clone(repository):
    """The tools make one of their own, and need the network only once."""
    user_git("config", "uploadpack.allowFilter", "true", cwd=repository.upstream)
    user_git("config", "uploadpack.allowAnySHA1InWant", "true", cwd=repository.upstream)
    user_git("commit", "--quiet", "--allow-empty", "--message", "Later", cwd=repository.upstream)
    tree = Path(repository.ok("checkout", NAME).splitlines()[-1])
    assert (tree / OLD_TEST).exists()
    assert user_git("rev-list", "--count", TAG, cwd=tree) == "1"
    repository.upstream.rename(repository.upstream.with_name("gone"))
    line = repository.fails("checkout", NAME, "--dir", repository.root / "second")
    assert f"'{BRANCH}'" in line
    shutil.rmtree(tree)
    repository.ok("checkout", NAME)
    assert repository.ok("export", NAME) == ""
    done = repository.run("--quiet", "check", NAME)
    assert (done.returncode, done.stdout) == (0, "")
    assert "applying the patches skipped" not in done.stderr


def test_without_a_clone_and_without_a_network(repository):
    repository.upstream.rename(repository.upstream.with_name("gone"))
    line = repository.fails("checkout", NAME)
    assert "cannot fetch " in line
    assert "give --source CLONE" in line
    assert not (repository.root / "work" / NAME).exists()


def test_what_needs_a_release(repository):
    line = repository.fails("python", NAME)
    assert f"the base {NAME} is a commit of upstream, which has no sdist and no wheel; " in line


def test_base_lacks_an_entry(repository):
    edit(directory(repository) / "base.toml", ("commit", "committed"))
    assert "base.toml: no entry 'commit'" in repository.fails("check", NAME)
