# SPDX-License-Identifier: Apache-2.0
"""
Patches on another commit than the one they were written for, merged 3-way.

``place_series(base, clone, revision, directory)`` and ``place_patches(patches, base, clone, revision,
directory)`` make ``directory`` a worktree of ``clone`` at ``revision`` with the patches as commits on top, on
no branch, and return it as a :class:`Placed`; ``remove(clone, tree)`` removes it. Which patches must come
before one, ``with_dependencies(patches, patch)`` says. In the clone nothing changes but that it has more
objects.

A codemod is run anew on the new parent, and what its patch holds besides is merged (``codemods``).
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchsetlib.patches import clone as clones
from patchsetlib.patches import series, source
from patchsetlib.patches.base import Base
from patchsetlib.patches.series import Patch
from patchsetlib.patches.source import Applied
from patchsetlib.shell import git as gitlib
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import GitError, git
from patchsetlib.shell.paths import display
from patchsetlib.shell.staging import remove_tree, staged


@dataclass(frozen=True)
class Placed:
    """A worktree with patches as commits on top of another commit."""

    tree: Path
    start: str
    """Id of the commit that the patches are on top of."""
    commits: tuple[str, ...]
    """Ids of the patches' commits, in order, without those that change nothing any more."""


@dataclass(frozen=True)
class Old:
    """A series as commits on its own base; a clone has all of their objects."""

    start: str
    tip: str


class Conflict(PatchsetError):
    """A patch cannot be merged; ``git am`` waits in the tree to go on or to be aborted."""

    def __init__(self, patch: Patch, files: Sequence[str], reason: str, parent: str, rewritten: str):
        where = f"conflict in {', '.join(files)}" if files else reason
        super().__init__(f"{patch.name} cannot be moved: {where}")
        self.patch = patch
        self.files = tuple(files)
        self.parent = parent
        self.rewritten = rewritten


def place_series(base: Base, clone: Path, revision: str, directory: Path) -> Placed:
    """
    Make ``directory`` a worktree of ``clone`` at ``revision`` with the series of ``base`` on top.

    :param clone: of upstream's repository; it need not have the commit that a release was built from
    :param directory: created
    :raises PatchsetError: if a patch cannot be merged (says which, and in which file) or the clone lacks
        something; nothing is left behind
    """
    return place_patches(series.load(base).patches, base, clone, revision, directory)


def place_patches(
    patches: Sequence[Patch], base: Base, clone: Path, revision: str, directory: Path
) -> Placed:
    """Do as :func:`place_series` does, with some patches of the series only."""
    start = resolve(clone, revision, base)
    bring(base, clone)
    commits = []

    def publish(building: Path, final: Path) -> None:
        git("worktree", "move", building, final, cwd=clone)

    with staged(directory, discard=lambda path: remove(clone, path), publish=publish) as building:
        git("worktree", "add", "--quiet", "--detach", building, start, cwd=clone)
        for patch in patches:
            try:
                applied = place(patch, building)
            except Conflict as e:
                raise PatchsetError(
                    e.problem, f"to resolve it: scripts/patchset refresh {base.name} --onto {start[:12]}"
                ) from e
            commits += [applied.commit] if applied else []
    return Placed(directory.absolute(), start, tuple(commits))


def remove(clone: Path, tree: Path) -> None:
    """Remove a worktree of ``clone`` with all that is in it."""
    git("worktree", "remove", "--force", "--force", tree, cwd=clone, check=False)
    remove_tree(tree)


def with_dependencies(patches: Sequence[Patch], patch: Patch) -> list[Patch]:
    """
    Return ``patch`` and, before it, those that it needs by its trailers ``Depends-on``, in the series' order.

    :param patches: the series
    :raises PatchsetError: if a trailer names none of them
    """
    by_subject = {each.subject: each for each in patches}
    needed, waiting = set(), [patch]
    while waiting:
        each = waiting.pop()
        needed.add(each.name)
        for subject in each.trailers.get("Depends-on", ()):
            if subject not in by_subject:
                raise PatchsetError(
                    f"{each.name} depends on {subject!r}, which is no patch of this series",
                    "the trailer Depends-on holds the subject of another patch",
                )
            if by_subject[subject].name not in needed:
                waiting.append(by_subject[subject])
    return [each for each in patches if each.name in needed]


def resolve(clone: Path, revision: str, base: Base) -> str:
    """
    Return the id of the commit that ``revision`` names in ``clone``.

    :raises PatchsetError: if there is none
    """
    clones.verify_repository(clone)
    commit = gitlib.resolve(revision, clone)
    if commit is None:
        where = shlex.quote(display(clone))
        raise PatchsetError(
            f"{display(clone)} has no commit {revision}", f"fetch it: git -C {where} fetch {base.repository}"
        )
    return commit


def bring(base: Base, clone: Path) -> Old:
    """
    Give ``clone`` the objects of the series on its own base, without which there is nothing to merge 3-way.

    :raises PatchsetError: if they cannot be made
    """
    if not base.released or gitlib.resolve(base.commit, clone):
        with tempfile.TemporaryDirectory(prefix="patchset-") as scratch:
            tree = clones.borrowed_tree(base, clone, Path(scratch, "old"))
            applied = source.apply_series(base, tree)
            old = Old(base.commit, git("rev-parse", "HEAD", cwd=tree).strip())
            # The tip does not have what the codemods alone made, which the patches apply to.
            wanted = dict.fromkeys([old.tip, *(entry.rewritten for entry in applied)])
            for commit in wanted:
                git("update-ref", f"refs/patchset/{commit}", commit, cwd=tree)
            _fetch(clone, tree, *(f"refs/patchset/{commit}" for commit in wanted))
    else:
        tree = source.cached_tree(base, patched=True)
        _fetch(clone, tree, f"refs/heads/{source.branch_name(base)}")
        start, tip = source.tag_name(base), source.branch_name(base)
        old = Old(*(git("rev-parse", f"{name}^{{commit}}", cwd=tree).strip() for name in (start, tip)))
    return old


def _fetch(clone: Path, tree: Path, *references: str) -> None:
    options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--refmap=")
    git("fetch", *options, tree, *references, cwd=clone)


def place(patch: Patch, tree: Path) -> Applied | None:
    """
    Merge ``patch`` into what ``tree`` has checked out, as a commit; return None if it changes nothing there.

    :raises Conflict: if that needs a human; what has been merged is in the tree
    """
    parent, rewritten = source.run_codemods(patch, tree)
    try:
        git(*source.am("--3way", patch.path.resolve()), cwd=tree)
    except GitError as e:
        files = git("diff", "--name-only", "--diff-filter=U", "-z", cwd=tree).split("\0")[:-1]
        raise Conflict(patch, files, gitlib.essential(e.stderr), parent, rewritten) from e
    return finish(patch, tree, parent, rewritten)


def finish(patch: Patch, tree: Path, parent: str, rewritten: str) -> Applied | None:
    """
    Make the commit of ``patch`` once ``git am`` is through with it; return None if it has made none.

    :param parent: commit before the codemods
    :param rewritten: commit after them
    """
    if gitlib.resolve("HEAD", tree) == rewritten:
        source.move_head(tree, rewritten, parent)
        ui.warn(f"{patch.name}: left out, as it changes nothing here")
        return None
    source.commit_again(tree, parent)
    return Applied(patch, git("rev-parse", "HEAD", cwd=tree).strip(), (), rewritten)
