# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from sampleset import CARRIED, tree_of, user_git

import patchsetlib.patches.base
from patchsetlib.patches import source
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.staging import staged

BRANCH = "patchset/1.0"
TAG = "patchset-base/1.0"


def commits(tree: Path) -> list[str]:
    return user_git("rev-list", "--reverse", BRANCH, cwd=tree).split()


def leftovers(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if ".partial-" in path.name]


def test_sdist_tree(repository):
    out = repository.ok("checkout", "1.0")
    tree = repository.source
    assert out.splitlines()[-1] == str(tree)
    assert user_git("status", "--porcelain", cwd=tree) == ""
    assert user_git("symbolic-ref", "--short", "HEAD", cwd=tree) == BRANCH
    assert "return 33" in (tree / "airflow-core/src/airflow/first.py").read_text()
    assert (tree / "airflow-core/tests/unit/test_seventh.py").exists()
    assert not (tree / "airflow-core/PKG-INFO").exists()
    base = user_git("rev-parse", TAG, cwd=tree)
    carried = user_git("ls-tree", "-r", "--name-only", base, cwd=tree).split()
    assert carried == sorted(f"airflow-core/{name}" for name in CARRIED)
    subjects = user_git("log", "--reverse", "--format=%s", f"{TAG}..{BRANCH}", cwd=tree).splitlines()
    assert subjects == [
        "[demo] Take the third step right",
        "Take the seventh step right and say so in the guide",
        "Say in the guide what a step is",
    ]


def test_left_out_by_name(repository):
    said = repository.run("--quiet", "checkout", "1.0").stderr
    guide = "airflow-core/docs/guide.rst"
    assert said.splitlines() == [
        f"warning: 0002-Take-the-seventh-step-right-and-say-so-in-the-guide.patch: left out {guide}, "
        "the sdist does not carry it",
        f"warning: 0003-Say-in-the-guide-what-a-step-is.patch: left out {guide}, the sdist does not carry it",
    ]


def test_empty_series(empty):
    empty.ok("checkout", "1.0")
    assert len(commits(empty.source)) == 1
    empty.ok("export", "1.0")
    empty.ok("check")


def test_same_commits_everywhere(repository, tmp_path):
    repository.ok("checkout", "1.0")
    other = tmp_path / "elsewhere" / "deeper"
    home = tmp_path / "other home"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\nname = Jane\nemail = jane@invalid\n[core]\nautocrlf = true\n")
    env = repository.env | {
        "HOME": str(home),
        "TZ": "Asia/Tokyo",
        "LANG": "de_DE.UTF-8",
        "GIT_AUTHOR_DATE": "@0",
    }
    mask = os.umask(0o077)
    try:
        repository.ok("checkout", "1.0", "--dir", other, env=env)
    finally:
        os.umask(mask)
    assert commits(other) == commits(repository.source)
    listed = [line.split()[0] for line in (repository.base / "commits").read_text().splitlines()]
    assert commits(other)[1:] == listed


def test_ids_that_differ_are_said(repository):
    listed = repository.base / "commits"
    listed.write_text("0" * 40 + listed.read_text()[40:])
    said = repository.run("--quiet", "checkout", "1.0").stderr
    assert "the commit of 0001-demo-Take-the-third-step-right.patch is not the one in" in said


def test_user_can_commit_as_is(repository, tmp_path):
    """A global configuration that signs and converts does not get in the way in an sdist tree."""
    repository.ok("checkout", "1.0")
    home = tmp_path / "signing"
    home.mkdir()
    (home / ".gitconfig").write_text("[commit]\ngpgSign = true\n[user]\nsigningKey = none\n")
    (repository.source / "new").write_text("x")
    for command in ("git add new", "git commit -q -m New"):
        subprocess.run(
            command.split(), cwd=repository.source, env=repository.env | {"HOME": str(home)}, check=True
        )
    assert user_git("log", "-1", "--format=%an <%ae>", cwd=repository.source) == (
        "Airflow LocalExecutor patch set <patchset@invalid>"
    )


