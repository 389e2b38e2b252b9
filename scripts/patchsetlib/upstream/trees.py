# SPDX-License-Identifier: Apache-2.0
"""
Patches as commits in a clone of upstream's repository, in worktrees below ``work/``.

The clone gets objects and, for a while, worktrees; its branches, tags and own worktree stay as they are.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patchsetlib.patches import clone as clones
from patchsetlib.patches import series, source
from patchsetlib.patches.base import Base
from patchsetlib.patches.series import Patch
from patchsetlib.shell import git as gitlib
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import git
from patchsetlib.shell.paths import display, work_dir

Commits = list[tuple[Patch, str]]
"""Patches and the ids of their commits, in the order of the series."""


@contextmanager
def worktrees(clone: Path) -> Iterator[Path]:
    """Give an empty directory below ``work/``; the worktrees of ``clone`` in it are removed afterwards."""
    parent = work_dir() / "upstream"
    parent.mkdir(exist_ok=True)
    # Not a hidden name: upstream's settings leave out what is in a hidden directory.
    with tempfile.TemporaryDirectory(prefix="trees-", dir=parent, ignore_cleanup_errors=True) as name:
        try:
            yield Path(name)
        finally:
            for tree in Path(name).iterdir():
                if (tree / ".git").is_file():
                    remove_worktree(clone, tree)


def add_worktree(clone: Path, commit: str, tree: Path) -> Path:
    """Make ``tree`` a worktree of ``clone`` with ``commit`` checked out, on no branch."""
    git("worktree", "add", "--quiet", "--detach", tree, commit, cwd=clone)
    return tree


def remove_worktree(clone: Path, tree: Path) -> None:
    """Remove a worktree of ``clone`` with all that is in it."""
    git("worktree", "remove", "--force", "--force", tree, cwd=clone, check=False)


def resolve(base: Base, clone: Path, revision: str) -> str:
    """
    Return the id of the commit that ``revision`` names in ``clone``.

    :raises PatchsetError: if there is none
    """
    clones.verify_repository(clone)
    if commit := gitlib.resolve(revision, clone):
        return commit
    where = shlex.quote(display(clone))
    raise PatchsetError(
        f"{display(clone)} has no commit {revision}", f"fetch it: git -C {where} fetch {base.repository}"
    )


def series_commits(base: Base, clone: Path) -> Commits:
    """
    Make the series of ``base`` commits in ``clone``, on its own base and on no branch.

    The base is upstream's commit; where the clone lacks that of a release, the tree of its sdists.

    :raises PatchsetError: if the clone lacks the base, or a patch does not apply
    """
    clones.verify_repository(clone)
    with worktrees(clone) as directory:
        if base.released and not gitlib.resolve(base.commit, clone):
            tree, start = source.cached_tree(base, patched=True), source.tag_name(base)
            git("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", tree, "HEAD", cwd=clone)
        else:
            clones.verify(base, clone)
            tree, start = directory / "series", base.commit
            # Without files: git writes those that a patch changes.
            git("worktree", "add", "--quiet", "--detach", "--no-checkout", tree, start, cwd=clone)
            git("read-tree", "HEAD", cwd=tree)
            source.apply_series(base, tree)
        ids = git("rev-list", "--reverse", f"{start}..HEAD", cwd=tree).split()
    return list(zip(series.load(base).patches, ids, strict=True))


def place_series(base: Base, clone: Path, start: str, tree: Path) -> Commits:
    """
    Make ``tree`` a worktree of ``clone`` at ``start`` with the series of ``base`` as commits on top.

    :return: without patches that change nothing there
    :raises PatchsetError: if a patch does not apply there
    """
    commits = series_commits(base, clone)
    add_worktree(clone, start, tree)
    if start == base.commit:
        if commits:
            git("checkout", "--quiet", "--detach", commits[-1][1], cwd=tree)
        return commits
    picked = ((patch, cherry_pick(base, patch, commit, tree)) for patch, commit in commits)
    return [(patch, commit) for patch, commit in picked if commit]


def cherry_pick(
    base: Base,
    patch: Patch,
    commit: str,
    tree: Path,
    message: str | None = None,
    identity: dict[str, str] | None = None,
) -> str | None:
    """
    Make the change of ``commit``, which is ``patch``, a commit on what ``tree`` has checked out.

    :param message: for the new commit; that of ``commit``, with its author, if None
    :param identity: variables that name author and committer
    :return: id of the new commit; None if the change is there already
    :raises PatchsetError: if it conflicts
    """
    # A tree made from sdists has few of upstream's files: what it lacks must not be taken for a rename.
    picked = gitlib.call("cherry-pick", "--no-commit", "--strategy-option=no-renames", commit, cwd=tree)
    if picked.code:
        files = git("diff", "--name-only", "--diff-filter=U", "-z", cwd=tree).split("\0")[:-1]
        head = git("rev-parse", "HEAD", cwd=tree).strip()[:12]
        raise PatchsetError(
            f"{patch.name} does not apply to {head}: "
            + (f"conflict in {', '.join(files)}" if files else gitlib.essential(picked.err)),
            f"move the series there first: scripts/patchset refresh {base.name} --onto REV",
        )
    if gitlib.succeeds("diff", "--cached", "--quiet", "HEAD", cwd=tree):
        return None
    source_of_message = ("--reuse-message", commit) if message is None else ("--file", "-")
    git("commit", "--quiet", *source_of_message, cwd=tree, input=message, env=identity)
    return git("rev-parse", "HEAD", cwd=tree).strip()
