# SPDX-License-Identifier: Apache-2.0
"""One patch as a branch for a pull request: its commit and those it needs, as upstream wants to see them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchsetlib.patches import moving, series
from patchsetlib.patches.base import Base
from patchsetlib.patches.check import TRAILERS
from patchsetlib.patches.clone import verify_repository
from patchsetlib.patches.moving import Placed
from patchsetlib.patches.series import Patch
from patchsetlib.shell import git as gitlib
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError, UsageError
from patchsetlib.shell.git import git
from patchsetlib.shell.paths import display
from patchsetlib.shell.staging import remove_tree, staged
from patchsetlib.upstream.remotes import Project, project, remotes

UPSTREAM = Project("github.com", "apache", "airflow")
_TREE = "airflow"
_BODY = "body.md"


@dataclass(frozen=True)
class Commit:
    """A patch as a commit on the branch."""

    patch: Patch
    id: str


@dataclass(frozen=True)
class Branch:
    """A branch with one patch at its tip, and below it those that it needs and upstream lacks."""

    name: str
    start: str
    """Id of upstream's commit below the branch."""
    commits: tuple[Commit, ...]
    directory: Path

    @property
    def patch(self) -> Patch:
        return self.commits[-1].patch

    @property
    def tree(self) -> Path:
        """The worktree that has the branch checked out."""
        return self.directory / _TREE

    @property
    def body(self) -> Path:
        """File with the description of the pull request."""
        return self.directory / _BODY


def find(patches: Sequence[Patch], wanted: str) -> Patch:
    """
    Return the patch that ``wanted`` names: by number, file name, or subject or a part of it.

    :raises UsageError: if there is none, or more than one
    """
    if wanted.isdigit():
        found = [patch for patch in patches if patch.name.startswith(f"{int(wanted):04}-")]
    else:
        names, text = (Path(wanted).name, f"{wanted}.patch"), wanted.casefold()
        found = [patch for patch in patches if patch.name in names or patch.subject.casefold() == text]
        found = found or [patch for patch in patches if text in patch.subject.casefold()]
    if len(found) != 1:
        raise UsageError(
            f"{'several patches are' if found else 'no patch is'} called {wanted!r}",
            f"patches: {', '.join(patch.name for patch in found or patches) or 'none'}",
        )
    return found[0]


def upstream_main(base: Base, clone: Path) -> str:
    """
    Return the name that upstream's branch ``main`` has in ``clone``, as it was last fetched.

    :raises PatchsetError: if there is none
    """
    verify_repository(clone)
    for name, url in remotes(clone).items():
        ours = url == base.repository or project(url) == UPSTREAM
        if ours and gitlib.resolve(f"refs/remotes/{name}/main", clone):
            return f"{name}/main"
    where = shlex.quote(display(clone))
    raise PatchsetError(
        f"{display(clone)} has no branch main of {base.repository}",
        f"git -C {where} remote add upstream {base.repository}, git -C {where} fetch upstream main; "
        "or name a commit with --onto",
    )


def message(patch: Patch) -> str:
    """Return the message for upstream: that of the patch without the trailers meant for this repository."""
    kept = [
        f"{key}: {value}" for key, values in patch.trailers.items() for value in values if key not in TRAILERS
    ]
    return "\n\n".join(part for part in (patch.subject, patch.body, "\n".join(kept)) if part) + "\n"


