# SPDX-License-Identifier: Apache-2.0
"""Commits become the same bytes on every machine and from every kind of tree, or no file changes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess

import pytest
from sampleset import MODULE, edit, tree_of, user_git

FIRST = "airflow-core/src/airflow/first.py"
BRANCH = "patchset/1.0"
TAG = "patchset-base/1.0"
COMMON = "../common/Say-what-a-step-is.patch"
THIRD = "0003-Say-what-a-step-is.patch"


def series(repository) -> list[str]:
    lines = (repository.base / "series").read_text(encoding="utf-8").splitlines()
    return [entry for line in lines if (entry := line.split("#")[0].strip())]


@pytest.fixture(scope="session")
def _checked_out(_with_series, tmp_path_factory):
    directory = tmp_path_factory.mktemp("checked-out") / "tree"
    _with_series.ok("checkout", "1.0", "--dir", directory)
    return directory


@pytest.fixture
def tree(repository, _checked_out):
    """A tree made from the sdist."""
    shutil.copytree(_checked_out, repository.source)
    return repository.source


@pytest.fixture
def full(repository):
    """A worktree of the full clone."""
    tree = repository.root.parent / "full"
    repository.ok("checkout", "1.0", "--source", repository.upstream, "--dir", tree)
    return tree


def changed(step: int) -> dict[str, str]:
    text = MODULE.replace("return 3\n", "return 33\n")
    return {FIRST: text.replace(f"return {step}\n", f"return {step}{step}\n")}


# A user whose git is set up to be as different as possible.
HOSTILE = {
    "user": "name = Jane, email = jane@invalid",
    "format": "suffix = .txt, signOff = true, attach = true, numbered = true, subjectPrefix = AIRFLOW, "
    "thread = true, to = list@invalid, from = true, noprefix = true, outputDirectory = elsewhere, "
    "coverLetter = true, useAutoBase = true, signature = Jane, notes = true",
    "diff": "noprefix = true, mnemonicPrefix = true, context = 7, interHunkContext = 4, "
    "algorithm = patience, indentHeuristic = false, renames = copies, external = false, relative = true, "
    "color = always, statGraphWidth = 5",
    'diff "python"': 'xfuncname = "^never$", command = false, textconv = false',
    "color": "ui = always",
    "core": "autocrlf = true, abbrev = 40, quotePath = true, hooksPath = HOME/hooks, "
    "attributesFile = HOME/attributes, fsmonitor = HOME/hooks/fail, whitespace = -trailing-space, "
    'pager = false, commentChar = "@"',
    "commit": "gpgSign = true, template = HOME/template, verbose = true, cleanup = verbatim",
    "am": "threeWay = true, keepcr = false",
    "apply": "whitespace = fix, ignoreWhitespace = change",
    "mailinfo": "scissors = true",
    "i18n": "commitEncoding = ISO-8859-1, logOutputEncoding = ISO-8859-1",
    "init": "defaultBranch = trunk, templateDir = HOME/template-directory",
    "log": "showSignature = true, date = relative",
    "trailer": 'separators = "="',
    "alias": "am = !false",
}


@pytest.fixture
def hostile(repository, tmp_path) -> dict[str, str]:
    """The environment of that user."""
    home = tmp_path / "hostile"
    xdg, hooks = home / "xdg" / "git", home / "hooks"
    for directory in (xdg, hooks):
        directory.mkdir(parents=True)
    for name in ("applypatch-msg", "pre-commit", "post-commit", "commit-msg", "post-checkout", "fail"):
        (hooks / name).write_text(f'#!/bin/sh\ntouch "{home}/hook-ran"\nexit 1\n')
        (hooks / name).chmod(0o755)
    shutil.copytree(hooks, home / "template-directory" / "hooks")
    (home / "template").write_text("template\n")
    sections = (f"[{name}]\n{lines}\n".replace(", ", "\n") for name, lines in HOSTILE.items())
    (home / ".gitconfig").write_text("".join(sections).replace("HOME", str(home)), encoding="utf-8")
    for path in (xdg / "attributes", home / "attributes"):
        path.write_text("*.py diff=tex text eol=crlf\n*.rst binary\n")
    return repository.env | {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "xdg"),
        "GIT_DIFF_OPTS": "--unified=9",
        "GIT_EXTERNAL_DIFF": "false",
        "GIT_AUTHOR_NAME": "Jane",
        "GIT_AUTHOR_EMAIL": "jane@invalid",
        "GIT_AUTHOR_DATE": "@1 +0500",
        "GIT_COMMITTER_DATE": "@1 +0500",
        "GIT_TEMPLATE_DIR": str(home / "template-directory"),
        "GIT_PAGER": "false",
        "GIT_EDITOR": "false",
        "TZ": "Asia/Kathmandu",
        "COLUMNS": "40",
    }


@pytest.mark.parametrize("kind", ["sdist", "clone"])
def test_round_trip(repository, hostile, tmp_path, kind):
    if kind == "clone":
        with (repository.upstream / ".git" / "config").open("a") as file:
            file.write((tmp_path / "hostile" / ".gitconfig").read_text())
    target = repository.root.parent / "tree"
    source = ["--source", str(repository.upstream)] if kind == "clone" else []
    before = tree_of(repository.base)
    repository.ok("checkout", "1.0", "--dir", target, *source, env=hostile)
    for path in repository.patches:
        path.unlink()
    repository.ok("export", "1.0", "--dir", target, env=hostile)
    assert tree_of(repository.base) == before
    repository.ok("check", env=hostile)
    assert not (tmp_path / "hostile" / "hook-ran").exists()


def test_new_commit(repository, tree):
    stored = {path.name: path.read_bytes() for path in repository.patches}
    repository.commit(
        tree, "Take the ninth step right", changed(9) | {"airflow-core/tests/unit/test_9.py": ""}
    )
    before = tree_of(repository.base)
    said = [
        "airflow-core/1.0/base.toml: changed",
        "airflow-core/1.0/0004-Take-the-ninth-step-right.patch: new",
        "airflow-core/1.0/commits: changed",
        "airflow-core/1.0/series: changed",
    ]
    done = repository.run("export", "1.0", "--dry-run")
    assert (done.returncode, done.stdout.splitlines()) == (1, said)
    assert tree_of(repository.base) == before
    assert repository.ok("export", "1.0").splitlines() == said
    toml = before["base.toml"].replace(b"series-version = 2\n", b"series-version = 3\n")
    assert toml != before["base.toml"]
    assert (repository.base / "base.toml").read_bytes() == toml
    assert repository.ok("export", "1.0") == ""
    assert series(repository) == [*stored, "0004-Take-the-ninth-step-right.patch"]
    assert stored.items() <= {path.name: path.read_bytes() for path in repository.patches}.items()
    repository.ok("check")


def test_same_bytes_from_both_trees(repository, tree, full):
    for each in (tree, full):
        (each / FIRST).write_text(changed(12)[FIRST], encoding="utf-8")
        message = ("--message", "Take the twelfth step right\n\nNaïve — but so.")
        user_git("commit", "--quiet", "--all", *message, cwd=each, GIT_AUTHOR_DATE="@1750000000 +0200")
    repository.ok("export", "1.0", "--dir", full)
    from_clone = tree_of(repository.base)
    assert repository.ok("export", "1.0", "--dir", tree) == ""
    assert tree_of(repository.base) == from_clone
    text = repository.patches[3].read_text(encoding="utf-8")
    assert "From: Airflow LocalExecutor patch set <patchset@invalid>\n" in text
    # Neither the clone's attributes nor its own author are in it.
    assert "@@ def step_11():" in text
    assert "Some User" not in text


def test_author_whose_name_is_encoded(repository, tree):
    """However long the header is, none of it stays."""
    repository.commit(tree, "Take the ninth step right", changed(9))
    author = ("--author", f"{'Jürgen ' * 20}<j@invalid>")
    user_git("commit", "--quiet", "--amend", "--no-edit", *author, cwd=tree)
    repository.ok("export", "1.0")
    header = repository.patches[3].read_text(encoding="utf-8").splitlines()[:4]
    assert header[1] == "From: Airflow LocalExecutor patch set <patchset@invalid>"
    assert header[3] == "Subject: [PATCH] Take the ninth step right"


def test_dropped_commit(repository, tree):
    """The files are renumbered, and the comment on top of the series stays."""
    user_git("rebase", "--quiet", "--onto", TAG, f"{BRANCH}~2", BRANCH, cwd=tree)
    repository.ok("export", "1.0")
    assert (repository.base / "series").read_text(encoding="utf-8") == (
        "# The patches of 1.0.\n\n0001-Take-the-seventh-step-right.patch\n0002-Say-what-a-step-is.patch\n"
    )
    assert [path.name for path in repository.patches] == series(repository)


def test_renames(repository, tree):
    """Each path stands for itself, so that check can tell what an sdist must hold."""
    user_git("mv", FIRST, "airflow-core/src/airflow/renamed.py", cwd=tree)
    user_git("commit", "--quiet", "--message", "Rename the first module", cwd=tree)
    repository.ok("export", "1.0")
    assert "rename " not in repository.patches[3].read_text(encoding="utf-8")
    shutil.rmtree(tree)
    repository.ok("checkout", "1.0")
    assert not (tree / FIRST).exists()


# Patches that are the same on several bases


@pytest.fixture
def common(repository, tree):
    """The patch set with its third patch in ``common/``, as one has to name it in ``series``."""
    edit(repository.base / "series", (THIRD, COMMON))
    stored = (repository.base / THIRD).read_bytes()
    repository.ok("export", "1.0")
    assert (repository.base / COMMON).read_bytes() == stored
    assert not (repository.base / THIRD).exists()
    return repository


def test_common_patch(common):
    before = tree_of(common.root / "airflow-core")
    assert series(common)[2] == COMMON
    assert (common.base / "commits").read_text().endswith(f"  {COMMON}\n")
    common.ok("check")
    shutil.rmtree(common.source)
    common.ok("checkout", "1.0")
    assert (common.source / "airflow-core/docs/steps.rst").exists()
    assert common.ok("export", "1.0") == ""
    assert tree_of(common.root / "airflow-core") == before


def test_common_patch_that_another_base_has_changed(common):
    """Both bases have to export the same bytes."""
    other = common.base.with_name("2.0")
    shutil.copytree(common.base, other)
    common.ok("checkout", "2.0")
    tree = common.root / "work" / "2.0" / "source"
    (tree / "airflow-core/docs/steps.rst").write_text("More.\n")
    user_git("commit", "--quiet", "--all", "--amend", "--no-edit", cwd=tree)
    assert "airflow-core/common/Say-what-a-step-is.patch: changed" in common.ok("export", "2.0")
    done = common.run("--quiet", "check", "1.0")
    assert done.stdout.startswith("airflow-core/1.0/commits: does not list the commits")
    common.ok("check", "2.0")


def test_common_patch_that_changes_a_file(common):
    common.commit(
        common.source, "Take the ninth step right", changed(9) | {"airflow-core/tests/test_9.py": ""}
    )
    with (common.base / "series").open("a") as file:
        file.write("../common/Take-the-ninth-step-right.patch\n")
    common.ok("export", "1.0")
    done = common.run("--quiet", "check")
    assert done.stdout == (
        f"airflow-core/common/Take-the-ninth-step-right.patch: changes {FIRST}, "
        "which no common patch creates\n"
    )


def test_common_patch_that_no_series_names(common):
    shutil.copy(common.base / COMMON, common.root / "airflow-core" / "common" / "Old.patch")
    assert common.run("--quiet", "check").stdout == (
        "airflow-core/common/Old.patch: is not listed in any series\n"
    )


# Trees that are not fit to be exported


def refused(repository, *args, directory=None) -> str:
    """Export must fail and leave every file as it was."""
    before = tree_of(repository.base)
    line = repository.fails("export", "1.0", *(["--dir", directory] if directory else []), *args)
    assert tree_of(repository.base) == before
    return line


def test_no_tree(repository, tmp_path):
    assert "make it: scripts/patchset checkout 1.0" in refused(repository)
    for directory in (tmp_path, repository.upstream):
        assert f"has no tag {TAG}; give the tree that checkout made" in refused(
            repository, directory=directory
        )


def test_dirty_tree(repository, tree):
    for name in ("airflow-core/src/airflow/__pycache__/first.pyc", ".pytest_cache/x"):
        (tree / name).parent.mkdir(parents=True)
        (tree / name).write_text("")
    repository.ok("export", "1.0", "--check")
    (tree / "new.py").write_text("# new\n")
    assert "has changes that are not committed: new.py; commit or remove them" in refused(repository)


def test_rebase_in_progress(repository, tree):
    with pytest.raises(AssertionError):
        user_git("rebase", "--exec", "false", TAG, cwd=tree)
    assert f"is not on branch {BRANCH}; git rebase --continue or --abort" in refused(repository)


def test_leftover_fixup(repository, tree):
    user_git("commit", "--quiet", "--allow-empty", "--message", "fixup! Take the third", cwd=tree)
    assert "is left over: fixup! Take the third; git rebase -i --autosquash" in refused(repository)


def test_merge_commit(repository, tree):
    user_git("switch", "--quiet", "--create", "topic", TAG, cwd=tree)
    repository.commit(tree, "Take another step", {"airflow-core/src/airflow/new.py": "x = 1\n"})
    user_git("switch", "--quiet", BRANCH, cwd=tree)
    user_git("merge", "--quiet", "--no-edit", "topic", cwd=tree)
    assert "holds the merge commit" in refused(repository)


def test_empty_commit(repository, tree):
    user_git("commit", "--quiet", "--allow-empty", "--message", "Do nothing", cwd=tree)
    assert "0004-Do-nothing.patch changes nothing; git rebase -i" in refused(repository)


def test_message_that_git_am_cuts_off(repository, tree):
    repository.commit(tree, "Take the ninth step", changed(9), body="Before\n\n---\nAfter\n")
    assert "0004-Take-the-ninth-step.patch does not survive git am" in refused(repository)


def test_file_that_no_sdist_holds(repository, full):
    (full / "airflow-core/docs/guide.rst").write_text("Guide\n")
    user_git("commit", "--quiet", "--all", "--message", "Change the guide", cwd=full)
    assert "airflow-core/docs/guide.rst: does not exist in index" in refused(repository, directory=full)


def test_other_base(repository, tree):
    """The base moved on after the tree was made."""
    edit(repository.base / "base.toml", ("2025-01-01T00:00:00+00:00", "2025-01-02T00:00:00+00:00"))
    assert "does not start from the source that 1.0/base.toml names" in refused(repository)


def test_stopped(repository, tree, tmp_path):
    """Whenever it is stopped, the files are all old or all new."""
    repository.commit(tree, "Take the ninth step right", changed(9))
    before = tree_of(repository.base)
    script = tmp_path / "bin" / "git"
    script.parent.mkdir()
    wait = 'if [ "$1" = format-patch ]; then kill -TERM $PPID; while true; do sleep 0.05; done; fi'
    script.write_text(f'#!/bin/sh\n{wait}\nexec "{shutil.which("git")}" "$@"\n')
    script.chmod(0o755)
    env = repository.env | {"PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}"}
    process = subprocess.Popen(
        repository.command("export", "1.0"), env=env, cwd=repository.root, start_new_session=True
    )
    try:
        assert process.wait(timeout=300) == 128 + signal.SIGTERM
    finally:
        with contextlib.suppress(ProcessLookupError):  # all of it has ended already
            os.killpg(process.pid, signal.SIGKILL)
    assert tree_of(repository.base) == before
    repository.ok("export", "1.0")