def test_nested_repository(repository, tmp_path):
    outer = tmp_path / "outer"
    outer.mkdir()
    user_git("init", "--quiet", cwd=outer)
    (outer / ".gitignore").write_text("*\n")
    repository.ok("checkout", "1.0", "--dir", outer / "a" / "tree")
    assert commits(outer / "a" / "tree") == [
        *commits(outer / "a" / "tree")[:1],
        *[line.split()[0] for line in (repository.base / "commits").read_text().splitlines()],
    ]
    repository.ok("export", "1.0", "--dir", outer / "a" / "tree", "--check")


def test_git_variables_are_ignored(repository, tmp_path):
    """As when the tool is called from a git hook or alias."""
    trap = tmp_path / "trap"
    trap.mkdir()
    user_git("init", "--quiet", cwd=trap)
    env = repository.env | {
        "GIT_DIR": str(trap / ".git"),
        "GIT_WORK_TREE": str(trap),
        "GIT_INDEX_FILE": str(trap / "index"),
        "GIT_OBJECT_DIRECTORY": str(trap / ".git/objects"),
        "GIT_CONFIG_PARAMETERS": "'format.suffix'='.txt'",
    }
    before = tree_of(trap)
    repository.ok("checkout", "1.0", env=env)
    repository.ok("export", "1.0", "--check", env=env)
    assert tree_of(trap) == before


def test_clone(repository):
    clone, tree = repository.upstream, repository.root.parent / "full"
    (clone / "airflow-core/docs/guide.rst").write_text("edited, not committed\n")
    (clone / "untracked").write_text("x")
    configuration = (clone / ".git/config").read_bytes()
    before = user_git("status", "--porcelain=v2", "--branch", cwd=clone)
    repository.ok("checkout", "1.0", "--source", clone, "--dir", tree)
    assert user_git("status", "--porcelain=v2", "--branch", cwd=clone) == before
    assert (clone / ".git/config").read_bytes() == configuration
    assert user_git("rev-parse", TAG, cwd=tree) == user_git("rev-parse", "1.0", cwd=clone)
    assert user_git("symbolic-ref", "--short", "HEAD", cwd=tree) == BRANCH
    assert "What a step is — briefly." in (tree / "airflow-core/docs/guide.rst").read_text(encoding="utf-8")
    assert user_git("status", "--porcelain", cwd=tree) == ""


def test_clone_with_hostile_configuration(repository):
    clone, tree = repository.upstream, repository.root.parent / "full"
    for key, value in {
        "core.autocrlf": "true",
        "core.hooksPath": str(clone / "hooks"),
        "commit.gpgSign": "true",
        "am.threeWay": "true",
        "apply.whitespace": "fix",
        "diff.noprefix": "true",
        "diff.external": "false",
        "format.suffix": ".txt",
        "format.signOff": "true",
        "diff.algorithm": "patience",
    }.items():
        user_git("config", key, value, cwd=clone)
    (clone / "hooks").mkdir()
    for hook in ("applypatch-msg", "pre-applypatch", "post-checkout", "pre-commit"):
        (clone / "hooks" / hook).write_text("#!/bin/sh\nexit 1\n")
        (clone / "hooks" / hook).chmod(0o755)
    repository.ok("checkout", "1.0", "--source", clone, "--dir", tree)
    repository.ok("export", "1.0", "--dir", tree, "--check")


def test_clone_without_the_tag(repository, tmp_path):
    clone = repository.upstream
    user_git("tag", "-d", "1.0", cwd=clone)
    repository.ok("checkout", "1.0", "--source", clone, "--dir", tmp_path / "by-commit")
    other = tmp_path / "other"
    other.mkdir()
    user_git("init", "--quiet", cwd=other)
    line = repository.fails("checkout", "1.0", "--source", other, "--dir", tmp_path / "tree")
    assert "has no tag 1.0; fetch it: git -C" in line
    assert not (tmp_path / "tree").exists()


def test_clone_with_another_tag(repository, tmp_path):
    clone = repository.upstream
    user_git("commit", "--quiet", "--allow-empty", "--message", "Other", cwd=clone)
    user_git("tag", "--force", "1.0", cwd=clone)
    line = repository.fails("checkout", "1.0", "--source", clone, "--dir", tmp_path / "tree")
    assert "not upstream's tag" in line


