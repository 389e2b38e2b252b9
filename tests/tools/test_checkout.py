# SPDX-License-Identifier: Apache-2.0
"""A tree made from sdists or as a worktree of a clone: the same commits everywhere, or nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import sampleset
from sampleset import CARRIED, edit, user_git

import patchsetlib.patches.base
from patchsetlib.patches import source

BRANCH = "patchset/1.0"
TAG = "patchset-base/1.0"


def commits(tree: Path) -> list[str]:
    return user_git("rev-list", "--reverse", BRANCH, cwd=tree).split()


def listed(repository) -> list[str]:
    return [line.split()[0] for line in (repository.base / "commits").read_text().splitlines()]


def test_sdist_tree(repository):
    out = repository.ok("checkout", "1.0")
    tree = repository.source
    assert out.splitlines()[-1] == str(tree)
    assert user_git("status", "--porcelain", cwd=tree) == ""
    assert user_git("symbolic-ref", "--short", "HEAD", cwd=tree) == BRANCH
    assert "return 33" in (tree / "airflow-core/src/airflow/first.py").read_text()
    assert (tree / "airflow-core/docs/steps.rst").exists()
    carried = user_git("ls-tree", "-r", "--name-only", TAG, cwd=tree).split()
    assert carried == sorted(f"airflow-core/{name}" for name in CARRIED)
    assert user_git("log", "--reverse", "--format=%s", f"{TAG}..", cwd=tree).splitlines() == [
        "[demo] Take the third step right",
        "Take the seventh step right",
        "Say what a step is",
    ]


def test_empty_series(empty):
    empty.ok("checkout", "1.0")
    assert len(commits(empty.source)) == 1
    empty.ok("export", "1.0")
    empty.ok("check")


def test_two_distributions(repository):
    """Each sdist lies at its place in the monorepo, and one patch may change both."""
    sampleset.add_distribution(repository, "demo-sdk", "task-sdk", {"src/sdk.py": "x = 1\n"})
    repository.ok("checkout", "1.0")
    files = {
        "airflow-core/src/airflow/first.py": "y = 1\n",
        "task-sdk/src/sdk.py": "x = 2\n",
        "task-sdk/tests/test_sdk.py": "",
    }
    repository.commit(repository.source, "Change both", files)
    repository.ok("export", "1.0")
    repository.ok("check")
    shutil.rmtree(repository.source)
    repository.ok("checkout", "1.0")
    assert {name: (repository.source / name).read_text() for name in files} == files
    assert not list(repository.source.rglob("PKG-INFO"))
    said = user_git("log", "-1", "--format=%B", TAG, cwd=repository.source)
    assert said.startswith("demo-core 1.0, demo-sdk 1.0 (sdist)\n\nsha256 ")


def test_same_commits_everywhere(repository, tmp_path):
    repository.ok("checkout", "1.0")
    other = tmp_path / "elsewhere" / "deeper"
    home = tmp_path / "other home"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\nname = Jane\nemail = jane@invalid\n[core]\nautocrlf = true\n")
    variables = {"HOME": str(home), "TZ": "Asia/Tokyo", "LANG": "de_DE.UTF-8", "GIT_AUTHOR_DATE": "@0"}
    mask = os.umask(0o077)
    try:
        repository.ok("checkout", "1.0", "--dir", other, env=repository.env | variables)
    finally:
        os.umask(mask)
    assert commits(other) == commits(repository.source)
    assert commits(other)[1:] == listed(repository)


def test_user_can_commit_as_is(repository, tmp_path):
    """A global configuration that signs and converts does not get in the way in an sdist tree."""
    repository.ok("checkout", "1.0")
    home = tmp_path / "signing"
    home.mkdir()
    (home / ".gitconfig").write_text("[commit]\ngpgSign = true\n[user]\nsigningKey = none\n")
    (repository.source / "new").write_text("x")
    for command in ("git add new", "git commit -q -m New"):
        env = repository.env | {"HOME": str(home)}
        subprocess.run(command.split(), cwd=repository.source, env=env, check=True)
    author = user_git("log", "-1", "--format=%an <%ae>", cwd=repository.source)
    assert author == "Airflow LocalExecutor patch set <patchset@invalid>"


def test_inside_another_repository(repository, tmp_path):
    """git apply would leave out files below a repository of somebody else, without a word."""
    outer = tmp_path / "outer"
    outer.mkdir()
    user_git("init", "--quiet", cwd=outer)
    (outer / ".gitignore").write_text("*\n")
    repository.ok("checkout", "1.0", "--dir", outer / "a" / "tree")
    assert commits(outer / "a" / "tree")[1:] == listed(repository)
    repository.ok("export", "1.0", "--dir", outer / "a" / "tree", "--check")


# A worktree of a clone


@pytest.fixture
def full(repository) -> Path:
    """Where a worktree of the full clone goes."""
    return repository.root.parent / "full"


def test_clone(repository, full):
    clone = repository.upstream
    (clone / "airflow-core/docs/guide.rst").write_text("edited, not committed\n")
    (clone / "untracked").write_text("x")
    configuration = (clone / ".git/config").read_bytes()
    before = user_git("status", "--porcelain=v2", "--branch", cwd=clone)
    repository.ok("checkout", "1.0", "--source", clone, "--dir", full)
    assert user_git("status", "--porcelain=v2", "--branch", cwd=clone) == before
    assert (clone / ".git/config").read_bytes() == configuration
    assert user_git("rev-parse", TAG, cwd=full) == user_git("rev-parse", "1.0", cwd=clone)
    assert user_git("symbolic-ref", "--short", "HEAD", cwd=full) == BRANCH
    assert "return 33" in (full / "airflow-core/src/airflow/first.py").read_text()
    assert user_git("status", "--porcelain", cwd=full) == ""


def test_clone_that_lacks_the_commit(repository, full, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    line = repository.fails("checkout", "1.0", "--source", other, "--dir", full)
    assert "is not the root of a git repository" in line
    user_git("init", "--quiet", cwd=other)
    line = repository.fails("checkout", "1.0", "--source", other, "--dir", full)
    assert "fetch it: git -C" in line
    assert line.endswith(" fetch https://github.com/apache/airflow 1.0")
    assert not full.exists()


def test_clone_that_has_the_branch(repository, full):
    clone = repository.upstream
    user_git("branch", BRANCH, cwd=clone)
    line = repository.fails("checkout", "1.0", "--source", clone, "--dir", full)
    assert "already exists" in line
    assert f"branch -D {BRANCH}" in line
    assert user_git("worktree", "list", cwd=clone).count("\n") == 0


def break_second(repository) -> None:
    edit(repository.patches[1], ("-    return 7\n", "-    return 8\n"))


def test_clone_is_clean_after_a_failure(repository, full):
    break_second(repository)
    clone = repository.upstream
    before = user_git("for-each-ref", cwd=clone)
    assert "0002" in repository.fails("checkout", "1.0", "--source", clone, "--dir", full)
    assert user_git("for-each-ref", cwd=clone) == before
    assert user_git("worktree", "list", cwd=clone).count("\n") == 0
    assert not full.exists()


# What goes wrong


def test_patch_that_does_not_apply(repository):
    """Nothing is left, and what the message tells the user to do can be done."""
    break_second(repository)
    name = repository.patches[1].name
    line = repository.fails("checkout", "1.0")
    assert f"{name} does not apply: airflow-core/src/airflow/second.py:" in line
    assert f"checkout 1.0 --before {name}" in line
    assert list(repository.source.parent.iterdir()) == []
    repository.ok("checkout", "1.0", "--before", name)
    assert len(commits(repository.source)) == 2
    assert "no patch 'nonsense'" in repository.fails("checkout", "1.0", "--before", "nonsense", code=2)


def test_unknown_base(repository):
    assert repository.fails("checkout", "9.9", code=2) == "patchset: unknown base '9.9'; bases here: 1.0"


def test_existing_directory(repository, tmp_path):
    (tmp_path / "target").symlink_to("nowhere")
    line = repository.fails("checkout", "1.0", "--dir", tmp_path / "target")
    assert "target exists; remove it or name another directory with --dir" in line


def test_hash_mismatch_is_never_used(repository):
    """A damaged download is not trusted, and without an index there is no other."""
    (archive,) = (repository.root / "work" / "downloads").glob("*/*")
    archive.write_bytes(archive.read_bytes()[:-1])
    assert "cannot reach the package index" in repository.fails("checkout", "1.0")
    assert not repository.source.exists()


def test_cached_tree(repository, monkeypatch):
    """For reading: made once, and again only when what it is made from has changed."""
    monkeypatch.setattr(patchsetlib.patches.base, "ROOT", repository.root)
    monkeypatch.setenv("PATCHSET_WORK", str(repository.root / "work"))
    base = patchsetlib.patches.base.load("1.0")
    stock, patched = source.cached_tree(base, patched=False), source.cached_tree(base, patched=True)
    first = Path("airflow-core/src/airflow/first.py")
    assert (stock / first).read_text() == CARRIED["src/airflow/first.py"]
    assert "return 33" in (patched / first).read_text()
    assert source.cached_tree(base, patched=True) == patched
    base.series_file.write_text(repository.patches[1].name)
    other = source.cached_tree(base, patched=True)
    assert other != patched
    assert "return 33" not in (other / first).read_text()
    assert source.cached_tree(base, patched=False) == stock


@pytest.mark.parametrize(("kind", "number"), [("sdist", signal.SIGINT), ("clone", signal.SIGTERM)])
def test_stopped(repository, full, tmp_path, kind, number):
    """A git in front of the real one waits after the first patch, so the moment is exact."""
    real, directory = shutil.which("git"), tmp_path / "bin"
    directory.mkdir()
    script, reached = directory / "git", tmp_path / "reached"
    script.write_text(
        f'#!/bin/sh\n"{real}" "$@"; code=$?\n'
        f'if [ "$1" = am ]; then echo > "{reached}"; while true; do sleep 0.05; done; fi\nexit $code\n'
    )
    script.chmod(0o755)
    before = user_git("for-each-ref", cwd=repository.upstream)
    options = ("--source", repository.upstream) if kind == "clone" else ()
    process = subprocess.Popen(
        repository.command("checkout", "1.0", "--dir", full, *options),
        env=repository.env | {"PATH": f"{directory}{os.pathsep}{os.environ['PATH']}"},
        cwd=repository.root,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not reached.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 128 + number
    assert said.splitlines()[-1] == "patchset: stopped"
    assert not full.exists()
    assert not list(full.parent.glob(".full*"))
    assert user_git("for-each-ref", cwd=repository.upstream) == before
    assert user_git("worktree", "list", cwd=repository.upstream).count("\n") == 0
