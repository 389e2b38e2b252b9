# SPDX-License-Identifier: Apache-2.0
"""What is made of a clone of upstream's repository; what it has checked out itself is never touched."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from patchsetlib.patches import series, source
from patchsetlib.patches.base import Base
from patchsetlib.patches.series import Patch
from patchsetlib.patches.source import Applied
from patchsetlib.shell import git as gitlib
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import GitError, git
from patchsetlib.shell.paths import display


def checkout(base: Base, patches: Sequence[Patch], clone: Path, target: Path) -> list[Applied]:
    """
    Make ``target`` a worktree of ``clone`` with ``patches`` as commits on the base's branch.

    :raises PatchsetError: if the clone lacks the base, or already has the branch, or a patch does not apply
    """
    verify(base, clone)
    add_worktree(clone, target, source.branch_name(base), base.commit)
    try:
        applied = source.apply_patches(patches, base, target)
    except BaseException:
        remove_worktree(clone, target, source.branch_name(base))
        raise
    git("tag", "--force", source.tag_name(base), base.commit, cwd=clone)
    return applied


def add_worktree(clone: Path, target: Path, branch: str, start: str) -> None:
    """
    Make ``target`` a worktree of ``clone`` with a new branch.

    :raises PatchsetError: in git's words, e.g. if there is such a branch
    """
    try:
        git("worktree", "add", "--quiet", "-b", branch, target.absolute(), start, cwd=clone)
    except GitError as e:
        where = shlex.quote(display(clone))
        raise PatchsetError(
            e.problem,
            f"if branch {branch} is no longer needed: git -C {where} worktree list, "
            f"git -C {where} worktree remove DIR, git -C {where} branch -D {branch}",
        ) from e


def remove_worktree(clone: Path, tree: Path, branch: str) -> None:
    """Remove a worktree with all that is in it, and its branch."""
    git("worktree", "remove", "--force", tree.absolute(), cwd=clone, check=False)
    git("branch", "--quiet", "-D", branch, cwd=clone, check=False)


def forget_removed_tree(base: Base, clone: Path) -> None:
    """Drop the branch of a worktree that was deleted with ``rm``, as that of an sdist tree goes with it."""
    git("worktree", "prune", cwd=clone)
    # git refuses to delete the branch of a worktree that is still there.
    git("branch", "--quiet", "-D", source.branch_name(base), cwd=clone, check=False)


def verify(base: Base, clone: Path) -> None:
    """
    Make sure that ``clone`` is one, and has the commit of ``base``.

    :raises PatchsetError: if not
    """
    resolve(clone, base.commit, base, base.tag)


def resolve(clone: Path, revision: str, base: Base, tag: str | None = None) -> str:
    """
    Return the id of the commit that ``revision`` names in ``clone``.

    :param tag: what to fetch if it is not there, instead of ``revision``
    :raises PatchsetError: if there is none
    """
    verify_repository(clone)
    commit = gitlib.resolve(revision, clone)
    if commit is None:
        raise PatchsetError(
            f"{display(clone)} has no commit {revision}",
            f"fetch it: git -C {shlex.quote(display(clone))} fetch {base.repository} {tag or revision}",
        )
    return commit


def verify_repository(clone: Path) -> None:
    """Raise PatchsetError unless ``clone`` is the root of a git repository."""
    if not clone.is_dir() or gitlib.call("rev-parse", "--git-dir", cwd=clone).returncode:
        raise PatchsetError(
            f"{display(clone)} is not the root of a git repository", "give --source a clone of apache/airflow"
        )


def borrow(repository: Path, directory: Path) -> Path:
    """
    Make ``directory`` an empty git repository that borrows the objects of another, and return its path.

    Neither configuration, attributes nor the worktree of ``repository`` have an effect there.
    """
    directory.mkdir()
    git("init", "--quiet", "--template=", "--object-format=sha1", cwd=directory)
    objects, shallow = (
        Path(git("rev-parse", "--path-format=absolute", "--git-path", name, cwd=repository).rstrip("\n"))
        for name in ("objects", "shallow")
    )
    # In C's quotes, since a leading quote or # would mean something.
    escaped = str(objects).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    alternates = directory / ".git" / "objects" / "info" / "alternates"
    alternates.parent.mkdir(exist_ok=True)
    alternates.write_text(f'"{escaped}"\n', encoding="utf-8", errors="surrogateescape")
    if shallow.exists():
        shutil.copy(shallow, directory / ".git")
    return directory


def borrowed_tree(base: Base, clone: Path, directory: Path) -> Path:
    """
    Make a git repository at the commit of ``base``, tagged, and return its path; ``clone`` is only read.

    Its worktree is empty: ``git am`` writes the files that a patch changes when it needs them. So it is made
    in no time, to apply a series and look at the commits.

    :param directory: created
    :raises PatchsetError: if the clone lacks the base
    """
    verify(base, clone)
    borrow(clone, directory)
    git("update-ref", "HEAD", base.commit, cwd=directory)
    git("tag", source.tag_name(base), base.commit, cwd=directory)
    git("read-tree", "HEAD", cwd=directory)
    return directory


def fetch_series(base: Base, clone: Path) -> tuple[str, list[Applied]]:
    """
    Give ``clone`` the commits of the series on its own base; it need not have the commit of a release.

    :return: id of the base commit, and the commits; no branch or tag names them
    :raises PatchsetError: if they cannot be made
    """
    with tempfile.TemporaryDirectory(prefix="patchset-") as scratch:
        if base.released:
            tree, patches = source.cached_tree(base, patched=True), series.load(base)
            start = gitlib.resolve(source.tag_name(base), tree) or ""
            commits = git("rev-list", "--reverse", f"{start}..HEAD", cwd=tree).split()
            applied = [Applied(*each) for each in zip(patches, commits, strict=True)]
        else:
            tree = borrowed_tree(base, clone, Path(scratch, "tree"))
            start, applied = base.commit, source.apply_series(base, tree)
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--refmap=")
        git("fetch", *options, tree.absolute(), "HEAD", cwd=clone)
    return start, applied