def test_clone_that_has_the_branch(repository, tmp_path):
    clone = repository.upstream
    user_git("branch", BRANCH, cwd=clone)
    line = repository.fails("checkout", "1.0", "--source", clone, "--dir", tmp_path / "tree")
    assert f"branch {BRANCH} exists" in line
    assert user_git("worktree", "list", cwd=clone).count("\n") == 0
    assert not (tmp_path / "tree").exists()
    assert leftovers(tmp_path) == []


def test_clone_is_clean_after_a_failure(repository, tmp_path):
    break_second(repository)
    clone = repository.upstream
    before = user_git("for-each-ref", cwd=clone)
    line = repository.fails("checkout", "1.0", "--source", clone, "--dir", tmp_path / "a" / "tree")
    assert "0002" in line
    assert user_git("for-each-ref", cwd=clone) == before
    assert user_git("worktree", "list", cwd=clone).count("\n") == 0
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("what", ["missing", "empty directory"])
def test_source_is_no_clone(repository, tmp_path, what):
    path = tmp_path / "nothing"
    if what == "empty directory":
        path.mkdir()
    line = repository.fails("checkout", "1.0", "--source", path, "--dir", tmp_path / "tree")
    assert "is not the root of a git repository" in line


def break_second(repository) -> None:
    path = repository.patches[1]
    path.write_text(
        path.read_text(encoding="utf-8").replace("-    return 7\n", "-    return 8\n"), encoding="utf-8"
    )


def test_patch_that_does_not_apply(repository):
    break_second(repository)
    line = repository.fails("checkout", "1.0")
    assert "0002-Take-the-seventh-step-right-and-say-so-in-the-guide.patch does not apply" in line
    assert "airflow-core/src/airflow/second.py:" in line
    assert "checkout 1.0 --before 0002-" in line
    assert not repository.source.exists()
    assert not repository.source.parent.exists()


def test_before(repository):
    """What the message above tells the user to do."""
    break_second(repository)
    second = repository.patches[1]
    repository.ok("checkout", "1.0", "--before", second.name)
    assert len(commits(repository.source)) == 2
    assert "no patch 'nonsense'" in repository.fails("checkout", "1.0", "--before", "nonsense", code=2)


def test_file_missing_from_src(repository):
    """Only what lies outside src/ may be left out."""
    path = repository.patches[1]
    path.write_text(
        path.read_text(encoding="utf-8").replace("airflow/second.py", "airflow/third.py"), encoding="utf-8"
    )
    line = repository.fails("checkout", "1.0")
    assert "airflow-core/src/airflow/third.py: does not exist in index" in line


def test_unknown_base(repository):
    assert repository.fails("checkout", "9.9", code=2) == "patchset: unknown base '9.9'; bases here: 1.0"


def test_unknown_verb(repository):
    line = repository.fails("chekout", code=2)
    assert "unknown verb 'chekout'; verbs: " in line
    assert "checkout" in line


@pytest.mark.parametrize("kind", ["file", "directory", "empty directory", "dangling link"])
def test_existing_directory(repository, tmp_path, kind):
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("mine")
    elif kind == "dangling link":
        target.symlink_to("nowhere")
    else:
        target.mkdir()
    if kind == "directory":
        (target / "mine").write_text("mine")
    before = tree_of(tmp_path / "target")
    line = repository.fails("checkout", "1.0", "--dir", target)
    assert "target exists; remove it or name another directory with --dir" in line
    assert tree_of(tmp_path / "target") == before


def test_unwritable_place(repository, tmp_path):
    (tmp_path / "file").write_text("")
    line = repository.fails("checkout", "1.0", "--dir", tmp_path / "file" / "below" / "tree")
    assert "cannot write to" in line


