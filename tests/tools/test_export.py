# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest
from sampleset import MODULE, tree_of, user_git

FIRST = "airflow-core/src/airflow/first.py"
TEST = "airflow-core/tests/unit/test_more.py"
BRANCH = "patchset/1.0"
TAG = "patchset-base/1.0"


def series(repository) -> list[str]:
    lines = (repository.base / "series").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


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
    repository.ok(
        "checkout", "1.0", "--source", repository.upstream, "--dir", repository.root.parent / "full"
    )
    return repository.root.parent / "full"


HOSTILE = """\
[user]
    name = Jane
    email = jane@invalid
[format]
    suffix = .txt
    signOff = true
    attach = true
    numbered = true
    subjectPrefix = AIRFLOW
    thread = true
    to = list@invalid
    from = true
    noprefix = true
    outputDirectory = elsewhere
    coverLetter = true
    useAutoBase = true
    signature = Jane
    notes = true
[diff]
    noprefix = true
    mnemonicPrefix = true
    context = 7
    interHunkContext = 4
    algorithm = patience
    indentHeuristic = false
    renames = copies
    external = false
    relative = true
    color = always
    statGraphWidth = 5
[color]
    ui = always
[core]
    autocrlf = true
    abbrev = 40
    quotePath = true
    hooksPath = {home}/hooks
    attributesFile = {home}/attributes
    fsmonitor = {home}/hooks/fail
    whitespace = -trailing-space
    pager = false
    commentChar = "@"
[commit]
    gpgSign = true
    template = {home}/template
    verbose = true
    cleanup = verbatim
[gpg]
    program = false
[am]
    threeWay = true
    keepcr = false
[apply]
    whitespace = fix
    ignoreWhitespace = change
[mailinfo]
    scissors = true
[i18n]
    commitEncoding = ISO-8859-1
    logOutputEncoding = ISO-8859-1
[init]
    defaultBranch = trunk
    templateDir = {home}/template-directory
[log]
    showSignature = true
    date = relative
[trailer]
    separators = "="
[diff "python"]
    xfuncname = "^never$"
    command = false
    textconv = false
[alias]
    am = !false
"""


@pytest.fixture
def hostile(repository, tmp_path) -> dict[str, str]:
    """The environment of a user whose git is set up to be as different as possible."""
    home = tmp_path / "hostile"
    xdg = home / "xdg" / "git"
    hooks = home / "hooks"
    hooks.mkdir(parents=True)
    xdg.mkdir(parents=True)
    for name in ("applypatch-msg", "pre-commit", "post-commit", "commit-msg", "post-checkout", "fail"):
        (hooks / name).write_text(f'#!/bin/sh\ntouch "{home}/hook-ran"\nexit 1\n')
        (hooks / name).chmod(0o755)
    shutil.copytree(hooks, home / "template-directory" / "hooks")
    (home / "template").write_text("template\n")
    (home / ".gitconfig").write_text(HOSTILE.format(home=home), encoding="utf-8")
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


def test_round_trip_sdist(repository, tree):
    before = tree_of(repository.base)
    assert repository.ok("export", "1.0") == ""
    assert tree_of(repository.base) == before


def test_round_trip_clone(repository, full):
    before = tree_of(repository.base)
    assert repository.ok("export", "1.0", "--dir", full) == ""
    assert tree_of(repository.base) == before


@pytest.mark.parametrize("kind", ["sdist", "clone"])
def test_round_trip_under_hostile_settings(repository, hostile, tmp_path, kind):
    target = repository.root.parent / "tree"
    source = ["--source", str(repository.upstream)] if kind == "clone" else []
    before = tree_of(repository.base)
    repository.ok("checkout", "1.0", "--dir", target, *source, env=hostile)
    for path in repository.patches:
        path.unlink()
    # What the series says of left-out parts is gone too, so only a full tree can write all of it again.
    if kind == "sdist":
        for name, content in before.items():
            (repository.base / name).write_bytes(content)
    repository.ok("export", "1.0", "--dir", target, env=hostile)
    assert tree_of(repository.base) == before
    repository.ok("check", env=hostile)
    assert not (tmp_path / "hostile" / "hook-ran").exists()