def make(
    patch: Patch,
    base: Base,
    clone: Path,
    revision: str,
    name: str,
    directory: Path,
    describe: Callable[[Branch], str],
) -> Branch:
    """
    Make branch ``name`` in ``clone``, with a worktree and a description in ``directory``.

    What ``clone`` has checked out is not touched.

    Below the patch are those that it needs: by its trailers, and where it changes what they have written.

    :param revision: what the branch is to be on top of
    :param describe: returns the description
    :raises PatchsetError: if it cannot be made; then nothing is left behind
    """
    verify_repository(clone)
    identity = gitlib.identity(clone)
    if not gitlib.succeeds("check-ref-format", "--branch", name, cwd=clone):
        raise UsageError(f"{name!r} cannot be the name of a branch", "choose another one with --branch")

    def discard(path: Path) -> None:
        _discard(clone, path, name)

    def publish(building: Path, final: Path) -> None:
        os.rename(building, final)
        git("worktree", "repair", final / _TREE, cwd=clone)

    with staged(directory, discard=discard, publish=publish) as building:
        # After staged() has removed what a killed run left, its branch among it.
        _refuse_existing(clone, name)
        placed = _placed(patch, base, clone, revision, building / _TREE)
        commits = _rewritten(placed, series.load(base).patches, identity)
        branch = Branch(name, placed.start, commits, directory.absolute())
        if not branch.commits or branch.patch != patch:
            raise PatchsetError(
                f"{patch.name} changes nothing on top of {placed.start[:12]}",
                "upstream has it; there is nothing to send",
            )
        (building / _BODY).write_text(describe(branch), encoding="utf-8")
        # Last: what fails before leaves no name in the clone.
        git("switch", "--quiet", "--create", name, branch.commits[-1].id, cwd=building / _TREE)
    return branch


def _refuse_existing(clone: Path, name: str) -> None:
    if gitlib.resolve(f"refs/heads/{name}", clone) is None:
        return
    remedy, where = "", shlex.quote(display(clone))
    listed = git("worktree", "list", "--porcelain", "-z", cwd=clone).split("\0\0")
    for fields in (entry.split("\0") for entry in listed):
        if f"branch refs/heads/{name}" in fields:
            tree = shlex.quote(fields[0].removeprefix("worktree "))
            remedy = f"git -C {where} worktree remove --force {tree}; "
    raise PatchsetError(
        f"branch {name} exists in {where}",
        f"keep it and name another one with --branch, or remove it: {remedy}git -C {where} branch -D {name}",
    )


def _placed(patch: Patch, base: Base, clone: Path, revision: str, tree: Path) -> Placed:
    """Make ``tree`` a worktree of ``clone`` with ``patch`` and what it needs as commits on ``revision``."""
    patches = series.load(base).patches
    needed = moving.with_dependencies(patches, patch)
    while True:
        try:
            return moving.place_patches(needed, base, clone, revision, tree)
        except PatchsetError as e:
            conflict = e.__cause__
            if not isinstance(conflict, moving.Conflict):
                raise
            before = patches[: patches.index(conflict.patch)]
            others = [each for each in before if each not in needed and {*each.files} & {*conflict.files}]
            if not others:
                raise
            # What it changes may be lines of a patch that it does not need to work: most likely the last one.
            ui.info(f"{conflict.patch.name} does not merge without {others[-1].name}: trying with both")
            more = moving.with_dependencies(patches, others[-1])
            needed = [each for each in patches if each in needed or each in more]


def _rewritten(placed: Placed, patches: Sequence[Patch], identity: dict[str, str]) -> tuple[Commit, ...]:
    """Make the commits again, with the user's name and the messages for upstream."""
    by_subject = {patch.subject: patch for patch in patches}
    found: list[Commit] = []
    for commit in placed.commits:
        patch = by_subject[git("log", "-1", "--format=%s", commit, cwd=placed.tree).rstrip("\n")]
        parent = found[-1].id if found else placed.start
        made = git(
            *("commit-tree", "-p", parent, "-F", "-", f"{commit}^{{tree}}"),
            cwd=placed.tree,
            input=message(patch),
            env=identity,
        )
        found.append(Commit(patch, made.strip()))
    return tuple(found)


def _discard(clone: Path, directory: Path, name: str) -> None:
    """Remove what was built in part, and the branch if it had got that far."""
    tree = directory / _TREE
    made = False
    if (tree / ".git").exists():
        head = git("symbolic-ref", "--quiet", "HEAD", cwd=tree, check=False).strip()
        made = head == f"refs/heads/{name}"
    moving.remove(clone, tree)
    remove_tree(directory)
    if made:
        git("branch", "--quiet", "-D", name, cwd=clone, check=False)
