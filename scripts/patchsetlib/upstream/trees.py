# SPDX-License-Identifier: Apache-2.0
"""
Patches as commits in a clone of upstream's repository, in worktrees below ``work/``.

The clone gets objects and, for a while, worktrees; its branches, tags and own worktree stay as they are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patchsetlib.patches import clone as clones
from patchsetlib.patches.base import Base
from patchsetlib.patches.source import Applied
from patchsetlib.shell import git as gitlib
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import git
from patchsetlib.shell.paths import work_dir


@contextmanager
def scratch(clone: Path) -> Iterator[Path]:
    """Give an empty directory below ``work/``; afterwards it is removed, and worktrees of ``clone`` in it."""
    parent = work_dir() / "upstream"
    parent.mkdir(exist_ok=True)
    # Not a hidden name: upstream's settings leave out what is in a hidden directory.
    with tempfile.TemporaryDirectory(prefix="trees-", dir=parent, ignore_cleanup_errors=True) as name:
        try:
            yield Path(name)
        finally:
            for tree in Path(name).iterdir():
                if (tree / ".git").is_file():
                    git("worktree", "remove", "--force", "--force", tree, cwd=clone, check=False)


def place_series(base: Base, clone: Path, start: str, tree: Path) -> list[Applied]:
    """
    Make ``tree`` a worktree of ``clone`` at ``start`` with the series of ``base`` as commits on top.

    :return: without patches that change nothing there
    :raises PatchsetError: if a patch does not apply there
    """
    own_start, tip, applied = clones.fetch_series(base, clone)
    at = tip if start == own_start else start
    git("worktree", "add", "--quiet", "--detach", tree, at, cwd=clone)
    if start == own_start:
        return applied
    picked = (cherry_pick(base, entry, tree) for entry in applied)
    return [entry for entry in picked if entry]


def cherry_pick(
    base: Base, entry: Applied, tree: Path, message: str | None = None, identity: dict[str, str] | None = None
) -> Applied | None:
    """
    Make the change of a patch a commit on what ``tree`` has checked out.

    :param entry: the patch as a commit on the base of the series
    :param message: for the new commit; that of the patch, with its author, if None
    :param identity: variables that name author and committer
    :return: the new commit; None if the change is there already
    :raises PatchsetError: if it conflicts
    """
    # A tree made from sdists has few of upstream's files: what it lacks must not be taken for a rename.
    options = ("--no-commit", "--strategy-option=no-renames")
    picked = gitlib.call("cherry-pick", *options, entry.commit, cwd=tree)
    if picked.returncode:
        files = git("diff", "--name-only", "--diff-filter=U", "-z", cwd=tree).split("\0")[:-1]
        head = git("rev-parse", "HEAD", cwd=tree).strip()[:12]
        reason = f"conflict in {', '.join(files)}" if files else gitlib.essential(picked.stderr)
        raise PatchsetError(
            f"{entry.patch.name} does not apply to {head}: {reason}",
            f"move the series there first: scripts/patchset refresh {base.name} --onto REV",
        )
    if not gitlib.call("diff", "--cached", "--quiet", "HEAD", cwd=tree).returncode:
        return None
    source = ("--reuse-message", entry.commit) if message is None else ("--file", "-")
    git("commit", "--quiet", *source, cwd=tree, input=message, env=identity)
    return Applied(entry.patch, git("rev-parse", "HEAD", cwd=tree).strip())