def test_edit_in_sdist_tree(repository, tree):
    """A commit changed in an sdist tree; those with left-out parts stay as they are."""
    stored = {path.name: path.read_bytes() for path in repository.patches}
    repository.commit(tree, "Take the ninth step right", {FIRST: _changed(tree, FIRST, 9), TEST: "x = 1\n"})
    out = repository.ok("export", "1.0")
    assert out.splitlines() == [
        "airflow-core/1.0/0004-Take-the-ninth-step-right.patch: new",
        "airflow-core/1.0/commits: changed",
        "airflow-core/1.0/series: changed",
    ]
    assert series(repository) == [*stored, "0004-Take-the-ninth-step-right.patch"]
    assert stored.items() <= {path.name: path.read_bytes() for path in repository.patches}.items()
    repository.ok("check")


def _changed(tree, file: str, step: int) -> str:
    text = (tree / file).read_text(encoding="utf-8")
    return text.replace(f"return {step}\n", f"return {step}{step}\n")


def test_same_bytes_from_both_trees(repository, tree, full):
    for each in (tree, full):
        date = {"GIT_AUTHOR_DATE": "@1750000000 +0200"}
        (each / FIRST).write_text(_changed(each, FIRST, 12), encoding="utf-8")
        user_git(
            "commit",
            "--quiet",
            "--all",
            "--message",
            "Take the twelfth step right\n\nNaïve — but so.",
            cwd=each,
            **date,
        )
    repository.ok("export", "1.0", "--dir", full)
    from_clone = tree_of(repository.base)
    assert repository.ok("export", "1.0", "--dir", tree) == ""
    assert tree_of(repository.base) == from_clone
    text = repository.patches[3].read_text(encoding="utf-8")
    assert "From: Airflow LocalExecutor patch set <patchset@invalid>\n" in text
    # Neither the clone's attributes nor its own author are in it.
    assert "@@ def step_11():" in text
    assert "Some User" not in text


def test_comments_of_series(repository, full):
    path = repository.base / "series"
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace("0001-", "# first\n\n# more on the first\n0001-").replace(
            "0002-Take-the-seventh-step-right-and-say-so-in-the-guide.patch",
            "# second\n0002-Take-the-seventh-step-right-and-say-so-in-the-guide.patch  # beside",
        )
        + "# end\n",
        encoding="utf-8",
    )
    user_git("rebase", "--quiet", "--onto", TAG, f"{BRANCH}~2", BRANCH, cwd=full)
    repository.ok("export", "1.0", "--dir", full)
    assert path.read_text(encoding="utf-8") == (
        "# The patches of 1.0.\n\n"
        "# second\n0001-Take-the-seventh-step-right-and-say-so-in-the-guide.patch  # beside\n"
        "0002-Say-in-the-guide-what-a-step-is.patch\n"
        "# end\n"
    )
    assert [path.name for path in repository.patches] == series_names(path)


