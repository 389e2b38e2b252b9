# SPDX-License-Identifier: Apache-2.0
"""A base that is a commit of upstream's, beside the release in the small patch set, and a codemod."""

from __future__ import annotations

from pathlib import Path

from sampleset import MODULE, TRAILERS, Repository, user_git

NAME = "main-1"
FIRST = "airflow-core/src/airflow/first.py"
GUIDE = "airflow-core/docs/guide.rst"
OLD_TEST = "airflow-core/tests/unit/test_first.py"
BULK = "airflow-core/tests/unit/test_bulk.py"
NEW_TEST = "airflow-core/tests/unit/test_third.py"
CODEMOD = """\
WORDS = ("assert (True|False)", "def test")


def rewrite(paths):
    for path in paths:
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("assert True", "assert 1"), encoding="utf-8")
"""
REWRITTEN = "def test_first():\n    assert 1\n"
TRAILER = "Codemod: say-one airflow-core/tests airflow-core/nowhere\n"


def add(repository: Repository) -> Path:
    """Give ``repository`` the codemod and a base without patches, for what its upstream has checked out."""
    codemods = repository.root / "scripts" / "codemods"
    (codemods / "__init__.py").touch()
    (codemods / "say_one.py").write_text(CODEMOD, encoding="utf-8")
    bulk = "".join(f"def test_{n}():\n    assert True\n\n\n" for n in range(20))
    repository.commit(repository.upstream, "Add more tests", {BULK: bulk})
    directory = repository.root / "airflow-core" / NAME
    directory.mkdir()
    commit = user_git("rev-parse", "HEAD", cwd=repository.upstream)
    (directory / "base.toml").write_text(
        f'version = "1.1"\n[git]\nrepository = "{repository.upstream.as_uri()}"\ncommit = "{commit}"\n'
        '[python]\nrange = ">=3.10"\n',
        encoding="utf-8",
    )
    (directory / "series").write_text("", encoding="utf-8")
    letter = "Take the third step right, then: Say in the guide what a step is.\n"
    (directory / "cover-letter.md").write_text(letter, encoding="utf-8")
    return directory


def commit_series(repository: Repository, tree: Path) -> None:
    """Make two commits in ``tree``: one that holds what the codemod does, and one without."""
    files = {
        FIRST: MODULE.replace("return 3\n", "return 33\n"),
        # What the codemod makes of it, and a line besides.
        OLD_TEST: f"{REWRITTEN}    assert 2\n",
        NEW_TEST: "def test_third():\n    assert True\n",
    }
    # A file of which the codemod does all.
    files[BULK] = (tree / BULK).read_text(encoding="utf-8").replace("assert True", "assert 1")
    repository.commit(tree, "Take the third step right", files, trailers=TRAILERS + TRAILER)
    repository.commit(tree, "Say in the guide what a step is", {GUIDE: "Guide\n=====\n\nWhat a step is.\n"})


def add_with_series(repository: Repository, tree: Path) -> Path:
    """Give ``repository`` the base with two patches, made in ``tree``, which is removed again."""
    directory = add(repository)
    user_git("worktree", "add", "--quiet", "--detach", tree, "HEAD", cwd=repository.upstream)
    commit_series(repository, tree)
    repository.ok("export", NAME, "--dir", tree, "--tip", "HEAD")
    user_git("worktree", "remove", "--force", tree, cwd=repository.upstream)
    return directory
