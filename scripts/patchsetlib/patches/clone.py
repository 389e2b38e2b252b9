# SPDX-License-Identifier: Apache-2.0
"""Source trees that are worktrees of a user's full clone; the clone's own worktree is never touched."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from patchsetlib.patches import source
from patchsetlib.patches.base import Base
from patchsetlib.patches.series import Patch
from patchsetlib.patches.source import Applied
from patchsetlib.shell import git as gitlib
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import git
from patchsetlib.shell.paths import display
from patchsetlib.shell.staging import remove_tree, staged


def checkout(base: Base, patches: Sequence[Patch], clone: Path, target: Path) -> list[Applied]:
    """
    Make ``target`` a worktree of ``clone`` with ``patches`` as commits on the base's branch.

    :raises PatchsetError: if the clone lacks the base, or already has the branch, or a patch does not apply
    """
    verify(base, clone)
    branch, tag, where = source.branch_name(base), source.tag_name(base), shlex.quote(display(clone))

    def discard(path: Path) -> None:
        _discard(base, clone, path)

    def publish(building: Path, final: Path) -> None:
        git("worktree", "move", building, final, cwd=clone)

    with staged(target, discard=discard, publish=publish) as building:
        # After staged() has removed what a killed run left, its branch among it.
        if gitlib.resolve(f"refs/heads/{branch}", clone):
            raise PatchsetError(
                f"branch {branch} exists in {where}",
                f"export what it holds, then remove its worktree and: git -C {where} branch -D {branch}",
            )
        tagged = gitlib.resolve(f"refs/tags/{tag}", clone)
        if tagged not in (None, base.commit):
            raise PatchsetError(f"tag {tag} in {where} is not {base.commit}", f"git -C {where} tag -d {tag}")
        git("worktree", "add", "--quiet", "--detach", building, base.commit, cwd=clone)
        applied = source.apply_patches(patches, base, building)
        # Only now: what fails before leaves no name in the clone.
        git("switch", "--quiet", "--create", branch, cwd=building)
        if tagged is None:
            git("tag", tag, base.commit, cwd=clone)
    return applied


def verify(base: Base, clone: Path) -> None:
    """
    Make sure that ``clone`` is one, and has the commit of ``base``.

    :raises PatchsetError: if not
    """
    verify_repository(clone)
    tag = base.released.tag if base.released else None
    wanted = f"tag {tag}" if tag else base.commit
    fetch = f"git -C {shlex.quote(display(clone))} fetch {base.repository} {wanted}"
    at_tag = gitlib.resolve(f"refs/tags/{tag}", clone) if tag else None
    if at_tag is None:
        if gitlib.resolve(base.commit, clone) is None:
            missing = wanted if tag else f"commit {base.commit[:12]}"
            raise PatchsetError(f"{display(clone)} has no {missing}", f"fetch it: {fetch}")
    elif at_tag != base.commit:
        raise PatchsetError(
            f"tag {tag} in {display(clone)} is {at_tag}, not {base.commit}",
            f"this is not upstream's tag; delete it, then: {fetch}",
        )


def verify_repository(clone: Path) -> None:
    """Raise PatchsetError unless ``clone`` is the root of a git repository."""
    if not clone.is_dir() or not gitlib.succeeds("rev-parse", "--git-dir", cwd=clone):
        raise PatchsetError(
            f"{display(clone)} is not the root of a git repository", "give --source a clone of apache/airflow"
        )


def borrowed_tree(base: Base, clone: Path, directory: Path) -> Path:
    """
    Make a git repository at the commit of ``base``, tagged, and return its path; ``clone`` is only read.

    It borrows the clone's objects, and its worktree is empty: git writes the files that a patch changes when
    it needs them. So it is made in no time, to apply a series and look at the commits.

    :param directory: created
    :raises PatchsetError: if the clone lacks the base
    """
    verify(base, clone)
    branch = f"--initial-branch={source.branch_name(base)}"
    directory.mkdir()
    git("init", "--quiet", "--template=", "--object-format=sha1", branch, cwd=directory)
    for path in ("objects", "shallow"):
        place = git("rev-parse", "--path-format=absolute", "--git-path", path, cwd=clone).rstrip("\n")
        if path == "objects":
            alternates = directory / ".git" / "objects" / "info" / "alternates"
            alternates.parent.mkdir(exist_ok=True)
            alternates.write_text(f"{_c_quoted(place)}\n", encoding="utf-8", errors="surrogateescape")
        elif Path(place).exists():
            shutil.copy(place, directory / ".git")
    git("update-ref", "HEAD", base.commit, cwd=directory)
    git("tag", source.tag_name(base), base.commit, cwd=directory)
    git("read-tree", "HEAD", cwd=directory)
    return directory


def _c_quoted(path: str) -> str:
    """Return ``path`` as a line of an alternates file, where a leading quote or # would mean something."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _discard(base: Base, clone: Path, path: Path) -> None:
    """Remove a worktree that was built in part, and branch and tag if it had got that far."""
    branch = source.branch_name(base)
    head = (
        git("symbolic-ref", "--quiet", "HEAD", cwd=path, check=False).strip()
        if (path / ".git").exists()
        else ""
    )
    git("worktree", "remove", "--force", "--force", path, cwd=clone, check=False)
    remove_tree(path)
    if head == f"refs/heads/{branch}":
        git("branch", "--quiet", "-D", branch, cwd=clone, check=False)
        git("tag", "-d", source.tag_name(base), cwd=clone, check=False)