def series_names(path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [entry for line in lines if (entry := line.split("#")[0].strip())]


def test_dry_run_writes_nothing(repository, tree):
    repository.commit(tree, "Take the ninth step right", {FIRST: _changed(tree, FIRST, 9)})
    before = tree_of(repository.base)
    done = repository.run("export", "1.0", "--dry-run")
    assert done.returncode == 1
    assert "0004-Take-the-ninth-step-right.patch: new" in done.stdout
    assert tree_of(repository.base) == before


def refused(repository, *args, directory=None) -> str:
    """Export must fail and leave every file as it was."""
    before = tree_of(repository.base)
    line = repository.fails("export", "1.0", *(["--dir", directory] if directory else []), *args)
    assert tree_of(repository.base) == before
    return line


def test_no_tree(repository):
    assert "make it: scripts/patchset checkout 1.0" in refused(repository)


def test_not_a_tree(repository, tmp_path):
    assert "is not the root of a git repository" in refused(repository, directory=tmp_path)
    assert f"has no tag {TAG}" in refused(repository, directory=repository.upstream)


@pytest.mark.parametrize("kind", ["changed", "staged", "untracked"])
def test_dirty_tree(repository, tree, kind):
    (tree / ("new.py" if kind == "untracked" else FIRST)).write_text("# new\n")
    if kind == "staged":
        user_git("add", "--all", cwd=tree)
    name = "new.py" if kind == "untracked" else FIRST
    line = refused(repository)
    assert f"has changes that are not committed: {name}; commit or remove them" in line


def test_what_test_runs_leave_is_not_dirt(repository, tree):
    for name in ("airflow-core/src/airflow/__pycache__/first.pyc", ".pytest_cache/x", ".ruff_cache/y"):
        (tree / name).parent.mkdir(parents=True)
        (tree / name).write_text("")
    repository.ok("export", "1.0", "--check")


def test_other_branch(repository, tree):
    user_git("switch", "--quiet", "--create", "topic", cwd=tree)
    assert f"is not on branch {BRANCH}" in refused(repository)
    user_git("switch", "--quiet", "--detach", BRANCH, cwd=tree)
    assert f"is not on branch {BRANCH}" in refused(repository)


def test_rebase_in_progress(repository, tree):
    with pytest.raises(AssertionError):
        user_git("rebase", "--exec", "false", TAG, cwd=tree)
    assert "a rebase is in progress" in refused(repository)


@pytest.mark.parametrize("mark", ["fixup", "squash", "amend"])
def test_leftover_fixup(repository, tree, mark):
    user_git("commit", "--quiet", "--allow-empty", "--message", f"{mark}! Take the third", cwd=tree)
    assert f"is left over: {mark}! Take the third" in refused(repository)


def test_merge_commit(repository, tree):
    user_git("switch", "--quiet", "--create", "topic", TAG, cwd=tree)
    repository.commit(tree, "Take another step", {"airflow-core/src/airflow/new.py": "x = 1\n"})
    user_git("switch", "--quiet", BRANCH, cwd=tree)
    user_git("merge", "--quiet", "--no-edit", "topic", cwd=tree)
    assert "holds the merge commit" in refused(repository)


def test_empty_commit(repository, tree):
    user_git("commit", "--quiet", "--allow-empty", "--message", "Do nothing", cwd=tree)
    assert "0004-Do-nothing.patch is an empty commit" in refused(repository)


def test_commit_without_message(repository, tree):
    user_git("commit", "--quiet", "--allow-empty", "--allow-empty-message", "--message", "", cwd=tree)
    assert "has no subject" in refused(repository)


def test_message_that_git_am_cuts_off(repository, tree):
    repository.commit(
        tree, "Take the ninth step", {FIRST: _changed(tree, FIRST, 9)}, body="Before\n\n---\nAfter\n"
    )
    assert "0004-Take-the-ninth-step.patch does not survive git am" in refused(repository)


def test_other_base(repository, tree):
    """The base moved on after the tree was made."""
    path = repository.base / "base.toml"
    path.write_text(path.read_text().replace("2025-01-01T00:00:00+00:00", "2025-01-02T00:00:00+00:00"))
    line = refused(repository)
    assert "does not start from the source that 1.0/base.toml names" in line


def test_changed_commit_with_left_out_part(repository, tree):
    user_git("reset", "--quiet", "--hard", f"{BRANCH}~1", cwd=tree)
    (tree / "airflow-core/src/airflow/second.py").write_text(MODULE.replace("return 7\n", "return 777\n"))
    user_git("commit", "--quiet", "--all", "--amend", "--no-edit", cwd=tree)
    line = refused(repository)
    assert "0002-Take-the-seventh-step-right-and-say-so-in-the-guide.patch was changed" in line
    assert "this tree lacks its airflow-core/docs/guide.rst" in line
    assert "scripts/patchset checkout 1.0 --source CLONE" in line


def test_dropped_commit_with_left_out_part(repository, tree):
    user_git("reset", "--quiet", "--hard", f"{BRANCH}~1", cwd=tree)
    assert "the patch 'Say in the guide what a step is' was dropped or renamed" in refused(repository)


def test_left_out_part_whose_file_is_gone(repository, tree):
    """Only the stored patch had the left-out part; the tree remembers that there was one."""
    repository.patches[2].unlink()
    (repository.base / "series").write_text("".join(f"{name}\n" for name in series(repository)[:2]))
    assert "'Say in the guide what a step is'" in refused(repository) or "0003-Say-in" in refused(repository)


def test_renumbered_commit_with_left_out_part(repository, tree):
    """Its stored file is kept byte for byte, under its new number."""
    stored = {path.name[5:]: path.read_bytes() for path in repository.patches}
    user_git("rebase", "--quiet", "--onto", TAG, f"{BRANCH}~2", BRANCH, cwd=tree)
    repository.ok("export", "1.0")
    assert series(repository) == [
        "0001-Take-the-seventh-step-right-and-say-so-in-the-guide.patch",
        "0002-Say-in-the-guide-what-a-step-is.patch",
    ]
    for path in repository.patches:
        assert path.read_bytes() == stored[path.name[5:]]


def test_stopped_while_exporting(repository, tree, tmp_path):
    """Whenever it is stopped, the files are all old or all new."""
    repository.commit(tree, "Take the ninth step right", {FIRST: _changed(tree, FIRST, 9)})
    before = tree_of(repository.base)
    real = shutil.which("git")
    script = tmp_path / "bin" / "git"
    script.parent.mkdir()
    script.write_text(
        f'#!/bin/sh\n[ "$1" = format-patch ] && kill -TERM $PPID && sleep 1\nexec "{real}" "$@"\n'
    )
    script.chmod(0o755)
    env = repository.env | {"PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        repository.command("export", "1.0"), env=env, cwd=repository.root, capture_output=True, text=True
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert tree_of(repository.base) == before
    repository.ok("export", "1.0")


def test_hand_edited_message(repository):
    """A message edited in the patch file becomes the commit's; export then only puts the rest in order."""
    path = repository.patches[0]
    path.write_text(
        path.read_text(encoding="utf-8").replace("Take the third step", "Take the 3rd step"), encoding="utf-8"
    )
    repository.ok("checkout", "1.0")
    repository.ok("export", "1.0")
    assert series(repository)[0] == "0001-demo-Take-the-3rd-step-right.patch"
    assert not path.exists()
    letter = repository.base / "cover-letter.md"
    letter.write_text(letter.read_text(encoding="utf-8").replace("third step", "3rd step"), encoding="utf-8")
    repository.ok("check")


def test_renames(repository, full):
    """Each path stands for itself, so that an sdist tree can do its part of a rename."""
    user_git("mv", "airflow-core/docs/guide.rst", "airflow-core/docs/manual.rst", cwd=full)
    user_git("mv", FIRST, "airflow-core/src/airflow/renamed.py", cwd=full)
    user_git("commit", "--quiet", "--message", "Rename the guide and the first module", cwd=full)
    repository.ok("export", "1.0", "--dir", full)
    assert "rename " not in repository.patches[3].read_text(encoding="utf-8")
    said = repository.run("--quiet", "checkout", "1.0")
    assert said.returncode == 0
    assert (
        "0004-Rename-the-guide-and-the-first-module.patch: left out airflow-core/docs/guide.rst"
        in said.stderr
    )
    assert (repository.source / "airflow-core/docs/manual.rst").exists()
    assert not (repository.source / FIRST).exists()
