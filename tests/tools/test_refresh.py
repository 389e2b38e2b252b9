# SPDX-License-Identifier: Apache-2.0
"""A series moved to another commit or release by git rebase, with git's own way on and back at a conflict."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import sampleset
from samplecommit import FIRST, GUIDE, NAME, ONE, TWO
from sampleset import CARRIED, MODULE, tree_of, user_git


@pytest.fixture
def repository(commit_base):
    return commit_base


def upstream(repository, files: dict[str, str]) -> str:
    """Commit ``files`` to upstream and return the commit."""
    repository.commit(repository.upstream, "Go on", files)
    return user_git("rev-parse", "HEAD", cwd=repository.upstream)


# What the first patch changes is three lines above, so that it applies only if it is merged.
NEARBY = MODULE.replace("def step_4", "import os\n\n\ndef step_4")


def tree_of_refresh(repository, base: str = NAME) -> Path:
    return repository.root / "work" / base / "refresh"


def arguments(repository, onto: str, *more, base: str = NAME) -> tuple:
    return ("refresh", base, "--onto", onto, "--source", repository.upstream, *more)


def test_trial(repository):
    onto = upstream(repository, {FIRST: NEARBY})
    before = tree_of(repository.root / "airflow-core")
    done = repository.run(*arguments(repository, "HEAD"))
    assert done.returncode == 0, done.stderr
    tree = tree_of_refresh(repository)
    assert done.stdout.splitlines()[-1] == str(tree)
    branch = f"patchset/{NAME}-onto-{onto[:12]}"
    assert user_git("symbolic-ref", "--short", "HEAD", cwd=tree) == branch
    assert (tree / FIRST).read_text(encoding="utf-8") == NEARBY.replace("return 3\n", "return 33\n")
    # The range-diff, in its own format, and the command that moved it.
    listed = re.findall(r"^(\d):  [0-9a-f]+ ([=!]) (\d):  [0-9a-f]+ (.*)$", done.stdout, re.MULTILINE)
    assert listed == [
        ("1", "!", "1", "Take the third step right"),
        ("2", "=", "2", "Say in the guide what a step is"),
    ]
    assert f"rebase --strategy-option=no-renames --onto patchset-base/{NAME}-onto-{onto[:12]} " in done.stderr
    assert tree_of(repository.root / "airflow-core") == before


def test_new_base(repository):
    onto = upstream(
        repository, {FIRST: NEARBY, "airflow-core/pyproject.toml": '[project]\nversion = "1.2"\n'}
    )
    repository.ok(*arguments(repository, onto, "--as", "main-2"))
    new = repository.root / "airflow-core" / "main-2"
    toml = (new / "base.toml").read_text(encoding="utf-8")
    assert (
        f'version = "1.2"\n\n[git]\nrepository = "{repository.upstream.as_uri()}"\ncommit = "{onto}"' in toml
    )
    tree = tree_of_refresh(repository)
    repository.ok("export", "main-2", "--dir", tree)
    assert [path.name for path in sorted(new.glob("*.patch"))] == [ONE, TWO]
    done = repository.run("--quiet", "check", "main-2", "--source", repository.upstream)
    assert (done.returncode, done.stdout) == (0, "")
    line = repository.fails(*arguments(repository, "HEAD~1", "--as", "main-2"))
    assert f"the base main-2 exists, for {onto}, not for " in line


def test_conflict(repository):
    """It waits in the tree; git leads on, and export writes the result."""
    upstream(repository, {GUIDE: "Guide\n=====\n\nHow it works tomorrow.\n"})
    before = tree_of(repository.root / "airflow-core" / NAME)
    done = repository.run(*arguments(repository, "HEAD", "--as", "main-2"))
    assert done.returncode == 1
    assert f"CONFLICT (content): Merge conflict in {GUIDE}" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert (
        f"patchset: git rebase has stopped in work/{NAME}/refresh; resolve there, git add, git rebase" in last
    )
    assert last.endswith(f"scripts/patchset export main-2 --dir work/{NAME}/refresh")
    tree = tree_of_refresh(repository)
    assert "is not on branch" in repository.fails("export", "main-2", "--dir", tree)
    (tree / GUIDE).write_text("Guide\n=====\n\nWhat a step is, tomorrow.\n", encoding="utf-8")
    user_git("add", GUIDE, cwd=tree)
    user_git("rebase", "--continue", cwd=tree, GIT_EDITOR="true")
    repository.ok("export", "main-2", "--dir", tree)
    patch = repository.root / "airflow-core" / "main-2" / TWO
    assert "\n+What a step is, tomorrow.\n" in patch.read_text(encoding="utf-8")
    assert "Some User" not in patch.read_text(encoding="utf-8")
    repository.ok("check", "main-2", "--source", repository.upstream)
    assert tree_of(repository.root / "airflow-core" / NAME) == before


def test_abort(repository):
    upstream(repository, {GUIDE: "Guide\n=====\n\nHow it works tomorrow.\n"})
    assert repository.run(*arguments(repository, "HEAD")).returncode == 1
    tree = tree_of_refresh(repository)
    user_git("rebase", "--abort", cwd=tree)
    assert "What a step is." in (tree / GUIDE).read_text(encoding="utf-8")
    line = repository.fails(*arguments(repository, "HEAD"))
    assert "already exists; if branch patchset/" in line


def test_patch_that_upstream_has(repository):
    onto = upstream(repository, {GUIDE: "Guide\n=====\n\nWhat a step is.\n"})
    done = repository.run(*arguments(repository, onto))
    assert "dropping" in done.stderr
    assert "patch contents already upstream" in done.stderr
    assert user_git("log", "--format=%s", f"{onto}..", cwd=tree_of_refresh(repository)) == (
        "Take the third step right"
    )


@pytest.fixture
def release(repository):
    """The same, with a patch for the release."""
    repository.ok("checkout", "1.0")
    files = {
        FIRST: MODULE.replace("return 3\n", "return 33\n"),
        "airflow-core/tests/unit/test_3.py": "x = 1\n",
    }
    repository.commit(repository.source, "Take the third step right", files)
    repository.ok("export", "1.0")
    return repository


def test_from_an_sdist_to_a_clone_without_its_commit(release):
    """There is no common history: what the sdist holds is merged by content."""
    shutil.rmtree(release.upstream / ".git")
    user_git("init", "--quiet", cwd=release.upstream)
    onto = upstream(release, {FIRST: NEARBY})
    release.ok(*arguments(release, onto, base="1.0"))
    tree = tree_of_refresh(release, "1.0")
    assert (tree / FIRST).read_text(encoding="utf-8") == NEARBY.replace("return 3\n", "return 33\n")
    assert (tree / GUIDE).exists()


def test_from_a_release_to_another(release):
    new = release.base.with_name("2.0")
    new.mkdir()
    toml = (release.base / "base.toml").read_text(encoding="utf-8").partition("[[distribution]]")[0]
    (new / "base.toml").write_text(toml.replace("default = true\n", ""), encoding="utf-8")
    shutil.copy(release.base / "cover-letter.md", new)
    (new / "series").write_text("")
    other = sampleset.Repository(release.root, release.upstream, release.env, "2.0")
    sampleset.add_distribution(other, "demo-core", "airflow-core", CARRIED | {"src/airflow/first.py": NEARBY})
    release.ok("refresh", "1.0", "--onto", "2.0")
    tree = tree_of_refresh(release, "1.0")
    release.ok("export", "2.0", "--dir", tree)
    release.ok("check", "2.0")
    assert (tree / FIRST).read_text(encoding="utf-8") == NEARBY.replace("return 3\n", "return 33\n")
    assert "is a commit of upstream" in release.fails("refresh", NAME, "--onto", "2.0")


def test_without_a_clone(repository):
    onto = upstream(repository, {FIRST: NEARBY})
    for key in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
        user_git("config", key, "true", cwd=repository.upstream)
    branch = user_git("symbolic-ref", "--short", "HEAD", cwd=repository.upstream)
    repository.ok("refresh", NAME, "--onto", f"origin/{branch}", "--as", "main-2")
    toml = repository.root / "airflow-core" / "main-2" / "base.toml"
    assert f'commit = "{onto}"' in toml.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("args", "code", "problem"),
    [
        (("--onto", "nonsense"), 1, "has no commit nonsense; fetch it: git -C"),
        (("--onto", "HEAD", "--as", "../x"), 2, "'../x' cannot be the name of a base"),
    ],
)
def test_wrong_arguments(repository, args, code, problem):
    before = user_git("for-each-ref", cwd=repository.upstream)
    line = repository.fails("refresh", NAME, *args, "--source", repository.upstream, code=code)
    assert problem in line
    assert user_git("for-each-ref", cwd=repository.upstream) == before
    assert not tree_of_refresh(repository).exists()
