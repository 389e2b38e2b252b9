# SPDX-License-Identifier: Apache-2.0
"""A series moved to another commit: 3-way, the codemod run anew, with a way on and back at a conflict."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import pytest
from samplecommit import BULK, FIRST, GUIDE, NAME, OLD_TEST
from sampleset import MODULE, TRAILERS, tree_of, user_git

import patchsetlib.patches.base
import patchsetlib.patches.codemods
from patchsetlib.patches import moving, series
from patchsetlib.shell.errors import PatchsetError

ONE = "0001-Take-the-third-step-right.patch"
TWO = "0002-Say-in-the-guide-what-a-step-is.patch"
NEW_BULK = "airflow-core/tests/unit/test_new.py"


@pytest.fixture
def repository(commit_base):
    return commit_base


def upstream(repository, files: dict[str, str], subject: str = "Go on") -> str:
    """Commit ``files`` to upstream and return the commit."""
    repository.commit(repository.upstream, subject, files)
    return user_git("rev-parse", "HEAD", cwd=repository.upstream)


# What the first patch changes is three lines above, so that it applies only if it is merged.
NEARBY = MODULE.replace("def step_4", "import os\n\n\ndef step_4")


def harmless(repository) -> str:
    """Upstream goes on where the first patch is at work, and adds a file for the codemod."""
    return upstream(repository, {FIRST: NEARBY, NEW_BULK: "def test_new():\n    assert True\n"})


def conflicting(repository) -> str:
    return upstream(repository, {GUIDE: "Guide\n=====\n\nHow it works tomorrow.\n"})


def tree_of_refresh(repository, base: str = NAME) -> Path:
    return repository.root / "work" / base / "refresh"


def refresh(repository, revision: str, *args, base: str = NAME):
    return repository.run("refresh", base, "--onto", revision, "--source", repository.upstream, *args)


def test_moves_with_the_codemod_run_anew(repository):
    onto = harmless(repository)
    before = tree_of(repository.root / "airflow-core")
    done = refresh(repository, "HEAD")
    assert done.returncode == 0, done.stderr
    tree = tree_of_refresh(repository)
    assert done.stdout.splitlines()[-1] == str(tree)
    branch = f"patchset/{NAME}-onto-{onto[:12]}"
    assert user_git("symbolic-ref", "--short", "HEAD", cwd=tree) == branch
    assert user_git("log", "--reverse", "--format=%s", f"{onto}..", cwd=tree).splitlines() == [
        "Take the third step right",
        "Say in the guide what a step is",
    ]
    for file in (BULK, NEW_BULK):
        assert "assert 1" in user_git("show", f"{branch}~1:{file}", cwd=tree)
    assert (tree / FIRST).read_text(encoding="utf-8") == NEARBY.replace("return 3\n", "return 33\n")
    # The range-diff, in its own format.
    listed = re.findall(r"^(\d):  [0-9a-f]+ ([=!]) (\d):  [0-9a-f]+ (.*)$", done.stdout, re.MULTILINE)
    assert listed == [
        ("1", "!", "1", "Take the third step right"),
        ("2", "=", "2", "Say in the guide what a step is"),
    ]
    assert f"scripts/patchset export NEWBASE --dir work/{NAME}/refresh --tip {branch}" in done.stderr
    assert tree_of(repository.root / "airflow-core") == before


def test_writes_a_new_base(repository):
    onto = harmless(repository)
    done = refresh(repository, onto, "--as", "main-2")
    assert done.returncode == 0, done.stderr
    new = repository.root / "airflow-core" / "main-2"
    assert f'commit = "{onto}"' in (new / "base.toml").read_text(encoding="utf-8")
    assert [path.name for path in sorted(new.glob("*.patch"))] == [ONE, TWO]
    assert "assert True" not in (new / ONE).read_text(encoding="utf-8").partition("test_third")[0]
    checked = repository.run("--quiet", "check", "main-2", "--source", repository.upstream)
    assert (checked.returncode, checked.stdout) == (0, "")
    assert "applying the patches skipped" not in checked.stderr
    assert repository.ok("export", "main-2", "--dir", tree_of_refresh(repository)) == ""
    # The same patches, and so the same commits, from a checkout.
    tips = [user_git("rev-parse", "HEAD", cwd=tree_of_refresh(repository))]
    user_git("worktree", "remove", "--force", tree_of_refresh(repository), cwd=repository.upstream)
    user_git("branch", "-D", "patchset/main-2", cwd=repository.upstream)
    other = repository.root / "other"
    repository.ok("checkout", "main-2", "--source", repository.upstream, "--dir", other)
    assert [user_git("rev-parse", "HEAD", cwd=other)] == tips


def test_conflict_names_what_and_how_to_go_on(repository):
    conflicting(repository)
    before = tree_of(repository.root / "airflow-core")
    line = repository.fails("refresh", NAME, "--onto", "HEAD", "--source", repository.upstream)
    assert f"{TWO} cannot be moved: conflict in {GUIDE}; resolve it in work/{NAME}/refresh" in line
    assert f"scripts/patchset refresh {NAME} --continue" in line
    tree = tree_of_refresh(repository)
    # Neither twice, nor before it is resolved.
    line = repository.fails("refresh", NAME, "--onto", "HEAD", "--source", repository.upstream)
    assert "a refresh waits in" in line
    line = repository.fails("refresh", NAME, "--continue")
    assert f"{TWO}: not resolved: {GUIDE}" in line
    (tree / GUIDE).write_text("Guide\n=====\n\nWhat a step is, tomorrow.\n", encoding="utf-8")
    line = repository.fails("refresh", NAME, "--continue")
    assert f"{TWO}: not resolved: {GUIDE}" in line
    user_git("add", GUIDE, cwd=tree)
    done = repository.run("refresh", NAME, "--continue")
    assert done.returncode == 0, done.stderr
    assert (tree / GUIDE).read_text(encoding="utf-8").endswith("What a step is, tomorrow.\n")
    assert user_git("log", "-1", "--format=%an|%cn", cwd=tree) == (
        "Airflow LocalExecutor patch set|Airflow LocalExecutor patch set"
    )
    assert "no refresh of" in repository.fails("refresh", NAME, "--continue")
    assert tree_of(repository.root / "airflow-core") == before


def test_conflict_in_the_patch_with_the_codemod(repository):
    """The user ends ``git am`` with plain git; the commit then holds what the codemod did all the same."""
    onto = upstream(repository, {FIRST: MODULE.replace("return 3\n", "return 4\n")})
    line = repository.fails("refresh", NAME, "--onto", onto, "--source", repository.upstream)
    assert f"{ONE} cannot be moved: conflict in {FIRST}" in line
    tree = tree_of_refresh(repository)
    (tree / FIRST).write_text(MODULE.replace("return 3\n", "return 333\n"), encoding="utf-8")
    user_git("add", FIRST, cwd=tree)
    user_git("am", "--continue", cwd=tree)
    done = repository.run("refresh", NAME, "--continue")
    assert done.returncode == 0, done.stderr
    assert user_git("rev-parse", "HEAD~2", cwd=tree) == onto
    changed = user_git("diff", "--name-only", f"{onto}..HEAD~1", cwd=tree).splitlines()
    assert {FIRST, OLD_TEST, BULK} <= set(changed)
    assert user_git("log", "-1", "--format=%ct", "HEAD~1", cwd=tree) == user_git(
        "log", "-1", "--format=%at", "HEAD~1", cwd=tree
    )


def test_patch_that_is_dropped(repository):
    upstream(repository, {FIRST: MODULE.replace("return 3\n", "return 4\n")})
    repository.fails("refresh", NAME, "--onto", "HEAD", "--source", repository.upstream)
    tree = tree_of_refresh(repository)
    user_git("am", "--skip", cwd=tree)
    done = repository.run("refresh", NAME, "--continue")
    assert done.returncode == 0, done.stderr
    assert f"warning: {ONE}: left out, as it changes nothing here" in done.stderr
    assert user_git("log", "--format=%s", "-2", cwd=tree).splitlines() == [
        "Say in the guide what a step is",
        "Go on",
    ]
    # Without the patch there is nothing of its codemod either.
    assert "assert True" in (tree / BULK).read_text(encoding="utf-8")


def test_patch_that_upstream_has(repository):
    upstream(repository, {GUIDE: "Guide\n=====\n\nWhat a step is.\n"})
    done = refresh(repository, "HEAD", "--as", "main-2")
    assert done.returncode == 0, done.stderr
    assert f"warning: {TWO}: left out, as it changes nothing here" in done.stderr
    assert [path.name for path in (repository.root / "airflow-core" / "main-2").glob("*.patch")] == [ONE]


def test_abort(repository):
    conflicting(repository)
    before = tree_of(repository.root / "airflow-core")
    references = user_git("for-each-ref", cwd=repository.upstream)
    repository.fails("refresh", NAME, "--onto", "HEAD", "--source", repository.upstream)
    repository.ok("refresh", NAME, "--abort")
    assert not tree_of_refresh(repository).exists()
    assert user_git("for-each-ref", cwd=repository.upstream) == references
    assert user_git("worktree", "list", cwd=repository.upstream).count("\n") == 0
    assert user_git("status", "--porcelain", cwd=repository.upstream) == ""
    assert tree_of(repository.root / "airflow-core") == before
    assert "no refresh of" in repository.fails("refresh", NAME, "--abort")


def test_goes_on_after_having_been_killed(repository):
    """What was left of the patch at work is done anew."""
    onto = conflicting(repository)
    repository.fails("refresh", NAME, "--onto", "HEAD", "--source", repository.upstream)
    tree = tree_of_refresh(repository)
    path = Path(user_git("rev-parse", "--absolute-git-dir", cwd=tree), "patchset-refresh.json")
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r'"(parent|rewritten)": "\w+"', r'"\1": null', text), encoding="utf-8")
    line = repository.fails("refresh", NAME, "--continue")
    assert f"{TWO} cannot be moved: conflict in {GUIDE}" in line
    assert user_git("rev-list", "--count", f"{onto}..", cwd=tree) == "1"


def test_release_without_its_tag(repository):
    """The clone has neither tag nor commit of the release; what the sdist tree has is merged 3-way."""
    repository.ok("checkout", "1.0")
    changed = {
        FIRST: MODULE.replace("return 3\n", "return 33\n"),
        "airflow-core/tests/unit/test_3.py": "x = 1\n",
    }
    repository.commit(repository.source, "Take the third step right", changed, trailers=TRAILERS)
    repository.ok("export", "1.0")
    shutil.rmtree(repository.upstream / ".git")
    user_git("init", "--quiet", cwd=repository.upstream)
    onto = upstream(repository, {FIRST: NEARBY})
    done = repository.run("refresh", "1.0", "--onto", onto, "--source", repository.upstream)
    assert done.returncode == 0, done.stderr
    moved = (tree_of_refresh(repository, "1.0") / FIRST).read_text(encoding="utf-8")
    assert moved == NEARBY.replace("return 3\n", "return 33\n")


def test_without_a_clone(repository):
    onto = harmless(repository)
    user_git("config", "uploadpack.allowFilter", "true", cwd=repository.upstream)
    branch = user_git("symbolic-ref", "--short", "HEAD", cwd=repository.upstream)
    done = repository.run("refresh", NAME, "--onto", f"origin/{branch}", "--as", "main-2")
    assert done.returncode == 0, done.stderr
    assert f'commit = "{onto}"' in (repository.root / "airflow-core/main-2/base.toml").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("args", "code", "problem"),
    [
        ((), 2, "no commit to move the series to; name it: --onto REV"),
        (("--onto", "nonsense"), 1, "has no commit nonsense; fetch it: git -C"),
        (("--onto", "HEAD", "--as", "../x"), 2, "'../x' cannot be the name of a base"),
        (("--onto", "HEAD~1", "--as", NAME), 1, f"the base {NAME} exists, for "),
        (("--continue", "--onto", "HEAD"), 2, "take no --onto, --source or --as"),
    ],
)
def test_wrong_arguments(repository, args, code, problem):
    source = () if "--continue" in args else ("--source", repository.upstream)
    before = user_git("for-each-ref", cwd=repository.upstream)
    assert problem in repository.fails("refresh", NAME, *args, *source, code=code)
    assert user_git("for-each-ref", cwd=repository.upstream) == before
    assert not tree_of_refresh(repository).exists()


@pytest.fixture
def base(repository, monkeypatch):
    monkeypatch.setattr(patchsetlib.patches.base, "ROOT", repository.root)
    directory = repository.root / "scripts" / "codemods"
    monkeypatch.setattr(patchsetlib.patches.codemods, "_DIRECTORY", directory)
    spec = importlib.util.spec_from_file_location("codemods.say_one", directory / "say_one.py")
    monkeypatch.setitem(sys.modules, spec.name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(sys.modules[spec.name])
    monkeypatch.setenv("PATCHSET_WORK", str(repository.root / "work"))
    return patchsetlib.patches.base.load(NAME)


def test_place_patches(repository, base):
    """One patch alone, on another commit, on no branch; the clone then is as it was."""
    onto = harmless(repository)
    before = user_git("for-each-ref", cwd=repository.upstream)
    (second,) = series.load(base).patches[1:]
    placed = moving.place_patches([second], base, repository.upstream, "HEAD", repository.root / "placed")
    assert placed.start == onto
    assert user_git("rev-list", "--reverse", f"{onto}..", cwd=placed.tree).split() == list(placed.commits)
    assert len(placed.commits) == 1
    moving.remove(repository.upstream, placed.tree)
    assert user_git("for-each-ref", cwd=repository.upstream) == before
    assert user_git("worktree", "list", cwd=repository.upstream).count("\n") == 0


def test_place_series_leaves_nothing_at_a_conflict(repository, base):
    onto = conflicting(repository)
    (repository.root / "airflow-core" / NAME / "series").write_text(f"{TWO}\n")
    with pytest.raises(PatchsetError, match=f"{TWO} cannot be moved: conflict in {GUIDE}") as caught:
        moving.place_series(base, repository.upstream, onto, repository.root / "placed")
    assert f"refresh {NAME} --onto {onto[:12]}" in str(caught.value)
    assert not (repository.root / "placed").exists()
    assert user_git("worktree", "list", cwd=repository.upstream).count("\n") == 0


def test_with_dependencies(repository, base):
    one, two = series.load(base).patches
    path = two.path
    depends = "Depends-on: Take the third step right\nForwarded: no\n"
    path.write_text(path.read_text(encoding="utf-8").replace("Forwarded: no\n", depends), encoding="utf-8")
    two = series.parse(path)
    assert moving.with_dependencies([one, two], two) == [one, two]
    assert moving.with_dependencies([one, two], one) == [one]
    with pytest.raises(PatchsetError, match="which is no patch of this series"):
        moving.with_dependencies([two], two)
