# SPDX-License-Identifier: Apache-2.0
"""Worktrees of a user's clone that are needed only for a while; they are below ``work/``."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patchsetlib.shell.git import git
from patchsetlib.shell.paths import work_dir
from patchsetlib.shell.staging import remove_tree, try_lock


@contextmanager
def scratch() -> Iterator[Path]:
    """
    Give an empty directory for worktrees; what is in it afterwards is removed, also from the clones' lists.

    A run that was killed leaves its directory; the next one removes it.
    """
    parent = work_dir() / "upstream" / "trees"
    parent.mkdir(parents=True, exist_ok=True)
    for leftover in parent.iterdir():
        if (descriptor := try_lock(leftover)) is not None:
            _discard(leftover)
            os.close(descriptor)
    # Not a hidden name: upstream's settings leave out what is in a hidden directory.
    directory = parent / secrets.token_hex(4)
    directory.mkdir()
    descriptor = try_lock(directory)
    try:
        yield directory
    finally:
        _discard(directory)
        if descriptor is not None:
            os.close(descriptor)


def add(clone: Path, commit: str, tree: Path) -> Path:
    """
    Make ``tree`` a worktree of ``clone`` with ``commit`` checked out, on no branch.

    :raises PatchsetError: if it cannot be made
    """
    git("worktree", "add", "--quiet", "--detach", tree, commit, cwd=clone)
    return tree


def _discard(directory: Path) -> None:
    for tree in directory.iterdir():
        if (tree / ".git").is_file():
            options = ("rev-parse", "--path-format=absolute", "--git-common-dir")
            repository = git(*options, cwd=tree, check=False).rstrip("\n")
            if repository:
                git("worktree", "remove", "--force", "--force", tree, cwd=repository, check=False)
    remove_tree(directory)
