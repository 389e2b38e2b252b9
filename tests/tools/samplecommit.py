# SPDX-License-Identifier: Apache-2.0
"""A base that is a commit of upstream's, beside the release in the small patch set."""

from __future__ import annotations

from pathlib import Path

from sampleset import MODULE, Repository, user_git

NAME = "main-1"
FIRST = "airflow-core/src/airflow/first.py"
GUIDE = "airflow-core/docs/guide.rst"
OLD_TEST = "airflow-core/tests/unit/test_first.py"
NEW_TEST = "airflow-core/tests/unit/test_third.py"
ONE = "0001-Take-the-third-step-right.patch"
TWO = "0002-Say-in-the-guide-what-a-step-is.patch"


def add_with_series(repository: Repository, tree: Path) -> Path:
    """Give ``repository`` the base with two patches, made in ``tree``, which is removed again."""
    user_git("commit", "--quiet", "--allow-empty", "--message", "Go on", cwd=repository.upstream)
    directory = repository.root / "airflow-core" / NAME
    directory.mkdir()
    (directory / "base.toml").write_text(
        f'version = "1.1"\n[git]\nrepository = "{repository.upstream.as_uri()}"\n'
        f'commit = "{user_git("rev-parse", "HEAD", cwd=repository.upstream)}"\n[python]\nrange = ">=3.10"\n'
        '[[distribution]]\nproject = "demo-core"\ndirectory = "airflow-core"\n',
        encoding="utf-8",
    )
    (directory / "series").write_text("", encoding="utf-8")
    letter = "Take the third step right, then: Say in the guide what a step is.\n"
    (directory / "cover-letter.md").write_text(letter, encoding="utf-8")
    repository.ok("checkout", NAME, "--source", repository.upstream, "--dir", tree)
    files = {
        FIRST: MODULE.replace("return 3\n", "return 33\n"),
        OLD_TEST: "def test_first():\n    assert 1\n",
        NEW_TEST: "def test_third():\n    assert True\n",
    }
    repository.commit(tree, "Take the third step right", files)
    repository.commit(tree, "Say in the guide what a step is", {GUIDE: "Guide\n=====\n\nWhat a step is.\n"})
    repository.ok("export", NAME, "--dir", tree)
    user_git("worktree", "remove", "--force", tree, cwd=repository.upstream)
    user_git("branch", "--quiet", "-D", f"patchset/{NAME}", cwd=repository.upstream)
    user_git("tag", "-d", f"patchset-base/{NAME}", cwd=repository.upstream)
    return directory
