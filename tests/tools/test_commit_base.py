# SPDX-License-Identifier: Apache-2.0
"""A base that is a commit of upstream's: no sdist, trees from clones, and what codemods do is not stored."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import samplecommit
from samplecommit import BULK, FIRST, GUIDE, NAME, NEW_TEST, OLD_TEST, REWRITTEN
from sampleset import tree_of, user_git

BRANCH = f"patchset/{NAME}"
TAG = f"patchset-base/{NAME}"


@pytest.fixture
def repository(commit_base):
    return commit_base


def directory(repository) -> Path:
    return repository.root / "airflow-core" / NAME


def patches(repository) -> list[Path]:
    return sorted(directory(repository).glob("*.patch"))


@pytest.fixture
def full(repository):
    """A worktree of the full clone with the series."""
    tree = repository.root.parent / "full"
    repository.ok("checkout", NAME, "--source", repository.upstream, "--dir", tree)
    return tree


def test_first_export_leaves_out_what_the_codemod_does(repository):
    text = patches(repository)[0].read_text(encoding="utf-8")
    assert BULK not in text
    assert "+    assert 2\n" in text
    assert "assert True" not in text.replace("+def test_third():\n+    assert True\n", "")
    assert "Codemod: say-one airflow-core/tests airflow-core/nowhere\n" in text


def test_checkout_puts_it_into_the_commit(repository, full):
    first = user_git("rev-parse", f"{BRANCH}~1", cwd=full)
    assert user_git("rev-parse", f"{first}^", cwd=full) == user_git("rev-parse", TAG, cwd=full)
    assert (full / OLD_TEST).read_text(encoding="utf-8") == f"{REWRITTEN}    assert 2\n"
    assert "True" not in (full / BULK).read_text(encoding="utf-8")
    # The codemod is about what was there before the patch.
    assert (full / NEW_TEST).read_text(encoding="utf-8") == "def test_third():\n    assert True\n"
    assert "What a step is." in (full / GUIDE).read_text(encoding="utf-8")
    assert user_git("status", "--porcelain", cwd=full) == ""
    ids = user_git("rev-list", "--reverse", f"{TAG}..{BRANCH}", cwd=full).split()
    listed = (directory(repository) / "commits").read_text(encoding="utf-8").splitlines()
    assert [line.split()[0] for line in listed] == ids
    assert user_git("log", "-1", "--format=%an <%ae> %at %ct", first, cwd=full).startswith(
        "Airflow LocalExecutor patch set <patchset@invalid> "
    )
    date, committed = user_git("log", "-1", "--format=%at %ct", first, cwd=full).split()
    assert date == committed


def test_round_trip(repository, full):
    before = tree_of(directory(repository))
    assert repository.ok("export", NAME, "--dir", full) == ""
    assert tree_of(directory(repository)) == before
    done = repository.run("--quiet", "check", NAME, "--source", full)
    assert (done.returncode, done.stdout) == (0, "")
    assert "applying the patches skipped" not in done.stderr


def test_edited_commit(repository, full):
    """A file of which the codemod did all, with a line more."""
    (full / BULK).write_text((full / BULK).read_text(encoding="utf-8") + "# more\n", encoding="utf-8")
    user_git("commit", "--quiet", "--all", "--fixup", f"{BRANCH}~1", cwd=full)
    user_git("rebase", "--quiet", "--autosquash", "-i", TAG, cwd=full, GIT_SEQUENCE_EDITOR="true")
    out = repository.ok("export", NAME, "--dir", full)
    assert f"airflow-core/{NAME}/{patches(repository)[0].name}: changed" in out
    added = [
        line for line in patches(repository)[0].read_text(encoding="utf-8").splitlines() if "# more" in line
    ]
    assert added == ["+# more"]
    repository.ok("check", NAME, "--source", full)


def test_codemod_runs_once(repository, full):
    """What it made of a file is kept, until the file or the codemod is another."""
    assert "running the codemod" not in repository.run("export", NAME, "--dir", full).stderr
    program = repository.root / "scripts/codemods/say_one.py"
    program.write_text(samplecommit.CODEMOD + "# other\n", encoding="utf-8")
    said = repository.run("export", NAME, "--dir", full).stderr
    assert "running the codemod say-one over 2 files" in said


def test_user_repository_is_left_alone(repository, full):
    (full / "untracked.pyc").write_text("")
    git_directory = Path(user_git("rev-parse", "--absolute-git-dir", cwd=full))
    before, index = user_git("for-each-ref", cwd=full), (git_directory / "index").read_bytes()
    files = tree_of(full)
    (full / "untracked.pyc").unlink()
    del files["untracked.pyc"]
    repository.ok("export", NAME, "--dir", full)
    repository.ok("check", NAME, "--source", full)
    assert user_git("for-each-ref", cwd=full) == before
    assert (git_directory / "index").read_bytes() == index
    assert tree_of(full) == files
    assert user_git("worktree", "list", cwd=repository.upstream).count("\n") == 1


def test_stale_patch_is_found(repository, full):
    """One that stores what the codemod does: it applies, but is not what export writes."""
    bulk = (full / BULK).read_text(encoding="utf-8")
    (repository.root / "scripts/codemods/say_one.py").write_text("def rewrite(paths):\n    pass\n")
    repository.ok("export", NAME, "--dir", full)
    assert BULK in patches(repository)[0].read_text(encoding="utf-8")
    (repository.root / "scripts/codemods/say_one.py").write_text(samplecommit.CODEMOD)
    done = repository.run("--quiet", "check", NAME, "--source", full)
    assert done.returncode == 1
    assert "0001-Take-the-third-step-right.patch" in done.stdout
    assert "assert 1" in bulk


def test_check_without_a_clone(repository):
    done = repository.run("--quiet", "check", NAME)
    assert done.returncode == 0
    assert (
        f"warning: {NAME}: applying the patches skipped: no clone of {repository.upstream.as_uri()}; "
        "give --source CLONE\n"
    ) in done.stderr
    path = patches(repository)[0]
    path.write_text(path.read_text(encoding="utf-8").replace("Forwarded: no\n", ""), encoding="utf-8")
    done = repository.run("--quiet", "check", NAME)
    assert "no trailer 'Forwarded: no'" in done.stdout
    assert done.returncode == 1


def test_check_finds_a_wrong_commit_id(repository):
    listed = directory(repository) / "commits"
    listed.write_text("0" * 40 + listed.read_text(encoding="utf-8")[40:], encoding="utf-8")
    done = repository.run("--quiet", "check", NAME, "--source", repository.upstream)
    assert f"airflow-core/{NAME}/commits: does not list the commits" in done.stdout


@pytest.mark.parametrize(
    ("trailer", "problem"),
    [
        ("Codemod: say-one ../elsewhere\n", "is not a name followed by paths of the monorepo"),
        ("Codemod: say-two airflow-core/tests\n", "names a codemod that scripts/codemods does not have"),
    ],
)
def test_trailer_that_is_wrong(repository, trailer, problem):
    path = patches(repository)[0]
    text = path.read_text(encoding="utf-8").replace(samplecommit.TRAILER, trailer)
    path.write_text(text, encoding="utf-8")
    assert problem in repository.run("--quiet", "check", NAME).stdout
    target = repository.root.parent / "tree"
    line = repository.fails("checkout", NAME, "--source", repository.upstream, "--dir", target)
    assert problem in line
    assert not target.exists()


def test_patch_that_does_not_apply(repository):
    path = patches(repository)[0]
    text = path.read_text(encoding="utf-8").replace("-    return 3\n", "-    return 8\n")
    path.write_text(text, encoding="utf-8")
    before = user_git("for-each-ref", cwd=repository.upstream)
    line = repository.fails("checkout", NAME, "--source", repository.upstream, "--dir", repository.root / "x")
    assert f"0001-Take-the-third-step-right.patch does not apply: {FIRST}" in line
    assert user_git("for-each-ref", cwd=repository.upstream) == before
    assert not (repository.root / "x").exists()


def test_codemod_on_a_tree_without_its_paths(repository):
    """The same trailer in a series for a release: the sdist has no tests that could be rewritten."""
    release = repository.base
    text = patches(repository)[0].read_text(encoding="utf-8")
    (release / patches(repository)[0].name).write_text(text, encoding="utf-8")
    (release / "series").write_text(f"{patches(repository)[0].name}\n", encoding="utf-8")
    done = repository.run("--quiet", "checkout", "1.0")
    assert done.returncode == 0
    assert f"left out {OLD_TEST}, the sdist does not carry it" in done.stderr
    assert "return 33" in (repository.source / FIRST).read_text(encoding="utf-8")
    repository.ok("export", "1.0")
    assert (release / patches(repository)[0].name).read_text(encoding="utf-8") == text


def test_checkout_without_a_clone_makes_a_partial_one(repository):
    user_git("config", "uploadpack.allowFilter", "true", cwd=repository.upstream)
    user_git("commit", "--quiet", "--allow-empty", "--message", "Later", cwd=repository.upstream)
    out = repository.ok("checkout", NAME)
    tree = repository.root / "work" / NAME / "source"
    assert out.splitlines()[-1] == str(tree)
    assert (tree / BULK).exists()
    assert repository.ok("export", NAME) == ""
    (clone,) = (repository.root / "work" / "clones").iterdir()
    assert user_git("config", "remote.origin.partialclonefilter", cwd=clone) == "blob:none"
    assert user_git("rev-list", "--count", TAG, cwd=clone) == "1"
    # Whatever is made of it now needs no network.
    repository.upstream.rename(repository.upstream.with_name("gone"))
    line = repository.fails("checkout", NAME, "--dir", repository.root / "second")
    assert f"branch {BRANCH} exists" in line
    shutil.rmtree(tree)
    repository.ok("checkout", NAME)
    assert repository.ok("export", NAME) == ""
    done = repository.run("--quiet", "check", NAME)
    assert (done.returncode, done.stdout) == (0, "")
    assert "applying the patches skipped" not in done.stderr


def test_checkout_without_a_clone_and_without_a_network(repository):
    repository.upstream.rename(repository.upstream.with_name("gone"))
    line = repository.fails("checkout", NAME)
    assert f"cannot fetch {user_commit(repository)} from file://" in line
    assert "check the network, or give --source CLONE" in line
    assert not (repository.root / "work" / NAME).exists()
    assert not (repository.root / "work" / "clones").exists()


def user_commit(repository) -> str:
    return (directory(repository) / "base.toml").read_text(encoding="utf-8").split('commit = "')[1][:40]


def test_clone_without_the_commit(repository, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    user_git("init", "--quiet", cwd=other)
    for verb in (("checkout", NAME, "--dir", tmp_path / "tree"), ("check", NAME)):
        line = repository.fails(*verb, "--source", other)
        assert f"has no commit {user_commit(repository)[:12]}; fetch it: git -C" in line


def test_what_needs_a_release(repository):
    for command in (("python",), ("run", "--", "true"), ("demo",), ("bench", "memory"), ("constraints",)):
        words = [*command[:1], NAME, *command[1:]] if command[0] != "bench" else [*command, NAME]
        line = repository.fails(*words)
        assert f"the base {NAME} is a commit of upstream, which has no sdist and no wheel; " in line


def test_status(repository):
    lines = [line.split("\t") for line in repository.ok("status", NAME).splitlines()]
    assert [line[:3] for line in lines] == [
        [NAME, "1", "Take the third step right"],
        [NAME, "2", "Say in the guide what a step is"],
    ]


def test_tip_that_is_none(repository, full):
    before = tree_of(directory(repository))
    line = repository.fails("export", NAME, "--dir", full, "--tip", "nonsense")
    assert "has no commit nonsense; give the last commit" in line
    line = repository.fails("export", NAME, "--dir", full, "--tip", "HEAD~3")
    assert f"HEAD~3 in {full.name}" in line.replace("../", "")
    assert f"does not start from {TAG}" in line
    assert tree_of(directory(repository)) == before


def test_base_lacks_an_entry(repository):
    path = directory(repository) / "base.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("commit", "committed"), encoding="utf-8")
    assert "base.toml: no entry 'commit'" in repository.fails("check", NAME)