def test_unwritable_work(repository, tmp_path):
    (tmp_path / "file").write_text("")
    line = repository.fails(
        "checkout", "1.0", env=repository.env | {"PATCHSET_WORK": str(tmp_path / "file" / "work")}
    )
    assert "set PATCHSET_WORK to a directory you can write to" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_place(repository, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    assert "cannot write to" in repository.fails("checkout", "1.0", "--dir", tmp_path / "locked" / "tree")


def test_hash_mismatch_is_never_used(repository):
    """A damaged download is not trusted, and without an index there is no other."""
    (archive,) = (repository.root / "work" / "downloads").glob("*/*")
    archive.write_bytes(archive.read_bytes()[:-1])
    repository.fails("checkout", "1.0")
    assert not repository.source.exists()


def test_no_git(repository, tmp_path):
    line = repository.fails("checkout", "1.0", env=repository.env | {"PATH": str(tmp_path)})
    assert line == "patchset: git not found; install it, e.g. apt install git"


def test_old_git(repository, tmp_path):
    script = tmp_path / "git"
    script.write_text("#!/bin/sh\necho git version 2.25.1\n")
    script.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    line = repository.fails("checkout", "1.0", env=repository.env | {"PATH": path})
    assert "git 2.32 or newer is needed, this is git version 2.25.1" in line


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


def test_staged_keeps_what_another_run_builds(tmp_path):
    target = tmp_path / "target"
    with pytest.raises(PatchsetError, match="was made by another run meanwhile"), staged(target) as first:
        (first / "first").write_text("")
        with staged(target) as second:
            assert (first / "first").exists()
            (second / "second").write_text("")
    assert [path.name for path in target.iterdir()] == ["second"]
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_staged_leaves_nothing(tmp_path, error):
    with pytest.raises(error), staged(tmp_path / "a" / "b" / "target") as building:
        (building / "file").write_text("")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_member_outside_of_the_sdist(tmp_path):
    """The hash says which archive it is, not that it is harmless."""
    archive = tmp_path / "x.tar.gz"
    for name in ("x-1.0/../../evil", "/evil", "evil"):
        with tarfile.open(archive, "w:gz") as tar:
            tar.addfile(tarfile.TarInfo(name))
        with pytest.raises(PatchsetError, match="unexpected entry"):
            source._unpack(archive, tmp_path / "tree")
    assert not list(tmp_path.parent.rglob("evil"))


@pytest.fixture
def stopping_git(repository, tmp_path):
    """
    Return a way to start a checkout that stays inside its first git call that begins with a given word.

    A git in front of the real one does the call and then waits: the moment is exact, not a matter of luck.
    """

    def start(word: str, *args: str | Path) -> subprocess.Popen:
        real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
        directory = tmp_path / "bin"
        directory.mkdir()
        script = directory / "git"
        reached, go = tmp_path / "reached", tmp_path / "never"
        script.write_text(
            f'#!/bin/sh\nif [ "$1" = "{word}" ] && [ ! -e "{reached}" ]; then\n'
            f'"{real}" "$@"; echo > "{reached}"; '
            f'while [ ! -e "{go}" ]; do sleep 0.05; done; fi\nexec "{real}" "$@"\n'
        )
        script.chmod(0o755)
        env = repository.env | {"PATH": f"{directory}{os.pathsep}{os.environ['PATH']}"}
        process = subprocess.Popen(
            repository.command("checkout", "1.0", *args),
            env=env,
            cwd=repository.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 30
        while not reached.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return process

    return start


@pytest.mark.parametrize("word", ["init", "add", "commit", "am"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped(repository, stopping_git, word, number):
    process = stopping_git(word)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert said.splitlines()[-1] == "patchset: stopped"
    assert not (repository.root / "work" / "1.0").exists()


@pytest.mark.parametrize("word", ["init", "am"])
def test_killed(repository, stopping_git, word):
    process = stopping_git(word)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert not repository.source.exists()
    repository.ok("checkout", "1.0")
    assert leftovers(repository.source.parent) == []


@pytest.mark.parametrize("word", ["worktree", "am", "switch", "tag"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_with_clone(repository, stopping_git, word, number):
    clone, tree = repository.upstream, repository.root.parent / "full"
    before = user_git("for-each-ref", cwd=clone)
    process = stopping_git(word, "--source", clone, "--dir", tree)
    os.killpg(process.pid, number)
    process.communicate(timeout=30)
    assert not tree.exists()
    if number == signal.SIGINT:
        assert user_git("for-each-ref", cwd=clone) == before
        assert user_git("worktree", "list", cwd=clone).count("\n") == 0
        assert leftovers(tree.parent) == []
    repository.ok("checkout", "1.0", "--source", clone, "--dir", tree)
    assert leftovers(tree.parent) == []
    assert user_git("worktree", "list", cwd=clone).count("\n") == 1
